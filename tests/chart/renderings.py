"""Values that make each chart show all it can, and what they render to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from provisioner.clients.helm import Charts
from provisioner.contract.spec import Desired, Size
from provisioner.plan import Manifest
from provisioner.render import default_charts_folder
from provisioner.values import PlatformSettings, values
from tests.instance_specs import PLATFORM, SPEC, spec

FOLDER = default_charts_folder()
CHARTS = Charts(FOLDER)
INSTANCE = FOLDER / "instance"
TENANT_NODES = PlatformSettings(
    apps_url="https://{slug}.apps.example.com",
    node_selector={"pool": "tenants"},
    tolerations=({"key": "tenants", "operator": "Exists", "effect": "NoSchedule"},),
)

CASES: Mapping[str, dict[str, Any]] = {
    "with data": values(SPEC, PLATFORM, "fingerprint"),
    "without data": values(
        spec(data_path="", secret_names=(), environment={}, size=Size(50, 1500, 1 << 28, 0, replicas=3)),
        TENANT_NODES,
    ),
    "suspended": values(spec(desired=Desired.SUSPENDED), PLATFORM),
    "stateful": values(SPEC, PLATFORM) | {"workload": {"kind": "StatefulSet", "replicas": 1}},
    "awkward texts": values(
        spec(environment={"A": 'quote " and \\ and {{ .Values }}', "B": "no", "C": "0123", "D": "a\nb: c"}),
        PLATFORM,
    ),
    "big numbers": values(SPEC, PLATFORM) | {"user": 4294967294},
}


def render(chart_values: Mapping[str, Any]) -> tuple[Manifest, ...]:
    """Render the instance chart."""
    version = yaml.safe_load((INSTANCE / "Chart.yaml").read_text())["version"]
    return CHARTS.render_now("instance", version, chart_values, release="app", namespace="berth-x")


def charts() -> list[Path]:
    """Return every chart of this project."""
    return sorted(file.parent for file in FOLDER.rglob("Chart.yaml"))
