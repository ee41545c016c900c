import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import kind_of
from provisioner.contract.errors import PermanentError
from provisioner.labels import labels
from provisioner.plan import Manifest
from provisioner.render import placed
from tests.chart.renderings import CASES, INSTANCE, render
from tests.instance_specs import SPEC

SCHEMA = json.loads((INSTANCE / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((INSTANCE / "values.yaml").read_text())
TEMPLATES = "\n".join(file.read_text() for file in (INSTANCE / "templates").iterdir())
# Maps whose keys are the user's own; everything else is closed.
OPEN = {"labels", "environment", "nodeSelector"}


def one(manifests: tuple[Manifest, ...], kind: str) -> Any:  # noqa: ANN401 - a manifest to dig in
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def pod_of(manifests: tuple[Manifest, ...]) -> Any:  # noqa: ANN401 - a manifest to dig in
    workloads = [item for item in manifests if item["kind"] in {"Deployment", "StatefulSet"}]
    assert len(workloads) == 1
    return workloads[0]["spec"]["template"]


def objects(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:  # noqa: ANN401 - any JSON
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, value in schema.items():
            if key not in {"if", "then"}:
                yield from objects(value, (*path, key))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict) and value and path[-1:] != ("labels",):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path


def test_the_schema_is_closed_everywhere() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    for path, schema in objects(SCHEMA):
        if path[-1:] and path[-1] in OPEN:
            assert isinstance(schema["additionalProperties"], dict)
        else:
            assert schema["additionalProperties"] is False, path


def test_the_schema_knows_exactly_the_documented_values() -> None:
    jsonschema.validate(DEFAULTS, SCHEMA)
    assert set(SCHEMA["properties"]) == set(DEFAULTS)


@pytest.mark.parametrize("path", list(leaves(DEFAULTS)), ids=".".join)
def test_every_value_is_used_by_a_template(path: tuple[str, ...]) -> None:
    whole = "|".join(re.escape(".".join(path[:length])) for length in range(1, len(path) + 1))
    used = set(re.findall(rf"\.Values\.({whole})\b(?!\.)", TEMPLATES))
    if path[0] == "probe":  # read inside `with .Values.probe`
        assert re.search(rf"(?<![\w.])\.{path[-1]}\b", TEMPLATES)
    else:
        assert used, f"{'.'.join(path)} is in values.yaml and nowhere else"


@pytest.mark.parametrize("path", [(), ("workload",), ("resources", "limits"), ("probe",), ("secret",)])
def test_an_unknown_key_is_refused_by_name(path: tuple[str, ...]) -> None:
    values: Any = copy.deepcopy(CASES["with data"])
    inner = values
    for key in path:
        inner = inner[key]
    inner["surprise"] = 1
    with pytest.raises(PermanentError, match="surprise"):
        render(values)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("port", "8080", "/port"),
        ("host", "no_host", "/host"),
        ("image", "", "/image"),
        ("workload", {"kind": "DaemonSet"}, "/workload/kind"),
        ("workload", {"kind": "Deployment", "replicas": 2}, "/workload/replicas"),
        ("environment", {"not a name": "x"}, "not a name"),
    ],
)
def test_a_wrong_value_is_refused_by_name(key: str, value: object, named: str) -> None:
    with pytest.raises(PermanentError, match=named):
        render(CASES["with data"] | {key: value})


@pytest.mark.parametrize("case", CASES)
def test_every_object_and_pod_carries_the_labels(case: str) -> None:
    manifests = render(CASES[case])
    for found in (*manifests, pod_of(manifests)):
        assert labels(SPEC).items() <= found["metadata"]["labels"].items()
    assert {kind_of(manifest).name for manifest in manifests} >= {"Service", "Ingress", "ConfigMap"}


@pytest.mark.parametrize("case", CASES)
def test_pods_keep_to_the_restricted_standard_and_get_no_token(case: str) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    spec = pod_of(render(CASES[case]))["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "instance"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert isinstance(spec["securityContext"]["fsGroup"], int)
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert set(container) >= {"startupProbe", "readinessProbe", "livenessProbe", "resources"}
    kinds = {next(key for key in volume if key != "name") for volume in spec["volumes"]}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}


