import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import KINDS, KubernetesClient, NotFoundError
from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.ids import new_id
from provisioner.contract.queue import Kind, enqueue
from provisioner.contract.spec import SPEC as ADAPTER
from provisioner.contract.spec import Desired, InstanceSpec
from provisioner.deletion import Verdict, find_remains
from provisioner.instances import InstanceHandler
from provisioner.isolation import namespace
from provisioner.observed import Object, Observed, Ref
from provisioner.render import default_charts_folder
from provisioner.secrets import derive
from provisioner.watch import WatchCache
from provisioner.workqueue import Lease, LeaseLostError, WorkItem, WorkQueue
from tests.instance_specs import PLATFORM, ROOT, spec
from tests.integration.kubernetes.conftest import ControlPlane, Operator, Pool
from tests.integration.queue_tools import expire_lease, run_sql, until

pytestmark = pytest.mark.cluster

DEPLOYMENT = Ref("Deployment", "mindroom")
DEFAULT_DENY = Ref("NetworkPolicy", "default-deny")


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance under test, its handler called as a worker would."""

    spec: InstanceSpec
    pool: Pool
    cache: WatchCache
    handler: InstanceHandler
    queue: WorkQueue

    @property
    def key(self) -> str:
        return self.spec.instance_id

    async def claim(self) -> Lease:
        """Claim this very instance, whatever else the watch made due; its row may be locked by a nudge."""
        claimed: list[WorkItem] = []

        async def is_ours() -> bool:
            async with self.pool.connection() as conn:
                await enqueue(conn, Kind.INSTANCE, self.key)
                await conn.execute("UPDATE work_item SET due_at = NULL WHERE key <> %s", [self.key])
            items = await self.queue.claim(Kind.INSTANCE, 1000)
            claimed.extend(item for item in items if item.key == self.key)
            return bool(claimed)

        await until(is_ours)
        return Lease(self.queue, claimed[0])

    async def handle(self) -> datetime | None:
        """One pass; its lease is released whatever happens."""
        lease = await self.claim()
        try:
            return await self.handler.handle(lease.item, lease)
        finally:
            await self.queue.finish(lease.item)

    async def row(self) -> dict[str, Any]:
        async with self.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("SELECT *, xmin::text FROM instance WHERE id = %s", [self.key])
            found = await cursor.fetchone()
            assert found is not None
            return found

    async def condition(self, name: str) -> dict[str, Any]:
        conditions = (await self.row())["conditions"]
        return next(condition for condition in conditions if condition["type"] == name)

    async def write_spec(self, **changes: Any) -> None:  # noqa: ANN401 - passed on to a dataclass
        wanted = replace(self.spec, **changes)
        query = "UPDATE instance SET spec = %s::jsonb, generation = generation + 1 WHERE id = %s"
        await run_sql(self.pool, query, ADAPTER.dump_json(wanted).decode(), self.key)

    def observed(self) -> Observed:
        found = self.cache.observed(self.spec.namespace)
        assert found is not None, "the cache is not synced"
        return found

    async def seen(self, condition: Callable[[Observed], object]) -> None:
        """Wait until the cache shows what `condition` wants."""

        async def holds() -> bool:
            found = self.cache.observed(self.spec.namespace)
            return found is not None and bool(condition(found))

        await until(holds)

    async def handled_until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Pass after pass, as watch events would cause them."""

        async def holds() -> bool:
            await self.handle()
            return await condition()

        await until(holds)

    async def applied(self) -> None:
        async def exists() -> bool:
            return self.observed().get(DEPLOYMENT) is not None

        await self.handled_until(exists)

    async def pod(self) -> Object:
        await self.seen(lambda observed: list(observed.of("Pod")))
        return next(iter(self.observed().of("Pod")))

    async def brought_up(self, operator: Operator) -> None:
        await self.applied()
        await operator.pod_status(dict(await self.pod()), ready=True, state={"running": {}})
        await self.seen(_is_up)

        async def is_ready() -> bool:
            return bool((await self.row())["phase"] == "ready")

        await self.handled_until(is_ready)


def _is_up(observed: Observed) -> bool:
    found = observed.get(DEPLOYMENT)
    return found is not None and (found.get("status") or {}).get("readyReplicas") == 1


