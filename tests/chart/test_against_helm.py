"""What is rendered in-process is what the official `helm template` renders, on every chart here."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.clients.helm import Charts
from provisioner.plan import Manifest
from sandbox.binaries import ensure
from sandbox.progress import QuietProgress
from tests.chart.renderings import CASES, FOLDER, INSTANCE, charts

# Kinds in an order that is not Helm's, two files, two documents in one, and a helper that renders nothing.
MANY_KINDS = ("Ingress", "Widget", "Deployment", "Secret", "Service", "Gadget", "ConfigMap", "NetworkPolicy")


@pytest.fixture(scope="session")
def helm() -> Path:
    """The official program, at the version its engine is compared with."""
    return asyncio.run(ensure(["helm"], QuietProgress()))["helm"]


def official(helm: Path, chart: Path, values: Mapping[str, Any], folder: Path) -> list[Manifest]:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    command: list[str | Path] = [helm, "template", "app", chart, "--namespace", "berth-x", "--values", file]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, cwd=folder)
    return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]


def ours(chart: Path, values: Mapping[str, Any]) -> list[Manifest]:
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["version"]
    rendered = Charts(chart.parent).render_now(
        chart.name, version, values, release="app", namespace="berth-x"
    )
    return list(rendered)


def test_every_chart_is_compared() -> None:
    assert charts() == [INSTANCE], f"add cases for the new charts of {FOLDER}"


@pytest.mark.parametrize("case", ["defaults", *CASES])
def test_the_instance_chart_renders_as_by_helm(helm: Path, tmp_path: Path, case: str) -> None:
    values = CASES.get(case, {})
    expected = official(helm, INSTANCE, values, tmp_path)
    assert len(expected) >= 4
    assert ours(INSTANCE, values) == expected


def test_documents_come_in_helms_order(helm: Path, tmp_path: Path) -> None:
    chart = tmp_path / "many"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: many\nversion: 1.0.0\n")
    (chart / "templates" / "_none.tpl").write_text("{{ define `none` }}{{ end }}")
    for file, suffix in (("z.yaml", "z"), ("a.yaml", "a"), ("deep/b.yaml", "b")):
        path = chart / "templates" / file
        path.parent.mkdir(exist_ok=True)
        documents = [
            {"apiVersion": "v1", "kind": kind, "metadata": {"name": f"{kind.lower()}-{suffix}"}}
            for kind in MANY_KINDS
        ]
        path.write_text(yaml.safe_dump_all(documents))
    expected = official(helm, chart, {}, tmp_path)
    assert len(expected) == 3 * len(MANY_KINDS)
    assert ours(chart, {}) == expected


def test_what_the_schema_refuses_helm_refuses_too(helm: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        official(helm, INSTANCE, CASES["with data"] | {"surprise": 1}, tmp_path)
    assert b"surprise" in refused.value.stderr
