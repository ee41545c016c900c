"""The handler of instance items: make one instance match its spec, and say how it is."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool
from pydantic import ValidationError

from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import KINDS, KubernetesClient, QuotaRefusedError
from provisioner.contract.errors import PermanentError
from provisioner.contract.spec import CONDITIONS, SPEC, Desired, InstanceSpec, Phase
from provisioner.deletion import Remains, Verdict, find_remains, judge
from provisioner.emails import Template, write_email
from provisioner.executor import Executor
from provisioner.plan import Target, plan
from provisioner.render import Renderer
from provisioner.secrets import RootKey
from provisioner.status import Pass, Status, changed, deleted, deleting, refused, status, turned
from provisioner.values import PlatformSettings
from provisioner.watch import WatchCache
from provisioner.workqueue import Lease, WorkItem

_UNKNOWN: Final = timedelta(seconds=1)
_FALLBACK: Final = timedelta(seconds=30)
_RESYNC: Final = timedelta(minutes=10)
# Namespace and isolation, then what is inside, then one more look; further ones wait for the cluster.
_ROUNDS: Final = 4

log = structlog.get_logger(__name__)

_SELECT: Final = """
    SELECT id, customer_id, spec, generation, observed_generation, phase, conditions, ready_at,
           final_backup_at
      FROM instance WHERE id = %s
"""

_RECORD: Final = """
    UPDATE instance
       SET phase = %(phase)s, conditions = %(conditions)s::jsonb, observed_generation = %(observed)s,
           phase_since = CASE WHEN phase = %(phase)s THEN phase_since ELSE now() END,
           ready_at = CASE WHEN %(phase)s = 'ready' THEN coalesce(ready_at, now()) ELSE ready_at END,
           deleted_at = CASE WHEN %(phase)s = 'deleted' THEN now() END
     WHERE id = %(id)s
