"""The worker loop: claims what is due, keeps its leases alive, and records how each pass ended.

Each kind has slots of its own, so that a hanging mail server delays no instance; within a kind each item has
a time limit and, failing, its own backoff, so that a broken one delays no other.
"""

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

import psycopg
import structlog

from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.queue import Kind
from provisioner.doorbell import Doorbell
from provisioner.metrics import WorkerMetrics
from provisioner.workqueue import Lease, LeaseLostError, WorkItem, WorkQueue

Handler = Callable[[WorkItem, Lease], Coroutine[Any, Any, datetime | None]]

# Below this the loop would spin on an item whose row is locked for a moment.
SHORTEST_PAUSE = 0.05
OUTAGE_PAUSE_FIRST = 0.2
OUTAGE_PAUSE_CAP = 5.0
# What a cancelled handler gets to unwind in, and what releasing its lease may take, in seconds.
UNWIND = 5.0
GAUGES_EVERY = 15.0
MOST_FRAMES = 30


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Bounds of the loop.

    Attributes:
        concurrency: handlers at once, per kind.
        time_limit: for one pass over one item.
        grace: what running handlers get to finish in at shutdown.
        poll: the longest time without looking at the queue.
    """

    concurrency: int = 8
    time_limit: timedelta = timedelta(minutes=2)
    grace: timedelta = timedelta(seconds=10)
    poll: timedelta = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Done:
    """The pass succeeded; look again at `next_due`, or when something happens."""

    next_due: datetime | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Try again, after a backoff."""

    error: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """A person has to act first."""

    error: str


class Lost:
    """The lease is somebody else's: record nothing."""


Outcome = Done | Failed | Parked | Lost


