import asyncio
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.contract.spec import Desired, Size
from provisioner.labels import labels
from provisioner.observed import Observed, Ref, ref
from provisioner.plan import Apply, Delete, Stage, Target, contains, difference, plan
from tests.instance_specs import SPEC, default_target, renderer, spec
from tests.unit.cluster_model import ClusterModel

TARGET = default_target()
GUARDED = {"PersistentVolumeClaim", "Deployment", "StatefulSet", "Pod"}
HOLDS_DATA = {"PersistentVolumeClaim", "Secret", "Namespace"}


def settled_model(target: Target = TARGET) -> ClusterModel:
    model = ClusterModel()
    settle(model, target)
    return model


def settle(model: ClusterModel, target: Target) -> int:
    """Run plans as the handler does; returns how many passes it took."""
    for passes in range(10):
        planned = plan(target, model.observed)
        if planned.settled:
            return passes
        model.run(planned.steps)
        model.count_quotas()
    raise AssertionError(f"never settles: {planned}")


def extra(kind: str, name: str, **metadata: object) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"name": name, "uid": f"extra-{kind}-{name}", "labels": labels(SPEC), **metadata},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
    }


@st.composite
def models(draw: st.DrawFn) -> ClusterModel:
    """A settled cluster after accidents: objects gone, changed, unlabelled, unannotated, strangers added."""
    model = settled_model()
    for key in sorted(model.objects):
        accident = draw(st.sampled_from(["none", "gone", "hash", "label", "spec", "status", "secret"]))
        found = model.objects[key]
        if accident == "gone":
            del model.objects[key]
        elif accident == "hash":
            del found["metadata"]["annotations"]
        elif accident == "label":
            found["metadata"]["labels"]["berth.dev/plan"] = "other"
        elif accident == "spec" and "spec" in found and key.kind != "PersistentVolumeClaim":
            found["spec"] = {}
        elif accident == "status":
            found.pop("status", None)
        elif accident == "secret" and key.kind == "Secret":
            found["metadata"]["managedFields"][0]["manager"] = "somebody"
    for kind in draw(
        st.lists(st.sampled_from(["PersistentVolumeClaim", "Secret", "ConfigMap", "Deployment", "Service"]))
    ):
        model.objects[Ref(kind, "stranger")] = extra(kind, "stranger")
    return model


@given(models())
def test_the_same_input_gives_the_same_plan_and_changes_nothing(model: ClusterModel) -> None:
    before = copy.deepcopy(model.objects)
    assert plan(TARGET, model.observed) == plan(TARGET, model.observed)
    plan(TARGET, Observed(model.objects))
    assert model.objects == before


@given(models())
def test_running_plans_settles_and_a_settled_cluster_needs_nothing(model: ClusterModel) -> None:
    # Fields that others cleared come back by merging, so a handful of passes is enough for any accident.
    assert settle(model, TARGET) <= 4
    assert plan(TARGET, model.observed).steps == ()
    assert all(difference(manifest, model.observed) is None for manifest in TARGET.manifests)


@given(models())
def test_invariant_4_nothing_that_holds_pods_or_data_is_planned_before_isolation_is_observed(
    model: ClusterModel,
) -> None:
    planned = plan(TARGET, model.observed)
    whole = all(
        contains(model.objects.get(ref(item), {}), item) for item in (TARGET.namespace, *TARGET.isolation)
    )
    quota = model.objects.get(Ref("ResourceQuota", "tier"), {})
    if not whole or "status" not in quota:
        assert not [
            step for step in planned.steps if isinstance(step, Apply) and step.manifest["kind"] in GUARDED
        ]
        assert planned.wait is not None


