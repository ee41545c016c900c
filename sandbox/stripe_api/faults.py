"""Faults a test may ask for, and what they do to deliveries. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.stripe_api.objects import Json

REORDER_GAP = 0.2
"""Seconds between the deliveries of one change when they are turned around."""


class Faults(BaseModel):
    """The faults in force.

    Attributes:
        duplicate: how many more times each delivery is made.
        delay_seconds: how late each delivery is first tried.
        drop: how many of the next deliveries are never made.
        reorder: whether one change's deliveries are made last first.
        tamper: whether bodies are altered after they were signed.
        rate_limit: how many of the next API calls are refused with 429.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    duplicate: Annotated[int, Field(ge=0, le=20)] = 0
    delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    drop: Annotated[int, Field(ge=0, le=100_000)] = 0
    reorder: bool = False
    tamper: bool = False
    rate_limit: Annotated[int, Field(ge=0, le=100_000)] = 0


@dataclass(frozen=True)
class Planned:
    """A delivery to make, or one that was dropped; `due` in Unix seconds."""

    event: str
    endpoint: str
    state: Literal["pending", "dropped"]
    due: float


def listeners(endpoints: Iterable[Json], kind: str) -> list[str]:
    """The endpoints that are to hear of events of type `kind`."""
    return [
        endpoint["id"]
        for endpoint in endpoints
        if endpoint["status"] == "enabled" and {"*", kind} & set(endpoint["enabled_events"])
    ]


def planned(
    events: Sequence[Json], endpoints: Sequence[Json], faults: Faults, now: float
) -> tuple[list[Planned], Faults]:
    """The deliveries that one change's events cause, and the faults that remain."""
    pairs = [(event["id"], target) for event in events for target in listeners(endpoints, event["type"])]
    dropped = pairs[: faults.drop]
    kept = pairs[faults.drop :]
    plan = [Planned(event, target, "dropped", now) for event, target in dropped]
    for position, (event, target) in enumerate(kept):
        late = REORDER_GAP * (len(kept) - 1 - position) if faults.reorder else 0.0
        due = now + faults.delay_seconds + late
        plan.extend([Planned(event, target, "pending", due)] * (1 + faults.duplicate))
    return plan, faults.model_copy(update={"drop": faults.drop - len(dropped)})