class Workers:
    """Runs `handlers` over the queue until told to stop.

    Args:
        queue: where items are claimed.
        database_url: where to listen for notifications.
        handlers: one per kind this process works on.
        options: the loop's bounds.
        metrics: what to count in.
    """

    def __init__(
        self,
        queue: WorkQueue,
        database_url: str,
        handlers: Mapping[Kind, Handler],
        options: WorkerOptions,
        metrics: WorkerMetrics,
    ) -> None:
        self._queue = queue
        self.metrics = metrics
        self.stations = {
            kind: Station(queue, kind, handler, options, metrics) for kind, handler in handlers.items()
        }
        self.doorbell = Doorbell(
            database_url, {kind: station.wake for kind, station in self.stations.items()}
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set (or this is cancelled); then every lease is finished or handed back."""
        async with asyncio.TaskGroup() as background:
            helpers = [background.create_task(self.doorbell.run()), background.create_task(self._gauges())]
            try:
                async with asyncio.TaskGroup() as stations:
                    for station in self.stations.values():
                        stations.create_task(station.run(stop))
            finally:
                for helper in helpers:
                    helper.cancel()

    async def _gauges(self) -> None:
        while True:
            with suppress(psycopg.Error):  # the stations report an outage; the gauges keep their last values
                self.metrics.observe(await self._queue.depths())
            await asyncio.sleep(GAUGES_EVERY)


class Station:
    """The workers of one kind."""

    def __init__(
        self, queue: WorkQueue, kind: Kind, handler: Handler, options: WorkerOptions, metrics: WorkerMetrics
    ) -> None:
        self._queue = queue
        self._kind = kind
        self._handler = handler
        self._options = options
        self._metrics = metrics
        self._running: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger(component="worker", kind=str(kind))
        self.wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Claim and handle until `stop`; running handlers then get the grace period."""
        stopping = asyncio.create_task(stop.wait())
        outage = OUTAGE_PAUSE_FIRST
        try:
            while not stop.is_set():
                self.wake.clear()
                try:
                    pause = await self._claim()
                    outage = OUTAGE_PAUSE_FIRST
                except (psycopg.Error, TimeoutError) as error:
                    self._log.warning(
                        "cannot claim work; trying again", error=type(error).__name__, pause=outage
                    )
                    await asyncio.wait({stopping}, timeout=outage)
                    outage = min(outage * 2, OUTAGE_PAUSE_CAP)
                    continue
                await self._sleep(stopping, pause)
        finally:
            stopping.cancel()
            await self._drain()

    async def _claim(self) -> float | None:
        """Start what can be started; seconds until there may be more (None: when a slot is free)."""
        free = self._options.concurrency - len(self._running)
        if free <= 0:
            return None
        claimed_at = asyncio.get_running_loop().time()
        async with asyncio.timeout(self._queue.lease.total_seconds() / 2):
            items = await self._queue.claim(self._kind, free)
        for item in items:
            self._metrics.claimed.labels(self._kind).inc()
            task = asyncio.create_task(self.attempt(item, claimed_at), name=f"{item.kind} {item.key}")
            self._running.add(task)
            task.add_done_callback(self._ended)
        if len(items) == free:
            return None
        poll = self._options.poll.total_seconds()
        async with asyncio.timeout(poll):
            wait = await self._queue.wait(self._kind)
        return poll if wait is None else min(max(wait.total_seconds(), SHORTEST_PAUSE), poll)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.wake.set()  # a slot is free, and the item itself may be due again
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("a pass could not be recorded", **_described(error))

    async def _sleep(self, stopping: asyncio.Task[Any], pause: float | None) -> None:
        waking = asyncio.create_task(self.wake.wait())
        try:
            await asyncio.wait({waking, stopping}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()

    async def _drain(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._options.grace.total_seconds())
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=3 * UNWIND)

    async def attempt(self, item: WorkItem, claimed_at: float) -> None:
        """Make one pass over an item claimed at `claimed_at` (the loop's clock), and release it."""
        with self._metrics.duration.labels(self._kind).time():
            handling = asyncio.create_task(self._handler(item, Lease(self._queue, item)))
            keeping = asyncio.create_task(self._keep(item, claimed_at))
            try:
                outcome = await self._supervise(item, handling, keeping)
            except asyncio.CancelledError:
                await self._abandon(item, handling)
                raise
            finally:
                keeping.cancel()
        await self._settle(item, outcome)

    async def _supervise(
        self, item: WorkItem, handling: asyncio.Task[datetime | None], keeping: asyncio.Task[None]
    ) -> Outcome:
        limit = self._options.time_limit.total_seconds()
        await asyncio.wait({handling, keeping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if handling.done():
            return self._judge(item, handling)
        lost = keeping.done()
        await _unwind(handling)
        if lost:
            return Lost()
        return Failed(f"gave up after {limit:g} s: something it waits for does not answer")

    async def _keep(self, item: WorkItem, claimed_at: float) -> None:
        """Extend the lease, counting its end from before we asked; return when it is or may be lost."""
        loop = asyncio.get_running_loop()
        lease = self._queue.lease.total_seconds()
        end, pause = claimed_at + lease, lease / 3
        while True:
            await asyncio.sleep(max(0, min(pause, end - loop.time())))
            asked = loop.time()
            if asked >= end:
                return
            try:
                async with asyncio.timeout_at(end):
                    if not await self._queue.extend(item):
                        return
                end, pause = asked + lease, lease / 3
            except (psycopg.Error, TimeoutError):
                pause = lease / 30

    def _judge(self, item: WorkItem, handling: asyncio.Task[datetime | None]) -> Outcome:
        if handling.cancelled():
            return Failed("the pass was cancelled")
        error = handling.exception()
        if error is None:
            return Done(handling.result())
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        outcome = _expected(error)
        if outcome is None:
            described = _described(error)
            self._log.error("a handler failed unexpectedly", key=item.key, **described)
            return Failed(
                f"defect: {described['error']} at {described['frames'][-1]}; the log says how it came there"
            )
        return outcome

    async def _settle(self, item: WorkItem, outcome: Outcome) -> None:
        """Record how the pass ended; while the database is away, until the lease runs out by itself."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + self._queue.lease.total_seconds(), OUTAGE_PAUSE_FIRST
        while True:
            try:
                async with asyncio.timeout_at(end):
                    name = await self._record(item, outcome)
                break
            except (psycopg.Error, TimeoutError):
                if loop.time() + pause >= end:
                    name = "lost"
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 2, OUTAGE_PAUSE_CAP)
        self._metrics.outcomes.labels(self._kind, name).inc()
        self._log.info("pass ended", key=item.key, epoch=item.epoch, outcome=name, error=_error(outcome))

    async def _record(self, item: WorkItem, outcome: Outcome) -> str:
        match outcome:
            case Done(next_due):
                return "completed" if await self._queue.finish(item, next_due) else "lost"
            case Failed(error, retry_after):
                return "failed" if await self._queue.fail(item, error, retry_after) else "lost"
            case Parked(error):
                return "parked" if await self._queue.park(item, error) else "lost"
            case Lost():
                return "lost"

    async def _abandon(self, item: WorkItem, handling: asyncio.Task[datetime | None]) -> None:
        """Shutdown found the handler still running: another worker goes on with the item."""
        await _unwind(handling)
        try:
            async with asyncio.timeout(UNWIND):
                handed_back = await self._queue.hand_back(item)
        except (psycopg.Error, TimeoutError):
            handed_back = False
        self._metrics.outcomes.labels(self._kind, "handed_back" if handed_back else "lost").inc()


async def _unwind(handling: asyncio.Task[datetime | None]) -> None:
    """Cancel and wait; a handler that will not stop is left behind, without a lease to write under."""
    handling.cancel()
    await asyncio.wait({handling}, timeout=UNWIND)
    if handling.done() and not handling.cancelled():
        handling.exception()  # seen, so that asyncio does not complain that nobody looked


def _expected(error: BaseException) -> Outcome | None:
    match error:
        case LeaseLostError():
            return Lost()
        case PermanentError():
            return Parked(str(error))
        case TemporaryError():
            return Failed(str(error), error.retry_after)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return Failed("the database did not answer")
        case _:
            return None


class _Described(TypedDict):
    error: str
    frames: list[str]


def _described(error: BaseException) -> _Described:
    """What may be kept of a defect: its type and frames. Its text may hold anything, a secret too."""
    frames = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames]
    return {"error": type(error).__name__, "frames": places or ["an unknown place"]}


def _error(outcome: Outcome) -> str | None:
    return outcome.error if isinstance(outcome, Failed | Parked) else None