"""

# A spec that was written meanwhile may say that it is paid for again.
_LOCK: Final = "SELECT id FROM instance WHERE id = %s AND generation = %s FOR NO KEY UPDATE"

_EVENT: Final = "INSERT INTO instance_event (instance_id, reason, message) VALUES (%s, %s, %s)"


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    customer_id: str
    spec: dict[str, Any]
    generation: int
    observed_generation: int
    phase: str
    conditions: list[Any]
    ready_at: datetime | None
    final_backup_at: datetime | None

    @property
    def status(self) -> Status:
        return Status(Phase(self.phase), tuple(CONDITIONS.validate_python(self.conditions)))


@dataclass(slots=True, kw_only=True)
class InstanceHandler:
    """Handles Kind.INSTANCE.

    Attributes:
        pool: the database, for reading; writes go through the lease.
        client: the cluster.
        cache: what is in the cluster; someone must be running it.
        charts: the charts instances are made from.
        platform: what all instances share.
        root: the key instance secrets come from.
    """

    pool: AsyncConnectionPool[AsyncConnection[Any]]
    client: KubernetesClient
    cache: WatchCache
    charts: Charts
    platform: PlatformSettings
    root: RootKey
    _executor: Executor = field(init=False, repr=False)
    _renderer: Renderer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._executor = Executor(self.client, self.cache.learn)
        self._renderer = Renderer(self.charts, self.platform, self.root)

    async def handle(self, item: WorkItem, lease: Lease) -> datetime | None:
        """Bring the instance `item.key` closer to its spec, record how it is; returns when to look again.

        Raises:
            PermanentError: its spec, chart or a manifest was refused; recorded as a condition too.
            TemporaryError: the cluster failed a call; what was done so far stays.
        """
        row = await self._load(item.key)
        if row is None or row.phase == Phase.DELETED:
            return None
        spec = _spec(row)
        if spec.desired is Desired.DELETED:
            remains = await find_remains(self.client, spec.namespace)
            verdict = judge(remains, backed_up=row.final_backup_at is not None)
            if verdict is not Verdict.KEEP:
                return await self._remove(lease, row, remains, verdict)
        return await self._keep(lease, row, spec)

    async def _keep(self, lease: Lease, row: _Row, spec: InstanceSpec) -> datetime:
        try:
            target = await self._renderer.target(spec)
            found = await self._reconcile(spec, target)
        except QuotaRefusedError as error:
            # Not a failure with backoff: what fills it is about to be observed, or was counted for a creation
            # that was cut off half-way, which Kubernetes' next full count (5 minutes) corrects.
            now = datetime.now(UTC)
            await self._record(lease, row, refused(row.status, str(error), now))
            return now + _FALLBACK
        except PermanentError as error:
            await self._record(lease, row, refused(row.status, str(error), datetime.now(UTC)))
            raise
        now = datetime.now(UTC)
        if found is None:
            return now + _UNKNOWN
        after = status(found, row.status, now)
        await self._record(lease, row, after, settled=found.plan.settled)
        return now + _look_again(spec, after)

    async def _remove(self, lease: Lease, row: _Row, remains: Remains, verdict: Verdict) -> datetime | None:
        """Delete the namespace, or record that it is gone; the watch rings when it is."""
        now = datetime.now(UTC)
        if verdict is Verdict.GONE:
            await self._record(lease, row, deleted(row.status, now))
            return None
        if verdict is Verdict.REMOVE and remains.uid is not None:
            if not await self._begin_removal(lease, row, remains):
                return now
            namespace = _spec(row).namespace
            log.info("deleting instance", instance=row.id, claims=remains.claims)
            await self.client.delete(KINDS["Namespace"], None, namespace, uid=remains.uid)
        return now + _FALLBACK

    async def _begin_removal(self, lease: Lease, row: _Row, remains: Remains) -> bool:
        """Record that from here on nothing brings the instance back; False: it was paid for meanwhile."""
        if row.phase == Phase.DELETING:
            return True
        claims = "".join(f" with volume {claim}" for claim in remains.claims)
        after = deleting(row.status, f"namespace {_spec(row).namespace}{claims}", datetime.now(UTC))
        async with lease.transaction() as conn:
            if not await (await conn.execute(_LOCK, [row.id, row.generation])).fetchone():
                return False
            await self._write(conn, row, after, row.observed_generation)
        return True

    async def _load(self, key: str) -> _Row | None:
        async with self.pool.connection() as conn, conn.cursor(row_factory=class_row(_Row)) as cursor:
            await cursor.execute(_SELECT, [key])
            return await cursor.fetchone()

    async def _reconcile(self, spec: InstanceSpec, target: Target) -> Pass | None:
        """Plan and act until nothing more can run now; None while the cluster's state is unknown."""
        for _ in range(_ROUNDS):
            found = self._look(spec, target)
            if found is None or not found.plan.steps:
                return found
            steps = found.plan.steps
            log.info("changing instance", instance=spec.instance_id, steps=[*map(str, steps)])
            await self._executor.run(steps, spec.namespace)
        return self._look(spec, target)

    def _look(self, spec: InstanceSpec, target: Target) -> Pass | None:
        observed = self.cache.observed(spec.namespace)
        return None if observed is None else Pass(spec, target, plan(target, observed), observed)

    async def _record(self, lease: Lease, row: _Row, after: Status, *, settled: bool = False) -> None:
        before = row.status
        observed = row.generation if settled else row.observed_generation
        if not changed(before, after) and observed == row.observed_generation:
            return
        async with lease.transaction() as conn:
            await self._write(conn, row, after, observed)

    async def _write(self, conn: AsyncConnection[Any], row: _Row, after: Status, observed: int) -> None:
        conditions = CONDITIONS.dump_json(list(after.conditions)).decode()
        arguments = {"id": row.id, "phase": after.phase, "conditions": conditions, "observed": observed}
        await conn.execute(_RECORD, arguments)
        for reason, message in turned(row.status, after):
            await conn.execute(_EVENT, [row.id, reason, message])
        spec = _spec(row)
        told = {"title": spec.title, "plan": spec.plan_for_people}
        if after.phase is Phase.READY and row.ready_at is None:
            data = told | {"url": self.platform.url(spec)}
            await write_email(
                conn, f"instance-ready:{row.id}", row.customer_id, Template.INSTANCE_READY, data
            )
        if after.phase is Phase.DELETED:
            data = told | {"deleted_on": f"{datetime.now(UTC):%-d %B %Y}"}
            await write_email(conn, f"deleted:{row.id}", row.customer_id, Template.DELETED, data)


def _spec(row: _Row) -> InstanceSpec:
    try:
        return SPEC.validate_python(row.spec)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise PermanentError(
            f"the spec of instance '{row.id}' cannot be read ({where}: {problem['msg']}):"
            " let its subscription write it again with `berth queue retry`"
        ) from error


def _look_again(spec: InstanceSpec, after: Status) -> timedelta:
    waiting = spec.desired is Desired.RUNNING and after.phase is not Phase.READY
    # jitter, so that a fleet started together does not stay in step
    return _FALLBACK if waiting else _RESYNC * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
