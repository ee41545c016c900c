"""A whole Kubernetes cluster on this machine: up, down, status."""

import asyncio
import errno
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx

from sandbox.kubernetes import control_plane, node, node_services, pki, simulated
from sandbox.kubernetes.api import KubernetesApi, connect, load_manifest
from sandbox.kubernetes.layout import (
    CLUSTER_DOMAIN,
    DNS_ADDRESS,
    INGRESS_CLASS,
    PAUSE_IMAGE,
    REAL_STORAGE_CLASS,
    SIMULATED_STORAGE_CLASS,
    ClusterConfig,
    Layout,
)
from sandbox.kubernetes.state import (
    Record,
    clear_folder,
    find_layout,
    fingerprint,
    image_stamps,
    load_record,
    locked,
    new_layout,
    prepare_folder,
    save_record,
)
from sandbox.processes import Daemon, SandboxError, kill_strays
from sandbox.progress import Progress

_API_SECONDS = 120.0
_READY_SECONDS = 120.0
_API_STOP_SECONDS = 2.0
_PROBE_SECONDS = 0.2
_MEND_TRIES = 3
_PROBE_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class ClusterInfo:
    """How to use a running cluster.

    Attributes:
        kubeconfig: an administrator's.
        provisioner_kubeconfig: the provisioner's, which may do only what it must.
        ingress_url: `http://127.0.0.1:PORT`; None when no pod could answer (simulated).
        simulated: whether no pod really runs.
        node_name: the real node, or the first simulated one.
        storage_class: the default one.
        ingress_class: give it to each Ingress.
        api_url: the API server.
    """

    kubeconfig: Path
    provisioner_kubeconfig: Path
    ingress_url: str | None
    simulated: bool
    node_name: str
    storage_class: str
    ingress_class: str
    api_url: str


@dataclass(frozen=True)
class ClusterStatus:
    """Whether a cluster runs, and what is wrong when it does not quite."""

    state: Literal["running", "degraded", "stopped"]
    info: ClusterInfo | None
    problems: list[str]


async def can_run_pods(state_dir: Path) -> str | None:
    """Why a cluster in `state_dir` cannot run real pods here; None when it can."""
    return await node.why_no_pods(state_dir)


async def up(config: ClusterConfig, progress: Progress) -> ClusterInfo:
    """Bring the cluster up, and return once pods can be had.

    Does nothing to a healthy one, restarts what has ended of one that was whole, and makes anew what
    an earlier run left unfinished or what has another shape.

    Raises:
        SandboxError: it cannot be; says why and what to do. The next `up` or `down` clears away the rest.
    """
    with _clear_errors(config.state_dir):
        async with locked(config.state_dir):
            prepare_folder(config.state_dir)
            layout = await _kept(config, progress) or await _made_anew(config, progress)
    return _info(layout)


async def down(config: ClusterConfig) -> None:
    """Remove the cluster and everything of it: processes, interface, control groups, files.

    Of `config` only name and folder count.

    Raises:
        SandboxError: something cannot be removed; says what to do.
    """
    with _clear_errors(config.state_dir):
        if config.state_dir.exists() or find_layout(config) is not None:
            async with locked(config.state_dir):
                await _clear(config)
                config.state_dir.rmdir()


async def status(config: ClusterConfig) -> ClusterStatus:
    """What is up of the cluster, without changing it; of `config` only name and folder count."""
    layout = find_layout(config)
    if layout is None:
        return ClusterStatus("stopped", None, [])
    problems = [
        f"{name} is not running" for name in _programs(layout) if not _named(layout, name).is_running()
    ]
    if len(problems) == len(_programs(layout)):
        return ClusterStatus("stopped", None, [])
    if not problems:
        problems = await _api_problems(layout)
    return ClusterStatus("degraded" if problems else "running", _info(layout), problems)


async def stop_api_server(config: ClusterConfig) -> None:
    """Stop the API server alone; everything else goes on. Of `config` only name and folder count.

    Raises:
        SandboxError: the cluster is not up, or the server will not end.
    """
    await _named(_existing(config), control_plane.API_SERVER).stop(_API_STOP_SECONDS)


async def start_api_server(config: ClusterConfig) -> None:
    """Start the API server again, and wait until it is ready. Of `config` only name and folder count.

    Raises:
        SandboxError: the cluster is not up, or the server does not become ready.
    """
    layout = _existing(config)
    server = control_plane.api_server(layout, _enter(layout))
    server.start()
    async with _api(layout) as api:
        await server.wait_ready(api.is_ready, _API_SECONDS)


def _existing(config: ClusterConfig) -> Layout:
    layout = find_layout(config)
    if layout is None:
        raise SandboxError(f"cluster {config.name} is not up: run `berth sandbox up`")
    return layout