@pytest.fixture
async def instance(client: KubernetesClient, watch_cache: WatchCache, pool: Pool) -> Instance:
    wanted = spec(instance_id=new_id("i"), customer_id=new_id("c"))
    await run_sql(
        pool, "INSERT INTO customer (id, email, name) VALUES (%s, 'a@b.example', 'A')", wanted.customer_id
    )
    await run_sql(
        pool,
        "INSERT INTO subscription (id, customer_id, product, plan, interval, price_id, status)"
        " VALUES ('sub_1', %s, 'mindroom', 'starter', 'month', 'price_1', 'active')",
        wanted.customer_id,
    )
    await run_sql(
        pool,
        "INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec)"
        " VALUES (%s, %s, 'sub_1', 'mindroom', 'starter', 'acme', %s)",
        wanted.instance_id,
        wanted.customer_id,
        Jsonb(ADAPTER.dump_python(wanted, mode="json")),
    )
    handler = InstanceHandler(
        pool=pool,
        client=client,
        cache=watch_cache,
        charts=Charts(default_charts_folder()),
        platform=PLATFORM,
        root=ROOT,
    )
    return Instance(wanted, pool, watch_cache, handler, WorkQueue(pool, "test", timedelta(seconds=30)))


async def test_an_instance_becomes_ready_and_its_customer_is_told_once(
    instance: Instance, operator: Operator
) -> None:
    await instance.applied()
    row = await instance.row()
    assert (row["phase"], row["ready_at"]) == ("provisioning", None)
    assert (await instance.condition("Isolated"))["status"] is True
    assert (await instance.condition("Ready"))["status"] is False
    await instance.brought_up(operator)
    row = await instance.row()
    assert row["ready_at"] is not None
    assert row["observed_generation"] == row["generation"]
    # and again, after a fall and a rise
    pod = dict(await instance.pod())
    await operator.pod_status(pod, ready=False, state={"running": {}}, started=True)
    await instance.seen(lambda observed: not _is_up(observed))
    await instance.handle()
    assert (await instance.row())["phase"] == "degraded"
    assert (await instance.condition("WorkloadReady"))["reason"] == "ProbeFailing"
    await operator.pod_status(pod, ready=True, state={"running": {}})
    await instance.seen(_is_up)
    await instance.handle()
    assert (await instance.row())["phase"] == "ready"
    assert (await instance.row())["ready_at"] == row["ready_at"]
    async with instance.pool.connection() as conn:
        mails = await (await conn.execute("SELECT template, data FROM outbox")).fetchall()
        events = await (await conn.execute("SELECT reason FROM instance_event ORDER BY id")).fetchall()
    assert mails == [
        ("instance-ready", {"title": "MindRoom", "plan": "starter", "url": "http://acme.apps.localhost:8088"})
    ]
    assert [reason for (reason,) in events if reason in {"Provisioning", "Ready", "Degraded"}] == [
        "Provisioning",
        "Ready",
        "Degraded",
        "Ready",
    ]


async def test_invariant_4_the_pod_is_younger_than_everything_that_isolates_it(instance: Instance) -> None:
    await instance.applied()
    pod = await instance.pod()
    observed = instance.observed()
    isolation = [
        found
        for kind in ("LimitRange", "NetworkPolicy", "ServiceAccount", "Namespace")
        for found in observed.of(kind)
    ]
    assert len(isolation) == 7
    for found in isolation:
        assert int(found["metadata"]["resourceVersion"]) < int(pod["metadata"]["resourceVersion"])
    quota = next(iter(observed.of("ResourceQuota")))
    assert quota["status"]["used"]["pods"] == "1"
    assert pod["spec"]["automountServiceAccountToken"] is False


async def test_a_pass_over_a_settled_instance_writes_nothing_and_comes_back_late(
    instance: Instance, operator: Operator
) -> None:
    await instance.brought_up(operator)
    await instance.handle()
    before, seen = await instance.row(), instance.observed()
    due = await instance.handle()
    assert due is not None
    assert due > datetime.now(UTC) + timedelta(minutes=5)
    assert await instance.row() == before
    assert instance.observed() == seen


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/default-deny", DEFAULT_DENY),
        ("/apis/apps/v1/namespaces/{}/deployments/mindroom", DEPLOYMENT),
        ("/api/v1/namespaces/{}/resourcequotas/tier", Ref("ResourceQuota", "tier")),
    ],
)
async def test_what_somebody_deleted_comes_back(
    instance: Instance, operator: Operator, path: str, key: Ref
) -> None:
    await instance.applied()
    uid = (instance.observed().objects[key])["metadata"]["uid"]
    await operator.delete(path.format(instance.spec.namespace))
    await instance.seen(lambda observed: key not in observed.objects)

    async def is_back() -> bool:
        return key in instance.observed().objects

    await instance.handled_until(is_back)
    assert instance.observed().objects[key]["metadata"]["uid"] != uid


