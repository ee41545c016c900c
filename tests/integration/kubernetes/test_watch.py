import asyncio

import pytest

from provisioner.clients.kubernetes import KINDS, KubernetesClient, WatchEvent
from provisioner.contract.ids import new_id
from provisioner.contract.spec import InstanceSpec
from provisioner.isolation import namespace
from provisioner.labels import labels
from provisioner.observed import Ref
from provisioner.watch import WatchCache
from tests.instance_specs import spec
from tests.integration.kubernetes.conftest import ControlPlane, Operator, Pool, Wire, following
from tests.integration.queue_tools import row, until

pytestmark = pytest.mark.cluster


def config_map(owner: InstanceSpec, name: str, value: str = "") -> dict[str, object]:
    metadata = {"name": name, "namespace": owner.namespace, "labels": labels(owner)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


async def made_instance(client: KubernetesClient) -> InstanceSpec:
    owner = spec(instance_id=new_id("i"))
    await client.apply(namespace(owner))
    return owner


def value_of(cache: WatchCache, owner: InstanceSpec, name: str) -> str | None:
    """What the cache says; "unknown" while it says it does not know."""
    observed = cache.observed(owner.namespace)
    if observed is None:
        return "unknown"
    found = observed.get(Ref("ConfigMap", name))
    return None if found is None else found["data"]["value"]


async def test_the_cache_follows_creation_change_and_deletion(
    client: KubernetesClient, watch_cache: WatchCache, operator: Operator
) -> None:
    owner = await made_instance(client)
    path = f"/api/v1/namespaces/{owner.namespace}/configmaps/c"
    await client.apply(config_map(owner, "c", "1"))
    await until(lambda: _is(watch_cache, owner, "1"))
    await operator.patch(path, {"data": {"value": "2"}})
    await until(lambda: _is(watch_cache, owner, "2"))
    await operator.delete(path)
    await until(lambda: _is(watch_cache, owner, None))


async def test_changes_nudge_their_instance_and_several_at_once_nudge_it_once(
    client: KubernetesClient, watch_cache: WatchCache, pool: Pool
) -> None:
    owner = await made_instance(client)
    await asyncio.gather(*(client.apply(config_map(owner, f"c{number}")) for number in range(20)))

    async def all_seen() -> bool:
        observed = watch_cache.observed(owner.namespace)
        return observed is not None and len(list(observed.of("ConfigMap"))) == 20

    await until(all_seen)
    await until(lambda: _nudged(pool, owner))
    assert (await row(pool, owner.instance_id)).seq <= 10


async def test_what_was_learnt_from_an_answer_nudges_nobody(client: KubernetesClient, pool: Pool) -> None:
    cache = WatchCache(client, pool)
    owner = spec(instance_id=new_id("i"))
    answer = await client.apply(namespace(owner))
    cache.learn(answer)
    cache._take(KINDS["Namespace"], WatchEvent("ADDED", answer))
    assert cache._changed == set()
    changed = namespace(owner)
    changed["metadata"]["labels"]["extra"] = "yes"
    cache._take(KINDS["Namespace"], WatchEvent("MODIFIED", await client.apply(changed)))
    assert cache._changed == {owner.instance_id}
    cache._take(KINDS["Namespace"], WatchEvent("MODIFIED", answer))
    known = cache._namespaces[owner.namespace][Ref("Namespace", owner.namespace)]
    assert known["metadata"]["labels"]["extra"] == "yes", "an older event must not undo a newer one"


async def test_a_lost_connection_makes_everything_unknown_and_then_catches_up(
    wire: Wire, pool: Pool, client: KubernetesClient, operator: Operator
) -> None:
    async with KubernetesClient.connect(wire.kubeconfig) as wired, following(wired, pool) as cache:
        owner = await made_instance(client)
        await client.apply(config_map(owner, "stays", "1"))
        await client.apply(config_map(owner, "goes", "1"))
        await until(lambda: _is(cache, owner, "1", "goes"))
        await wire.cut()
        await until(lambda: _is(cache, owner, "unknown", "stays"))
        await operator.patch(
            f"/api/v1/namespaces/{owner.namespace}/configmaps/stays", {"data": {"value": "2"}}
        )
        await operator.delete(f"/api/v1/namespaces/{owner.namespace}/configmaps/goes")
        await wire.mend()
        await until(lambda: _is(cache, owner, "2", "stays"))
        await until(lambda: _is(cache, owner, None, "goes"))


async def test_a_version_too_old_to_go_on_from_is_answered_by_listing_again(
    wire: Wire, pool: Pool, client: KubernetesClient, operator: Operator, own_control_plane: ControlPlane
) -> None:
    async with KubernetesClient.connect(wire.kubeconfig) as wired, following(wired, pool) as cache:
        owner = await made_instance(client)
        await client.apply(config_map(owner, "goes", "1"))
        await until(lambda: _is(cache, owner, "1", "goes"))
        await wire.cut()
        await operator.delete(f"/api/v1/namespaces/{owner.namespace}/configmaps/goes")
        # A restarted API server remembers no change from before its start: going on is answered with 410.
        async with own_control_plane.without_api_server():
            pass
        await wire.mend()
        await until(lambda: _is(cache, owner, None, "goes"))
        await client.apply(config_map(owner, "new", "1"))
        await until(lambda: _is(cache, owner, "1", "new"))


async def _is(cache: WatchCache, owner: InstanceSpec, value: str | None, name: str = "c") -> bool:
    return value_of(cache, owner, name) == value


async def _nudged(pool: Pool, owner: InstanceSpec) -> bool:
    async with pool.connection() as conn:
        found = await conn.execute("SELECT FROM work_item WHERE key = %s", [owner.instance_id])
        return found.rowcount == 1