async def _kept(config: ClusterConfig, progress: Progress) -> Layout | None:
    """The cluster of an earlier run, mended where needed; None when there is none worth keeping."""
    record = load_record(config.state_dir)
    if record is None or not record.complete or record.fingerprint != fingerprint(config):
        return None
    layout = Layout(config, record.slot)
    if (await status(config)).state != "running":
        if not config.simulated and not node.namespaces(layout).is_running():
            return None
        with progress.step("Restart what has ended of Kubernetes", 5):
            if not await _mended(layout, progress):
                return None
    fresh = _changed_images(config, record)
    if fresh:
        await _import_images(layout, fresh, progress)
        save_record(config.state_dir, replace(record, images=image_stamps(config)))
    return layout


async def _mended(layout: Layout, progress: Progress) -> bool:
    # A process that was just killed may look alive at the first try, and a cluster holds data: try again.
    for _ in range(_MEND_TRIES):
        try:
            await _start(layout, progress, set())
        except SandboxError:
            continue
        return True
    return False


async def _made_anew(config: ClusterConfig, progress: Progress) -> Layout:
    if any(config.state_dir.iterdir()):
        with progress.step("Clear away what is left of an earlier cluster", 3):
            await _clear(config)
    layout = new_layout(config)
    record = Record.begin(layout)
    save_record(config.state_dir, record)
    pki.create(layout)
    await _start(layout, progress, set(config.images))
    save_record(config.state_dir, replace(record, complete=True))
    return layout


async def _start(layout: Layout, progress: Progress, images: set[Path]) -> None:
    """Start whatever does not run, and wait until pods can be had."""
    if layout.config.simulated:
        await _start_control_plane(layout, progress)
    else:
        if not node.namespaces(layout).is_running():
            with progress.step("Make the node's namespaces", 1):
                await node.start(layout)
        await _together(_start_control_plane(layout, progress), _start_containers(layout, images, progress))
    async with _api(layout) as api:
        await _apply_manifests(layout, api)
        waits = [_start_controllers(layout, api, progress)]
        if not layout.config.simulated:
            waits.append(_start_node(layout, api, progress))
        if simulated.simulated_node_count(layout):
            waits.append(_start_simulated_nodes(layout, api, progress))
        await _together(*waits)


async def _start_control_plane(layout: Layout, progress: Progress) -> None:
    enter = _enter(layout)
    with progress.step("Start the Kubernetes API server", 6):
        control_plane.etcd(layout, enter).start()
        server = control_plane.api_server(layout, enter)
        server.start()
        async with _api(layout) as api:
            await server.wait_ready(api.is_ready, _API_SECONDS)


async def _start_controllers(layout: Layout, api: KubernetesApi, progress: Progress) -> None:
    enter = _enter(layout)

    async def accounts_are_made() -> bool:
        return await api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    with progress.step("Start the controllers and the scheduler", 3):
        control_plane.scheduler(layout, enter).start()
        controllers = control_plane.controller_manager(layout, enter)
        controllers.start()
        await controllers.wait_ready(accounts_are_made, _READY_SECONDS, _PROBE_SECONDS)


async def _start_containers(layout: Layout, images: set[Path], progress: Progress) -> None:
    enter = _enter(layout)
    with progress.step("Start the container runtime", 2):
        runtime = node_services.containerd(layout, enter)
        runtime.start()
        await runtime.wait_ready(lambda: node_services.containerd_answers(enter), _READY_SECONDS)
    await _import_images(layout, images, progress)


async def _import_images(layout: Layout, images: set[Path], progress: Progress) -> None:
    if layout.config.simulated or not images:
        return
    enter = _enter(layout)
    with progress.step(f"Import {len(images)} images", 2):
        for image in sorted(images):
            await node_services.import_image(enter, image)


async def _start_node(layout: Layout, api: KubernetesApi, progress: Progress) -> None:
    enter = _enter(layout)
    with progress.step("Start the node", 6):
        kubelet = node_services.kubelet(layout, enter)
        ingress = node_services.ingress(layout, enter)
        services = [
            ingress,
            node_services.kube_proxy(layout, enter),
            node_services.local_path_provisioner(layout, enter),
            node_services.forwarder(layout),
        ]
        for daemon in (kubelet, *services):
            daemon.start()

        async def node_is_ready() -> bool:
            return _is_ready(await api.get(f"/api/v1/nodes/{layout.node_name}"))

        await kubelet.wait_ready(node_is_ready, _READY_SECONDS, _PROBE_SECONDS)
        # It looks its node up once, and ends when there is none.
        policies = node_services.kube_router(layout, enter)
        policies.start()
        await _together(
            kubelet.wait_ready(lambda: _names_resolve(api), _READY_SECONDS, _PROBE_SECONDS),
            policies.wait_ready(
                lambda: _answers(node_services.policies_health(layout)), _READY_SECONDS, _PROBE_SECONDS
            ),
            ingress.wait_ready(lambda: _answers(layout.ingress_url), _READY_SECONDS, _PROBE_SECONDS),
        )
        for daemon in services:
            if not daemon.is_running():
                raise SandboxError(f"{daemon.name} ended while starting: {daemon.log_tail()}")


async def _names_resolve(api: KubernetesApi) -> bool:
    deployment = await api.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns")
    return deployment is not None and deployment.get("status", {}).get("readyReplicas", 0) > 0


