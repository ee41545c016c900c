"""Nodes that only pretend: kwok moves their pods through life without running anything."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from sandbox.kubernetes import pki
from sandbox.kubernetes.api import KubernetesApi, load_manifest
from sandbox.kubernetes.layout import SIMULATED_LABEL, SIMULATED_POD_RANGE, Layout, simulated_node_name
from sandbox.processes import Daemon

_ANNOTATION = "kwok.x-k8s.io/node"
_LEASE_SECONDS = 40

NODES_PATH = f"/api/v1/nodes?labelSelector={SIMULATED_LABEL}%3Dtrue"
"""Lists the simulated nodes."""


def kwok(layout: Layout, values: Mapping[str, str], enter: Sequence[str] = ()) -> Daemon:
    """The simulator.

    Args:
        layout: the cluster.
        values: what its stages name, see `load_manifest`.
        enter: the command that enters the real node's namespaces, empty for the host's own.
    """
    stages = layout.settings / "kwok-stages.yaml"
    stages.parent.mkdir(parents=True, exist_ok=True)
    stages.write_text(yaml.safe_dump_all(load_manifest("kwok-stages", values)))
    options = [
        f"--kubeconfig={layout.kubeconfig(pki.ADDONS)}",
        f"--config={stages}",
        f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
        f"--node-lease-duration-seconds={_LEASE_SECONDS}",
        f"--cidr={SIMULATED_POD_RANGE}",
        f"--server-address=127.0.0.1:{layout.port('kwok')}",
    ]
    return Daemon("kwok", [*enter, layout.config.binaries["kwok"], *options], layout.daemons)


async def add_nodes(layout: Layout, api: KubernetesApi) -> None:
    """Register the wanted number of simulated nodes.

    Raises:
        SandboxError: the API server refuses one.
    """
    for document in _nodes(layout):
        await api.apply(document)


def _nodes(layout: Layout) -> Iterator[dict[str, Any]]:
    """Beside a real node the simulated ones keep pods off that did not ask for them."""
    taints = [{"key": SIMULATED_LABEL, "value": "true", "effect": "NoSchedule"}]
    for number in range(simulated_node_count(layout)):
        name = simulated_node_name(number)
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", SIMULATED_LABEL: "true"}
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {_ANNOTATION: "fake"}},
            "spec": {} if layout.config.simulated else {"taints": taints},
        }


def simulated_node_count(layout: Layout) -> int:
    """How many simulated nodes the cluster has: without a real node at least one."""
    wanted = layout.config.simulated_nodes
    return max(1, wanted) if layout.config.simulated else wanted
