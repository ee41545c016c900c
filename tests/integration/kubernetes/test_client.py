import asyncio
from pathlib import Path

import pytest

from provisioner.clients.kubernetes import (
    KINDS,
    ConflictError,
    GoneError,
    KubernetesClient,
    NotFoundError,
    RefusedError,
)
from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.ids import new_id
from provisioner.isolation import isolation, namespace
from provisioner.labels import INSTANCE
from provisioner.secrets import secret_manifest
from tests.instance_specs import PLATFORM, ROOT, renderer, spec
from tests.integration.kubernetes.conftest import ControlPlane, Operator
from tests.integration.queue_tools import until

pytestmark = pytest.mark.cluster


def config_map(space: str, name: str, **data: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": space, "labels": {INSTANCE: space.removeprefix("berth-")}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def made_namespace(client: KubernetesClient) -> str:
    wanted = spec(instance_id=new_id("i"))
    await client.apply(namespace(wanted))
    return wanted.namespace


async def test_applying_the_same_again_changes_nothing(client: KubernetesClient) -> None:
    wanted = spec(instance_id=new_id("i"))
    target = await renderer().target(wanted)
    for manifest in target.manifests:
        first = await client.apply(manifest)
        again = await client.apply(manifest)
        # A quota's or claim's controller may have written its status in between; the spec's generation stays.
        if manifest["kind"] not in {"ResourceQuota", "PersistentVolumeClaim", "Deployment"}:
            assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert again["metadata"].get("generation") == first["metadata"].get("generation")
        assert again["kind"] == manifest["kind"]


async def test_apply_takes_back_what_others_changed(client: KubernetesClient, operator: Operator) -> None:
    space = await made_namespace(client)
    await client.apply(config_map(space, "c", a="1"))
    await operator.patch(f"/api/v1/namespaces/{space}/configmaps/c", {"data": {"a": "2"}})
    applied = await client.apply(config_map(space, "c", a="1"))
    assert applied["data"] == {"a": "1"}


async def test_a_list_is_whole_over_several_pages(
    client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = await made_namespace(client)
    await asyncio.gather(*(client.apply(config_map(space, f"c{number}")) for number in range(7)))
    monkeypatch.setattr("provisioner.clients.kubernetes._PAGE", 3)
    listing = await client.list(
        KINDS["ConfigMap"], selector=f"{INSTANCE}={space.removeprefix('berth-')}", namespace=space
    )
    assert sorted(item["metadata"]["name"] for item in listing.items) == [f"c{n}" for n in range(7)]
    assert {item["kind"] for item in listing.items} == {"ConfigMap"}


async def test_a_watch_tells_of_changes_after_its_version(client: KubernetesClient) -> None:
    space = await made_namespace(client)
    listing = await client.list(KINDS["ConfigMap"])
    await client.apply(config_map(space, "c", a="1"))
    await client.apply(config_map(space, "c", a="2"))
    async with client.watch(KINDS["ConfigMap"], listing.resource_version, selector=INSTANCE) as events:
        seen = [await anext(events), await anext(events)]
    assert [(event.type, event.object["data"]["a"]) for event in seen] == [("ADDED", "1"), ("MODIFIED", "2")]


async def test_a_watch_from_a_forgotten_version_says_so(
    own_control_plane: ControlPlane, client: KubernetesClient
) -> None:
    # A started API server remembers changes from its start on.
    async with own_control_plane.without_api_server():
        pass
    with pytest.raises(GoneError):
        async with client.watch(KINDS["ConfigMap"], "1") as events:
            await anext(events)


async def test_delete_spares_an_object_that_took_the_name_over(client: KubernetesClient) -> None:
    space = await made_namespace(client)
    applied = await client.apply(config_map(space, "c"))
    with pytest.raises(ConflictError):
        await client.delete(KINDS["ConfigMap"], space, "c", uid="another-uid")
    await client.delete(KINDS["ConfigMap"], space, "c", uid=applied["metadata"]["uid"])

    async def is_gone() -> bool:
        try:
            await client.get(KINDS["ConfigMap"], space, "c")
        except NotFoundError:
            return True
        return False

    await until(is_gone)
    await client.delete(KINDS["ConfigMap"], space, "c", uid=applied["metadata"]["uid"])


async def test_a_refusal_is_for_good_and_carries_the_servers_sentence(client: KubernetesClient) -> None:
    space = await made_namespace(client)
    bad = config_map(space, "c") | {"data": {"not a key": "x"}}
    with pytest.raises(RefusedError, match=r"data\[not a key\]") as refused:
        await client.apply(bad)
    assert refused.value.reason == "Invalid"


async def test_missing_rights_are_a_refusal(
    own_control_plane: ControlPlane, client: KubernetesClient
) -> None:
    del own_control_plane
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    with pytest.raises(RefusedError, match="forbidden") as refused:
        await client.apply(pod)
    assert refused.value.reason == "Forbidden"


async def test_a_namespace_that_is_ending_is_a_matter_of_time(
    client: KubernetesClient, operator: Operator
) -> None:
    space = await made_namespace(client)
    held = {"metadata": {"finalizers": ["berth.dev/test"]}}
    await client.apply(config_map(space, "holds"))
    await operator.patch(f"/api/v1/namespaces/{space}/configmaps/holds", held)
    await operator.delete(f"/api/v1/namespaces/{space}")
    with pytest.raises(TemporaryError, match="terminated"):
        await client.apply(config_map(space, "c"))
    await operator.patch(f"/api/v1/namespaces/{space}/configmaps/holds", {"metadata": {"finalizers": None}})


async def test_invariant_6_secrets_are_seen_as_metadata_only_and_refusals_do_not_quote_them(
    client: KubernetesClient,
) -> None:
    wanted = spec(instance_id=new_id("i"))
    await client.apply(namespace(wanted))
    manifest = secret_manifest(ROOT, wanted)
    assert manifest is not None
    answers = [await client.apply(manifest), *(await client.list(KINDS["Secret"])).items]
    assert [answer for answer in answers if "data" in answer] == []
    assert answers[0]["metadata"]["name"] == "instance-secrets"
    bad = manifest | {"data": {"SESSION_KEY": "this-is-secret-but-no-base64"}}
    with pytest.raises(TemporaryError, match="withheld") as failed:
        await client.apply(bad)
    assert "this-is-secret" not in str(failed.value)


async def test_an_api_server_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        """{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
            "users": [{"name": "c", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}"""
    )
    async with KubernetesClient.connect(kubeconfig) as nowhere:
        with pytest.raises(TemporaryError, match="did not answer"):
            await nowhere.list(KINDS["Pod"])


async def test_a_configuration_that_cannot_be_read_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="BERTH_KUBECONFIG"):
        async with KubernetesClient.connect(tmp_path / "missing"):
            pass


async def test_isolation_is_accepted_and_a_privileged_pod_is_not(
    client: KubernetesClient, operator: Operator
) -> None:
    wanted = spec(instance_id=new_id("i"))
    for manifest in (namespace(wanted), *isolation(wanted, PLATFORM)):
        await client.apply(manifest)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "serviceAccountName": "instance",
            "containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}],
        },
    }
    response = await operator.client.post(f"/api/v1/namespaces/{wanted.namespace}/pods", json=pod)
    assert response.status_code == 403
    assert 'violates PodSecurity "restricted:latest"' in response.json()["message"]
