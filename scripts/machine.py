"""What every use of the sandbox needs first: Debian packages, programs, images, a cluster."""

import os
from dataclasses import dataclass
from pathlib import Path

from sandbox import binaries, images, packages
from sandbox.kubernetes import cluster
from sandbox.kubernetes.layout import ClusterConfig
from sandbox.processes import SandboxError
from sandbox.progress import Progress
from scripts.state import state_root

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
IMAGES = ("pause", "sample")
NODE = ("kubelet", "kube-proxy", "kube-router", "coredns", "local-path-provisioner", "skipper")
SIMULATED_NODES = ("kwok",)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up, ours or the operator's own."""

    kubeconfig: Path
    provisioner_kubeconfig: Path
    apps_url: str
    ingress_class: str
    storage_class: str
    simulated: bool


async def start_cluster(name: str, progress: Progress, *, simulated_nodes: int = 0) -> Cluster:
    """Bring the embedded cluster `name` up, installing what is missing; at once when it is up already."""
    simulated = await _is_simulated(name)
    config = await prepare(name, progress, simulated=simulated, simulated_nodes=simulated_nodes)
    info = await cluster.up(config, progress)
    ingress = info.ingress_url or "http://127.0.0.1"
    return Cluster(
        info.kubeconfig,
        info.provisioner_kubeconfig,
        ingress.replace("127.0.0.1", "{slug}.apps.localhost"),
        info.ingress_class,
        info.storage_class,
        info.simulated,
    )


async def stop_cluster(name: str) -> None:
    """Take the embedded cluster `name` down; nothing of it is left."""
    await cluster.down(ClusterConfig(name, cluster_folder(name), {}))


async def _is_simulated(name: str) -> bool:
    """Say whether the cluster is, or would be, simulated: one that is there keeps its pods as they are."""
    found = await cluster.status(ClusterConfig(name, cluster_folder(name), {}))
    if found.info is not None and not os.environ.get("BERTH_SIMULATED"):
        return found.info.simulated
    return await why_simulated(name) is not None


async def why_simulated(name: str) -> str | None:
    """Return the reason why pods must be simulated here, or None where containers can run."""
    if os.environ.get("BERTH_SIMULATED"):
        return "BERTH_SIMULATED is set"
    return await cluster.can_run_pods(cluster_folder(name))


async def prepare(name: str, progress: Progress, *, simulated: bool, simulated_nodes: int) -> ClusterConfig:
    """Install what a cluster needs and return its configuration."""
    programs = [*CONTROL_PLANE]
    if not simulated:
        await packages.ensure_packages(progress)
        programs += (*NODE, *IMAGES)
    if simulated or simulated_nodes:
        programs += SIMULATED_NODES
    found = await binaries.ensure(programs, progress)
    archives = [] if simulated else await images.build_images(binaries.cache_directory(), found)
    return ClusterConfig(
        name=name,
        state_dir=cluster_folder(name),
        binaries=found,
        images=archives,
        simulated=simulated,
        simulated_nodes=max(simulated_nodes, 3) if simulated else simulated_nodes,
    )


def cluster_folder(name: str) -> Path:
    """Return where the embedded cluster `name` keeps its state."""
    return state_root() / "clusters" / name


def existing_cluster() -> Cluster | None:
    """Return the operator's own cluster when `BERTH_KUBECONFIG` names one."""
    named = os.environ.get("BERTH_KUBECONFIG")
    if not named:
        return None
    kubeconfig = Path(named).expanduser().resolve()
    if not kubeconfig.is_file():
        raise SandboxError(f"BERTH_KUBECONFIG names {kubeconfig}, which is no file: correct or unset it")
    return Cluster(
        kubeconfig,
        kubeconfig,
        os.environ.get("BERTH_APPS_URL", "http://{slug}.apps.localhost"),
        os.environ.get("BERTH_INGRESS_CLASS", ""),
        os.environ.get("BERTH_STORAGE_CLASS", ""),
        simulated=bool(os.environ.get("BERTH_SIMULATED")),
    )