@pytest.mark.parametrize("missing", [ref(item) for item in (TARGET.namespace, *TARGET.isolation)], ids=str)
def test_invariant_4_each_missing_piece_of_isolation_holds_the_workload_back(missing: Ref) -> None:
    model = settled_model()
    del model.objects[missing]
    del model.objects[Ref("Deployment", "mindroom")]
    planned = plan(TARGET, model.observed)
    assert [step.manifest["kind"] for step in planned.steps if isinstance(step, Apply)] == [missing.kind]
    assert planned.wait is not None
    assert planned.wait.stage is Stage.ISOLATION


@pytest.mark.parametrize("part", ["hard", "used"])
def test_invariant_4_a_quota_that_is_not_counted_yet_holds_the_workload_back(part: str) -> None:
    model = settled_model()
    del model.objects[Ref("Deployment", "mindroom")]
    del model.objects[Ref("ResourceQuota", "tier")]["status"][part]["pods"]
    planned = plan(TARGET, model.observed)
    assert planned.steps == ()
    assert planned.wait is not None
    assert planned.wait.reason == "QuotaPending"


@given(models())
def test_invariant_7_pruning_never_touches_what_holds_data(model: ClusterModel) -> None:
    deleted = [step.ref.kind for step in plan(TARGET, model.observed).steps if isinstance(step, Delete)]
    assert not HOLDS_DATA & set(deleted)


def test_what_is_no_longer_rendered_is_pruned_but_claims_secrets_and_owned_objects_stay() -> None:
    model = settled_model()
    for kind in ("PersistentVolumeClaim", "Secret", "ConfigMap", "Service", "Ingress", "NetworkPolicy"):
        model.objects[Ref(kind, "old")] = extra(kind, "old")
    model.objects[Ref("Service", "owned")] = extra("Service", "owned", ownerReferences=[{"kind": "X"}])
    model.objects[Ref("Service", "going")] = extra("Service", "going", deletionTimestamp="2026-01-01")
    steps = plan(TARGET, model.observed).steps
    assert {str(step.ref) for step in steps if isinstance(step, Delete)} == {
        "ConfigMap old",
        "Service old",
        "Ingress old",
        "NetworkPolicy old",
    }
    assert {step.uid for step in steps if isinstance(step, Delete)} >= {"extra-Service-old"}


def test_a_former_workload_is_gone_before_the_new_one_may_share_its_volume() -> None:
    model = settled_model()
    del model.objects[Ref("Deployment", "mindroom")]
    model.objects[Ref("StatefulSet", "mindroom")] = extra("StatefulSet", "mindroom")
    first = plan(TARGET, model.observed)
    assert [str(step) for step in first.steps] == [
        "delete StatefulSet mindroom (no longer part of the instance)"
    ]
    model.objects[Ref("StatefulSet", "mindroom")]["metadata"]["deletionTimestamp"] = "2026-01-01"
    second = plan(TARGET, model.observed)
    assert second.steps == ()
    assert second.wait is not None
    assert second.wait.reason == "Retiring"
    del model.objects[Ref("StatefulSet", "mindroom")]
    assert [str(step) for step in plan(TARGET, model.observed).steps] == [
        "apply Deployment mindroom (missing)"
    ]


def test_a_namespace_that_is_being_deleted_is_waited_for() -> None:
    model = settled_model()
    model.objects[ref(TARGET.namespace)]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    planned = plan(TARGET, model.observed)
    assert planned.steps == ()
    assert planned.wait is not None
    assert planned.wait.reason == "NamespaceTerminating"


def test_steps_come_in_the_order_of_their_stages() -> None:
    model = ClusterModel()
    seen = []
    for _ in range(3):
        steps = plan(TARGET, model.observed).steps
        seen += [step.stage for step in steps]
        model.run(steps)
        model.count_quotas()
    assert seen == sorted(seen)
    assert set(seen) == {
        Stage.NAMESPACE,
        Stage.ISOLATION,
        Stage.SECRETS,
        Stage.RESOURCES,
        Stage.WORKLOAD,
    }