async def _start_simulated_nodes(layout: Layout, api: KubernetesApi, progress: Progress) -> None:
    count = simulated.simulated_node_count(layout)
    with progress.step(f"Simulate {count} nodes", 3):
        simulator = simulated.kwok(layout, _manifest_values(layout), _enter(layout))
        simulator.start()
        await simulated.add_nodes(layout, api)

        async def nodes_are_ready() -> bool:
            nodes = await api.get(simulated.NODES_PATH)
            return nodes is not None and sum(map(_is_ready, nodes["items"])) == count

        await simulator.wait_ready(nodes_are_ready, _READY_SECONDS, _PROBE_SECONDS)


async def _apply_manifests(layout: Layout, api: KubernetesApi) -> None:
    names = ["provisioner"]
    if not layout.config.simulated:
        names += ["dns", "storage", "ingress"]
    if simulated.simulated_node_count(layout):
        names.append("simulated")
    values = _manifest_values(layout)
    documents = [document for name in names for document in load_manifest(name, values)]
    await _together(*map(api.apply, documents))


def _manifest_values(layout: Layout) -> dict[str, str]:
    return {
        "cluster_domain": CLUSTER_DOMAIN,
        "coredns": str(layout.config.binaries.get("coredns", "")),
        "dns_address": DNS_ADDRESS,
        "ingress_class": INGRESS_CLASS,
        "pause_image": PAUSE_IMAGE,
        "real_storage_class": REAL_STORAGE_CLASS,
        "simulated_is_default": str(layout.config.simulated).lower(),
        "simulated_storage_class": SIMULATED_STORAGE_CLASS,
    }


async def _clear(config: ClusterConfig) -> None:
    """Remove everything of the cluster but its folder."""
    layout = find_layout(config)
    await kill_strays(config.state_dir)
    if layout is not None:
        await node.remove(layout)
    clear_folder(config.state_dir)


def _enter(layout: Layout) -> list[str]:
    return [] if layout.config.simulated else node.enter(layout)


def _api(layout: Layout) -> AbstractAsyncContextManager[KubernetesApi]:
    keys = layout.pki
    return connect(layout.api_url, keys / "ca.crt", keys / "admin.crt", keys / "admin.key")


def _info(layout: Layout) -> ClusterInfo:
    simulated_only = layout.config.simulated
    return ClusterInfo(
        kubeconfig=layout.kubeconfig(pki.ADMIN),
        provisioner_kubeconfig=layout.kubeconfig(pki.PROVISIONER),
        ingress_url=None if simulated_only else layout.ingress_url,
        simulated=simulated_only,
        node_name=layout.node_name,
        storage_class=SIMULATED_STORAGE_CLASS if simulated_only else REAL_STORAGE_CLASS,
        ingress_class=INGRESS_CLASS,
        api_url=layout.api_url,
    )


def _programs(layout: Layout) -> list[str]:
    """The name of each process a cluster of this shape has."""
    names = ["etcd", control_plane.API_SERVER, "kube-controller-manager", "kube-scheduler"]
    if not layout.config.simulated:
        names += ["node", "containerd", "kubelet", "kube-proxy", "kube-router"]
        names += ["local-path-provisioner", "skipper", "forwarder"]
    if simulated.simulated_node_count(layout):
        names.append("kwok")
    return names


def _named(layout: Layout, name: str) -> Daemon:
    """A process known by name only: to look at or to stop, not to start."""
    return Daemon(name, [], layout.daemons)


async def _api_problems(layout: Layout) -> list[str]:
    async with _api(layout) as api:
        if not await api.is_ready():
            return ["the API server is not ready"]
        if not _is_ready(await api.get(f"/api/v1/nodes/{layout.node_name}")):
            return [f"node {layout.node_name} is not ready"]
    return []


def _is_ready(item: Mapping[str, Any] | None) -> bool:
    conditions = [] if item is None else item.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def _answers(url: str) -> bool:
    """Whether a server is there; 404 is what an ingress without routes says."""
    async with httpx.AsyncClient(timeout=_PROBE_TIMEOUT_SECONDS, trust_env=False) as client:
        try:
            return not (await client.get(url)).is_server_error
        except httpx.HTTPError:
            return False


def _changed_images(config: ClusterConfig, record: Record) -> set[Path]:
    stamps = image_stamps(config)
    return {Path(archive) for archive, stamp in stamps.items() if record.images.get(archive) != stamp}


async def _together(*parts: Awaitable[None]) -> None:
    """Await all at once; the first error ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _clear_errors(state_dir: Path) -> Iterator[None]:
    """Turn what the system refuses into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full: free 1 GiB"
        elif error.errno in (errno.EACCES, errno.EPERM):
            remedy = f"{error}: run as the user who started the cluster, or give another folder"
        else:
            remedy = f"{error}: run `berth sandbox down` and then up again"
        raise SandboxError(f"cannot keep a cluster in {state_dir}: {remedy}") from error