def test_an_app_with_data_is_replaced_not_doubled() -> None:
    manifests = render(CASES["with data"])
    assert one(manifests, "Deployment")["spec"]["strategy"]["type"] == "Recreate"
    claim = one(manifests, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    mounts = pod_of(manifests)["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "data", "mountPath": "/data"} in mounts


def test_an_app_without_data_rolls_without_a_gap() -> None:
    manifests = render(CASES["without data"])
    strategy = one(manifests, "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert "PersistentVolumeClaim" not in {manifest["kind"] for manifest in manifests}


def test_the_entitlement_is_a_read_only_file_and_a_new_one_restarts_the_app() -> None:
    values = CASES["with data"]
    manifests = render(values)
    mounts = pod_of(manifests)["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "entitlement", "mountPath": "/etc/berth", "readOnly": True} in mounts
    content = one(manifests, "ConfigMap")["data"]["entitlements.json"]
    assert content == values["entitlement"]["content"]
    changed = render(values | {"entitlement": {"path": "/etc/berth/entitlements.json", "content": "{}"}})
    assert pod_of(changed)["metadata"]["annotations"] != pod_of(manifests)["metadata"]["annotations"]


def test_texts_arrive_as_they_are() -> None:
    values = CASES["awkward texts"]
    env = pod_of(render(values))["spec"]["containers"][0]["env"]
    found = {item["name"]: item["value"] for item in env if "value" in item}
    assert found == values["environment"]


def test_numbers_are_not_written_in_scientific_notation() -> None:
    security = pod_of(render(CASES["big numbers"]))["spec"]["securityContext"]
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        assert repr(security[key]) == "4294967294"


def test_the_ingress_serves_the_instances_host() -> None:
    ingress = one(render(CASES["with data"]), "Ingress")["spec"]
    assert ingress["ingressClassName"] == "nginx"
    assert [rule["host"] for rule in ingress["rules"]] == ["acme.apps.localhost"]
    assert "ingressClassName" not in one(render(CASES["without data"]), "Ingress")["spec"]


def write_chart(folder: Path, template: str, name: str = "small", version: str = "1.0.0") -> Charts:
    chart = folder / name
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: small\nversion: {version}\n")
    (chart / "templates" / "all.yaml").write_text(template)
    return Charts(folder)


def object_text(kind: str, annotations: str = "{}") -> str:
    return f"apiVersion: v1\nkind: {kind}\nmetadata:\n  name: x\n  annotations: {annotations}\n"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (object_text("ConfigMap", '{"helm.sh/hook": post-install}'), "hooks are not run"),
        (object_text("Pod", '{"helm.sh/hook": test}'), "hooks are not run"),
        (object_text("ClusterRole"), "whole cluster"),
        (object_text("Namespace"), "whole cluster"),
        ("kind: ConfigMap\n", "metadata.name"),
        ("- a\n- b\n", "metadata.name"),
        ("a: [\n", "does not render to YAML"),
        ("{{ fail `no` }}", "cannot be rendered"),
    ],
)
def test_what_is_not_run_is_refused_in_a_sentence(tmp_path: Path, template: str, sentence: str) -> None:
    small = write_chart(tmp_path, template)
    with pytest.raises(PermanentError, match=sentence):
        small.render_now("small", "1.0.0", {}, release="r", namespace="n")


def test_a_chart_may_not_reach_into_another_namespace() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": "kube-system"},
    }
    with pytest.raises(PermanentError, match="kube-system"):
        placed(SPEC, manifest)
    with pytest.raises(PermanentError, match="not a kind this platform runs"):
        placed(SPEC, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}})


def test_versions_live_side_by_side_and_a_missing_one_is_named(tmp_path: Path) -> None:
    write_chart(tmp_path, object_text("Secret"), name="small-1.0.0")
    small = write_chart(tmp_path, object_text("ConfigMap"), version="2.0.0")
    old = small.render_now("small", "1.0.0", {}, release="r", namespace="n")
    new = small.render_now("small", "2.0.0", {}, release="r", namespace="n")
    assert [old[0]["kind"], new[0]["kind"]] == ["Secret", "ConfigMap"]
    with pytest.raises(PermanentError, match=r"'small' 3.0.0 is not in .*found: 2.0.0"):
        small.render_now("small", "3.0.0", {}, release="r", namespace="n")