def test_invariant_12_a_smaller_plan_keeps_the_claim_as_large_as_it_is() -> None:
    small = asyncio.run(renderer().target(spec(size=Size(50, 500, 256 << 20, 1 << 29), plan="mini")))
    model = settled_model()
    settle(model, small)
    claim = model.objects[Ref("PersistentVolumeClaim", "mindroom-data")]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert claim["metadata"]["labels"]["berth.dev/plan"] == "mini"
    large = asyncio.run(renderer().target(spec(size=Size(50, 500, 256 << 20, 2 << 30))))
    settle(model, large)
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"


def test_suspending_changes_only_the_number_of_pods() -> None:
    suspended = asyncio.run(renderer().target(replace(SPEC, desired=Desired.SUSPENDED)))
    model = settled_model()
    steps = plan(suspended, model.observed).steps
    assert [str(step) for step in steps] == ["apply Deployment mindroom (changed)"]
    model.run(steps)
    assert model.objects[Ref("Deployment", "mindroom")]["spec"]["replicas"] == 0


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (Ref("Deployment", "mindroom"), lambda o: o["spec"].update(replicas=3)),
        (
            Ref("Deployment", "mindroom"),
            lambda o: o["spec"]["template"]["spec"]["containers"][0].update(image="evil"),
        ),
        (
            Ref("Deployment", "mindroom"),
            lambda o: o["spec"]["template"]["spec"].pop("automountServiceAccountToken"),
        ),
        (Ref("NetworkPolicy", "default-deny"), lambda o: o["spec"].update(policyTypes=["Ingress"])),
        (Ref("NetworkPolicy", "allow-ingress"), lambda o: o["spec"]["ingress"].append({})),
        (Ref("ResourceQuota", "tier"), lambda o: o["spec"]["hard"].update(pods="100")),
        (Ref("Namespace", SPEC.namespace), lambda o: o["metadata"]["labels"].pop("berth.dev/plan")),
        (
            Ref("Secret", "instance-secrets"),
            lambda o: o["metadata"].update(
                managedFields=[
                    {"manager": "berth", "fieldsV1": {"f:metadata": {}}},
                    {"manager": "kubectl-edit", "fieldsV1": {"f:data": {"f:SESSION_KEY": {}}}},
                ]
            ),
        ),
        (Ref("Secret", "instance-secrets"), lambda o: o["metadata"].update(managedFields=[])),
        (
            Ref("Secret", "instance-secrets"),
            lambda o: o["metadata"]["managedFields"].append(
                {"manager": "kubectl-edit", "fieldsV1": {"f:data": {"f:OTHER": {}}}}
            ),
        ),
    ],
)
def test_drift_is_seen(key: Ref, change: Change) -> None:
    model = settled_model()
    change(model.objects[key])
    assert [str(step) for step in plan(TARGET, model.observed).steps] == [f"apply {key} (drifted)"]


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": {}}, True),
        ({"a": 1}, {"a": 1, "b": "x"}, False),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1000m"}}, True),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1001m"}}, False),
        ({"hard": {"pods": "3"}}, {"hard": {"pods": 3}}, True),
        ({"env": "1000"}, {"env": "1k"}, False),
        ([{"name": "a", "x": 1}, {"name": "b"}], [{"name": "a"}], True),
        ([{"name": "b"}], [{"name": "a"}], False),
        ([1, 2], [1], False),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1024Mi"}}, True),
        (None, {"a": 1}, False),
    ],
)
def test_contains(found: object, wanted: object, expected: bool) -> None:
    assert contains(found, wanted) is expected


def test_invariant_6_a_plan_shows_no_secret() -> None:
    value = TARGET.secrets[0]["data"]["SESSION_KEY"]
    planned = plan(TARGET, Observed())
    assert "instance-secrets" in str([str(step) for step in planned.steps])
    assert value not in f"{planned} {planned!r} {TARGET!r} {[str(step) for step in planned.steps]}"
