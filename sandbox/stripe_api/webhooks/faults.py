"""Faults a test may ask for, and what they do to deliveries. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.stripe_api.objects import Json

MOST_ENDPOINTS = 16
"""That an account may have in test mode: https://docs.stripe.com/webhooks."""
REORDER_GAP = 0.2
"""Seconds between the deliveries of one change when they are turned around."""


Calls = Annotated[int, Field(ge=0, le=100_000)]
CallFault = Literal["rate_limit", "fail", "cut", "hang"]
"""The faults of the API's answers; each counts the calls it is still to hit."""


class Faults(BaseModel):
    """The faults in force.

    Attributes:
        duplicate: how many more times each delivery is made.
        delay_seconds: how late each delivery is first tried.
        shuffle_seconds: each is first tried at a random moment within so many seconds, which reorders the
            deliveries of different changes too.
        drop: how many of the next deliveries are never made.
        chance: how likely a delivery is to be hit by the faults above; 1 for all of them.
        endpoint: the only one whose deliveries they hit; None for all of them.
        seed: of the next random choice; grows with each change, so that setting it repeats a run.
        reorder: whether one change's deliveries are made last first.
        tamper: whether bodies are altered after they were signed.
        rate_limit: how many of the next API calls are refused with 429.
        fail: how many of the next API calls fail with 500, nothing done.
        cut: how many of the next API calls are carried out, and lose their connection half-way in the answer.
        hang: how many of the next API calls get no answer at all, nothing done.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    duplicate: Annotated[int, Field(ge=0, le=20)] = 0
    delay_seconds: Annotated[float, Field(ge=0, le=3 * 86400)] = 0.0
    shuffle_seconds: Annotated[float, Field(ge=0, le=3 * 86400)] = 0.0
    drop: Calls = 0
    chance: Annotated[float, Field(ge=0, le=1)] = 1.0
    endpoint: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    reorder: bool = False
    tamper: bool = False
    rate_limit: Calls = 0
    fail: Calls = 0
    cut: Calls = 0
    hang: Calls = 0


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
    if not pairs:
        return [], faults
    dice = Random(faults.seed)  # noqa: S311  # repeatable on purpose
    plan: list[Planned] = []
    to_drop = faults.drop
    for position, (event, target) in enumerate(pairs):
        late = REORDER_GAP * (len(pairs) - 1 - position) if faults.reorder else 0.0
        if faults.endpoint not in (None, target) or dice.random() >= faults.chance:
            plan.append(Planned(event, target, "pending", now + late))
        elif to_drop:
            to_drop -= 1
            plan.append(Planned(event, target, "dropped", now))
        else:
            late += faults.delay_seconds
            for _ in range(1 + faults.duplicate):
                due = now + late + dice.uniform(0, faults.shuffle_seconds)
                plan.append(Planned(event, target, "pending", due))
    return plan, faults.model_copy(update={"drop": to_drop, "seed": faults.seed + 1})
