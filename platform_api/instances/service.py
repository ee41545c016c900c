import re
from collections.abc import Callable
from dataclasses import dataclass

from platform_api import pagination, problems
from platform_api.database import Pool, customer_transaction
from platform_api.instances import queries
from platform_api.instances.queries import Instance
from platform_api.instances.schemas import (
    ConditionView,
    InstanceEventPage,
    InstanceEventView,
    InstancePage,
    InstanceView,
    SizeView,
)
from platform_api.pagination import Position
from platform_api.problems import Problem

_ID = re.compile(r"[a-z][a-z0-9]{3,39}")


@dataclass(frozen=True, slots=True)
class InstanceService:
    """What customers may know about their instances."""

    pool: Pool
    url_of: Callable[[str], str]

    async def page(self, customer_id: str, cursor: str | None, limit: int) -> InstancePage:
        """Return the customer's instances from `cursor` on.

        Raises:
            Problem: 422, a cursor that is not ours.
        """
        before = pagination.decode(cursor)
        async with customer_transaction(self.pool, customer_id) as conn:
            found = await queries.list_instances(conn, customer_id, before, limit + 1)
        shown, more = found[:limit], len(found) > limit
        last = pagination.encode(Position(shown[-1].created_at, shown[-1].id)) if more else None
        return InstancePage(data=[self._view(instance) for instance in shown], next_cursor=last)

    async def get(self, customer_id: str, instance_id: str) -> InstanceView:
        """Return one of the customer's instances.

        Raises:
            Problem: 404, also when it is another's.
        """
        _check_id(instance_id)
        async with customer_transaction(self.pool, customer_id) as conn:
            found = await queries.get_instance(conn, customer_id, instance_id)
        if found is None:
            raise _not_found()
        return self._view(found)

    async def events(self, customer_id: str, instance_id: str, after: int, limit: int) -> InstanceEventPage:
        """Return what happened to one of the customer's instances since the event numbered `after`.

        Raises:
            Problem: 404, also when it is another's.
        """
        _check_id(instance_id)
        async with customer_transaction(self.pool, customer_id) as conn:
            if await queries.get_instance(conn, customer_id, instance_id) is None:
                raise _not_found()
            found = await queries.list_events(conn, instance_id, after, limit + 1)
        shown = [
            InstanceEventView(id=event.id, at=event.at, reason=event.reason, message=event.message)
            for event in found[:limit]
        ]
        return InstanceEventPage(
            data=shown, last=shown[-1].id if shown else after, has_more=len(found) > limit
        )

    def _view(self, instance: Instance) -> InstanceView:
        return InstanceView(
            id=instance.id,
            product=instance.product,
            plan=instance.plan,
            slug=instance.slug,
            url=self.url_of(instance.slug),
            phase=instance.phase,
            phase_since=instance.phase_since,
            conditions=[ConditionView.model_validate(condition) for condition in instance.conditions],
            limits=dict(instance.limits or {}),
            size=None if instance.size is None else SizeView.model_validate(instance.size),
            created_at=instance.created_at,
            paid_at=instance.paid_at,
            ready_at=instance.ready_at,
        )


def _check_id(instance_id: str) -> None:
    if not _ID.fullmatch(instance_id):
        raise _not_found()


def _not_found() -> Problem:
    return Problem(problems.NOT_FOUND, "GET /v1/instances lists the instances that are yours.")
