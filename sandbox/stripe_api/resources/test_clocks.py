"""Test clocks: the time of their customers, which moves when it is told to."""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.ending import MOST_OWNED, customer_deleted
from sandbox.stripe_api.billing.periods import period_end
from sandbox.stripe_api.billing.standing import OVER
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Draft, Operation, found, listing, retrieval
from sandbox.stripe_api.params import ListParams, Params, Timestamp
from sandbox.stripe_api.store import Query, State, every

MOST_INTERVALS = 2
_KIND = "test_helpers.test_clock"


class ClockCreate(Params):
    """A new clock."""

    frozen_time: Timestamp
    name: Annotated[str, Field(min_length=1, max_length=300)] | None = None


class ClockAdvance(Params):
    """Where a clock is to move to."""

    frozen_time: Timestamp


def _create(asked: Asked[ClockCreate]) -> Change:
    params, moment = asked.params, asked.moment
    new = objects.test_clock(moment.new_id("clock"), moment.now, params.frozen_time, params.name)
    return Change(new, (new,), (Draft(f"{_KIND}.created", new),))


def _advance(asked: Asked[ClockAdvance]) -> Change:
    target = asked.params.frozen_time
    clock = found(asked.state, _KIND, asked.ids["clock"])
    if target <= clock["frozen_time"]:
        raise ApiError("A test clock can only advance to a later time than its own.", param="frozen_time")
    if target > _furthest(clock, asked.state):
        raise ApiError(
            f"A test clock can advance at most {MOST_INTERVALS} intervals of its shortest subscription at"
            " once, and two years if it has none.",
            param="frozen_time",
        )
    advancing = {
        **clock,
        "status": "advancing",
        "status_details": {"advancing": {"target_frozen_time": target}},
    }
    return Change(advancing, (advancing,), (Draft(f"{_KIND}.advancing", advancing),))


def _furthest(clock: Json, state: State) -> int:
    """Up to when a clock may advance: https://docs.stripe.com/api/test_clocks/advance."""
    live = Query(
        "subscription",
        keep=lambda one: one["test_clock"] == clock["id"] and one["status"] not in OVER,
    )
    prices = {item["price"] for one in every(state, live, MOST_OWNED) for item in one["items"]["data"]}
    intervals = [found(state, "price", price)["recurring"] for price in prices]
    now = clock["frozen_time"]
    ends = [period_end(now, one["interval"], MOST_INTERVALS * one["interval_count"]) for one in intervals]
    return min(ends, default=period_end(now, "year", 2))


def _delete(asked: Asked[Params]) -> Change:
    clock = found(asked.state, _KIND, asked.ids["clock"])
    decision = Decision(asked.state)
    moment = replace(asked.moment, now=clock["frozen_time"])
    owned = Query("customer", keep=lambda one: bool(one.get("test_clock") == clock["id"]))
    for customer in every(asked.state, owned, MOST_OWNED):
        customer_deleted(decision, customer, moment)
    decision.tell(f"{_KIND}.deleted", clock)
    decision.remove(clock["id"])
    return decision.change({"id": clock["id"], "object": _KIND, "deleted": True})


def _clocks(_: Asked[ListParams]) -> Query:
    return Query(_KIND)


def operations() -> tuple[Operation[Any], ...]:
    """Every call about test clocks."""
    path = "/v1/test_helpers/test_clocks/{clock}"
    return (
        Operation("POST", "/v1/test_helpers/test_clocks", ClockCreate, _create),
        listing("/v1/test_helpers/test_clocks", ListParams, _clocks),
        retrieval(path, _KIND),
        Operation("POST", f"{path}/advance", ClockAdvance, _advance),
        Operation("DELETE", path, Params, _delete),
    )
