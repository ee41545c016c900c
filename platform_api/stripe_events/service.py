from dataclasses import dataclass

import psycopg

from platform_api import problems
from platform_api.doorbell import Doorbell
from platform_api.metrics import Metrics
from platform_api.problems import Problem
from platform_api.stripe_events.group_commit import GroupCommit
from platform_api.stripe_events.signature import verify
from provisioner.contract.inbox import Event, NotAnEventError, parse_event


@dataclass(frozen=True, slots=True)
class EventIntake:
    """Takes Stripe's events in: verified, stored, put on the queue, and only then acknowledged."""

    secrets: tuple[str, ...]
    inbox: GroupCommit
    doorbell: Doorbell
    metrics: Metrics

    async def take(self, body: bytes, signature: str | None) -> None:
        """Store the event in `body`; when this returns, it is committed.

        Raises:
            Problem: 400, it is not an event signed by Stripe; nothing was stored. 503, too many at once.
            psycopg.OperationalError: it could not be stored; Stripe has to send it again.
        """
        try:
            event = _read(body, signature, self.secrets)
        except Problem:
            self.metrics.stripe_events.labels("", "refused").inc()
            raise
        try:
            is_new = await self.inbox.store(event)
        except (psycopg.Error, Problem, TimeoutError):
            self.metrics.stripe_events.labels(event.type, "failed").inc()
            raise
        self.metrics.stripe_events.labels(event.type, "stored" if is_new else "duplicate").inc()
        if event.subject is not None:
            self.doorbell.ring(event.subject[0])


def _read(body: bytes, signature: str | None, secrets: tuple[str, ...]) -> Event:
    try:
        return parse_event(verify(body, signature, secrets))
    except NotAnEventError as error:
        raise Problem(problems.BAD_EVENT, str(error)) from None
