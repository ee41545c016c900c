"""Time passes in the ledger: whatever is due happens, one thing after another, each at its own time."""

import asyncio
import time
from collections.abc import Iterator

from sandbox.stripe_api.billing.passing import arrived, passed
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Moment
from sandbox.stripe_api.store import Query, every

MOST_STEPS = 1_000_000
"""In one catching up; more would be an object that time changes without end."""
MOST_CLOCKS = 1000
LONGEST_HOLD = 0.05
"""Seconds for which catching up keeps everybody else waiting at a time."""


async def catch_up(ledger: Ledger, base_url: str, hold: float = LONGEST_HOLD) -> None:
    """Let everything happen that is due by now, also for test clocks that are advancing.

    Others may do so at the same time: together they come to the same.

    Args:
        ledger: no transaction may be under way in it; each step has its own.
        base_url: where the hosted pages are.
        hold: for how long at a time, in seconds, nobody else gets a turn.
    """
    began = time.monotonic()
    for _ in each_step(ledger, base_url):
        if time.monotonic() - began >= hold:
            await asyncio.sleep(0)
            began = time.monotonic()


def each_step(ledger: Ledger, base_url: str) -> Iterator[None]:
    """Each thing that is due, done one by one; anything may happen in between."""
    yield from _run(ledger, None, int(ledger.clock()), base_url)
    for clock in every(ledger.store, Query("test_helpers.test_clock", label="advancing"), MOST_CLOCKS):
        target = clock["status_details"]["advancing"]["target_frozen_time"]
        yield from _run(ledger, clock["id"], target, base_url)
        if ledger.store.find(clock["id"]) == clock:
            with ledger.transaction():
                ledger.commit(arrived(clock), Cause())


def _run(ledger: Ledger, clock: str | None, until: int, base_url: str) -> Iterator[None]:
    for _ in range(MOST_STEPS):
        due = ledger.store.next_due(clock, until)
        if due is None:
            return
        _step(ledger, clock, due, base_url)
        yield
    raise RuntimeError(f"more than {MOST_STEPS} things were due until {until}: the last was {due}")


def _step(ledger: Ledger, clock: str | None, due: tuple[int, Json], base_url: str) -> None:
    at, one = due
    with ledger.transaction():
        change = passed(one, ledger.store, Moment(at, new_id, base_url))
        # A test clock moves its objects, not the time at which the world hears of them.
        ledger.commit(change, Cause(), at=at if clock is None else None)