async def test_what_somebody_changed_is_changed_back(instance: Instance, operator: Operator) -> None:
    await instance.applied()
    space = instance.spec.namespace
    policy = f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies/default-deny"
    await operator.patch(policy, {"spec": {"policyTypes": ["Ingress"]}})
    await operator.patch(
        f"/api/v1/namespaces/{space}/secrets/instance-secrets",
        {"data": {"SESSION_KEY": base64.b64encode(b"stolen").decode()}},
    )
    await instance.seen(
        lambda found: (
            found.objects[DEFAULT_DENY]["spec"]["policyTypes"] == ["Ingress"]
            and "kubectl-edit" in str(found.objects[Ref("Secret", "instance-secrets")])
        )
    )
    await instance.handle()
    assert (await operator.get(policy))["spec"]["policyTypes"] == ["Ingress", "Egress"]
    secret = await operator.get(f"/api/v1/namespaces/{space}/secrets/instance-secrets")
    key = base64.b64decode(secret["data"]["SESSION_KEY"]).decode()
    assert key == derive(ROOT, instance.key, "SESSION_KEY")


async def test_invariant_5_an_api_server_that_is_away_turns_nothing(
    instance: Instance, operator: Operator, own_control_plane: ControlPlane
) -> None:
    await instance.brought_up(operator)
    before = await instance.row()

    async def is_unknown() -> bool:
        return instance.cache.observed(instance.spec.namespace) is None

    async with own_control_plane.without_api_server():
        await until(is_unknown)
        due = await instance.handle()
        assert due is not None
        assert due < datetime.now(UTC) + timedelta(seconds=5)
        assert await instance.row() == before
    await instance.seen(_is_up)
    await instance.handle()
    assert (await instance.row())["phase"] == "ready"


async def test_invariant_5_a_failing_call_turns_nothing_either(
    instance: Instance, own_control_plane: ControlPlane
) -> None:
    await instance.handle()
    before = await instance.row()
    await instance.write_spec(plan="professional")
    async with own_control_plane.without_api_server():
        # the cache may not have noticed yet: then the call itself fails
        with suppress(TemporaryError):
            await instance.handle()
        assert (await instance.row())["conditions"] == before["conditions"]
        assert (await instance.row())["phase"] == before["phase"]


async def test_invariant_9_a_lost_lease_records_nothing(instance: Instance) -> None:
    before = await instance.row()
    lease = await instance.claim()
    await expire_lease(instance.pool, instance.key)
    with pytest.raises(LeaseLostError):
        await instance.handler.handle(lease.item, lease)
    assert await instance.row() == before


async def test_a_failing_image_pull_is_told_in_words(instance: Instance, operator: Operator) -> None:
    await instance.applied()
    waiting = {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "berth.local/sample:1": ErrImagePull: not found',
    }
    pod = dict(await instance.pod())
    await operator.pod_status(pod, ready=False, state={"waiting": waiting})
    await instance.seen(lambda observed: "ErrImagePull" in str(list(observed.of("Pod"))))
    await instance.handle()
    condition = await instance.condition("WorkloadReady")
    assert condition["status"] is False
    assert condition["reason"] == "ImagePullFailed"
    assert condition["message"] == "the image berth.local/sample:1 cannot be pulled: not found"
    assert (await instance.row())["phase"] == "provisioning"


async def test_an_impossible_quota_is_told_in_words(instance: Instance, operator: Operator) -> None:
    await instance.handler.client.apply(namespace(instance.spec))
    quotas = f"/api/v1/namespaces/{instance.spec.namespace}/resourcequotas"
    await operator.post(
        quotas,
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {"pods": "0"}},
        },
    )

    async def is_counted() -> bool:
        return "used" in (await operator.get(f"{quotas}/none"))["status"]

    await until(is_counted)

    async def is_told() -> bool:
        return bool((await instance.condition("WorkloadReady"))["reason"] == "QuotaExceeded")

    await instance.handled_until(is_told)
    assert "exceeded quota" in (await instance.condition("WorkloadReady"))["message"]


async def test_a_quota_that_is_full_for_now_is_told_and_tried_again(
    instance: Instance, operator: Operator
) -> None:
    """As when a killed provisioner's claim is counted already, but not observed yet."""
    client, space = instance.handler.client, instance.spec.namespace
    await client.apply(namespace(instance.spec))
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"persistentvolumeclaims": "0"}}}
    await operator.post(quotas, {"apiVersion": "v1", "kind": "ResourceQuota", **quota})

    async def is_counted() -> bool:
        return "used" in (await operator.get(f"{quotas}/full"))["status"]

    await until(is_counted)

    async def is_told() -> bool:
        return "exceeded quota" in (await instance.condition("Applied"))["message"]

    await instance.handled_until(is_told)
    assert (await instance.condition("Applied"))["reason"] == "Refused"
    due = await instance.handle()
    assert due is not None
    assert due - datetime.now(UTC) < timedelta(minutes=1)

    found = await client.get(KINDS["ResourceQuota"], space, "full")
    await client.delete(KINDS["ResourceQuota"], space, "full", uid=found["metadata"]["uid"])

    async def is_applied() -> bool:
        await instance.handle()
        return instance.observed().get(DEPLOYMENT) is not None

    await until(is_applied)


async def test_a_refused_manifest_is_recorded_and_parks_the_instance(
    instance: Instance, operator: Operator
) -> None:
    await instance.handler.client.apply(namespace(instance.spec))
    space = instance.spec.namespace
    pod = {"containers": [{"name": "c", "image": "x"}]}
    await operator.post(
        f"/apis/apps/v1/namespaces/{space}/deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "mindroom"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
            },
        },
    )
    with pytest.raises(PermanentError, match="immutable"):
        await instance.applied()
    assert (await instance.condition("Applied"))["reason"] == "Refused"
    assert "immutable" in (await instance.condition("Ready"))["message"]


async def test_a_chart_that_refuses_its_values_is_recorded_too(instance: Instance) -> None:
    await instance.write_spec(host="no_host_name")
    with pytest.raises(PermanentError, match="/host"):
        await instance.handle()
    assert "/host" in (await instance.condition("Applied"))["message"]
    assert instance.observed().objects == {}


async def test_suspending_stops_the_app_and_keeps_everything_else(
    instance: Instance, operator: Operator
) -> None:
    await instance.brought_up(operator)
    kept = {key for key in instance.observed().objects if key.kind != "Pod"}
    await instance.write_spec(desired=Desired.SUSPENDED)

    async def is_suspended() -> bool:
        return bool((await instance.row())["phase"] == "suspended")

    await instance.handled_until(is_suspended)
    observed = instance.observed()
    assert kept <= observed.objects.keys()
    assert observed.objects[DEPLOYMENT]["spec"]["replicas"] == 0
    await instance.write_spec(desired=Desired.RUNNING)
    await instance.handle()
    assert (await instance.row())["phase"] == "provisioning"


async def _delete(instance: Instance, operator: Operator, *, backed_up: bool) -> None:
    await instance.brought_up(operator)
    if backed_up:
        await run_sql(instance.pool, "UPDATE instance SET final_backup_at = now()")
    await instance.write_spec(desired=Desired.DELETED)
    await instance.handle()


async def test_data_without_a_final_backup_is_kept(instance: Instance, operator: Operator) -> None:
    await _delete(instance, operator, backed_up=False)
    assert (await instance.condition("Deleted"))["reason"] == "NoFinalBackup"
    assert Ref("PersistentVolumeClaim", "mindroom-data") in instance.observed().objects
    assert instance.observed().objects[DEPLOYMENT]["spec"]["replicas"] == 0


async def test_deletion_removes_the_namespace_and_frees_the_name(
    instance: Instance, operator: Operator, client: KubernetesClient
) -> None:
    await _delete(instance, operator, backed_up=True)
    assert (await instance.row())["phase"] == "deleting"
    assert "mindroom-data" in (await instance.condition("Deleted"))["message"]

    async def is_gone() -> bool:
        return bool((await instance.row())["phase"] == "deleted")

    await instance.handled_until(is_gone)
    with pytest.raises(NotFoundError):
        await client.get(KINDS["Namespace"], None, instance.spec.namespace)
    row = await instance.row()
    assert row["deleted_at"] is not None
    query = "SELECT template FROM outbox WHERE dedupe_key = %s"
    async with instance.pool.connection() as conn:
        sent = await (await conn.execute(query, [f"deleted:{instance.key}"])).fetchall()
    assert sent == [("deleted",)]


async def test_paying_again_at_the_last_moment_stops_the_deletion(
    instance: Instance, operator: Operator, client: KubernetesClient
) -> None:
    await instance.brought_up(operator)
    await run_sql(instance.pool, "UPDATE instance SET final_backup_at = now()")
    await instance.write_spec(desired=Desired.DELETED)
    lease = await instance.claim()
    row = await instance.handler._load(instance.key)
    assert row is not None
    await instance.write_spec(desired=Desired.RUNNING)
    remains = await find_remains(client, instance.spec.namespace)
    await instance.handler._remove(lease, row, remains, Verdict.REMOVE)
    await instance.queue.finish(lease.item)
    assert (await instance.row())["phase"] == "ready"
    space = await client.get(KINDS["Namespace"], None, instance.spec.namespace)
    assert "deletionTimestamp" not in space["metadata"]


async def test_an_instance_nobody_knows_is_left_alone(instance: Instance) -> None:
    await run_sql(instance.pool, "DELETE FROM instance")
    assert await instance.handle() is None
    assert instance.observed().objects == {}
