"""The embedded cluster: what it offers tenants, and what it leaves behind, which is nothing."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from sandbox.binaries import cache_directory, ensure
from sandbox.images import IMAGE_BINARIES, build_images
from sandbox.kubernetes import cluster
from sandbox.kubernetes.cluster import ClusterInfo
from sandbox.kubernetes.layout import SIMULATED_LABEL, ClusterConfig, Layout, needed_binaries, preferred_slot
from sandbox.kubernetes.state import load_record, new_layout
from sandbox.processes import Daemon, SandboxError, run
from sandbox.progress import QuietProgress
from tests.integration.machine import look, processes_naming
from tests.integration.pods import (
    Tenant,
    claim,
    mounted,
    names_allowed,
    open_api,
    pod,
    policy,
    web_ingress,
    web_pod,
    web_service,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
NAME = "kubetest"
HOST = "served.apps.localhost"
QUIET = QuietProgress()
ON_SIMULATED_NODES = {
    "nodeSelector": {SIMULATED_LABEL: "true"},
    "tolerations": [{"key": SIMULATED_LABEL, "operator": "Exists", "effect": "NoSchedule"}],
}


def simulated_in(folder: Path, name: str) -> ClusterConfig:
    binaries = asyncio.run(ensure(needed_binaries(simulated=True), QUIET))
    return ClusterConfig(f"{NAME}-{name}", folder / "cluster", binaries, simulated=True)


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[ClusterConfig]:
    """A simulated cluster of the test's own."""
    wanted = simulated_in(tmp_path, "own")
    yield wanted
    asyncio.run(cluster.down(wanted))


@pytest.fixture(scope="module")
def shared_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterConfig]:
    wanted = simulated_in(tmp_path_factory.mktemp("shared"), "shared")
    yield wanted
    asyncio.run(cluster.down(wanted))


@pytest.fixture
def shared(shared_config: ClusterConfig) -> ClusterInfo:
    """A simulated cluster that no test breaks."""
    return asyncio.run(cluster.up(shared_config, QUIET))


@pytest.fixture(scope="module")
def real_config() -> Iterator[ClusterConfig]:
    with TemporaryDirectory(prefix="berth-kubetest-", dir="/var/tmp") as folder:
        reason = asyncio.run(cluster.can_run_pods(Path(folder)))
        if reason is not None:
            pytest.skip(f"real pods cannot run here: {reason}")
        binaries = asyncio.run(ensure(needed_binaries(simulated=False, simulated_nodes=1), QUIET))
        images = asyncio.run(build_node_images())
        wanted = ClusterConfig(NAME, Path(folder) / "cluster", binaries, images, simulated_nodes=1)
        yield wanted
        asyncio.run(cluster.down(wanted))


@pytest.fixture
def real(real_config: ClusterConfig) -> ClusterInfo:
    return asyncio.run(cluster.up(real_config, QUIET))


async def build_node_images() -> list[Path]:
    return await build_images(cache_directory(), await ensure(IMAGE_BINARIES, QUIET))


class TestSimulated:
    async def test_second_up_starts_nothing_and_down_leaves_nothing(self, unstarted: ClusterConfig) -> None:
        before = look("none", "none")
        first = await cluster.up(unstarted, QUIET)
        running = processes_naming(unstarted.state_dir)
        assert await cluster.up(unstarted, QUIET) == first
        assert sorted(processes_naming(unstarted.state_dir)) == sorted(running)
        assert (await cluster.status(unstarted)).state == "running"
        await cluster.down(unstarted)
        assert not unstarted.state_dir.exists()
        assert processes_naming(unstarted.state_dir) == []
        assert look("none", "none") == before
        assert (await cluster.status(unstarted)).state == "stopped"
        await cluster.down(unstarted)

    async def test_a_set_up_killed_half_way_is_made_anew(self, unstarted: ClusterConfig) -> None:
        await start_up_and_signal(unstarted, "etcd", signal.SIGKILL)
        record = load_record(unstarted.state_dir)
        assert record is not None
        assert not record.complete
        left = Daemon("etcd", [], unstarted.state_dir / "daemons").pid()
        assert left is not None
        await cluster.up(unstarted, QUIET)
        assert left not in processes_naming(unstarted.state_dir)
        assert (await cluster.status(unstarted)).state == "running"

    async def test_an_interrupted_set_up_can_be_cleared(self, unstarted: ClusterConfig) -> None:
        await start_up_and_signal(unstarted, "kube-apiserver", signal.SIGINT)
        assert (await cluster.status(unstarted)).state == "degraded"
        await cluster.down(unstarted)
        assert processes_naming(unstarted.state_dir) == []
        assert not unstarted.state_dir.exists()

    async def test_what_has_died_is_restarted_and_the_data_stay(self, unstarted: ClusterConfig) -> None:
        info = await cluster.up(unstarted, QUIET)
        with open_api(info) as api:
            api.post("/api/v1/namespaces", json={"metadata": {"name": "kept"}}).raise_for_status()
        kill(processes_naming(unstarted.state_dir))
        assert await cluster.up(unstarted, QUIET) == info
        with open_api(info) as api:
            assert api.get("/api/v1/namespaces/kept").json()["status"]["phase"] == "Active"

    async def test_another_shape_is_another_cluster(self, unstarted: ClusterConfig) -> None:
        assert node_names(await cluster.up(unstarted, QUIET)) == ["simulated-0"]
        two = replace(unstarted, simulated_nodes=2)
        assert node_names(await cluster.up(two, QUIET)) == ["simulated-0", "simulated-1"]

    def test_pod_and_claim_come_up_and_the_volume_goes_with_its_claim(self, shared: ClusterInfo) -> None:
        container, spec = mounted("data", "/data")
        with Tenant(shared, "tenant") as tenant:
            tenant.create(claim("data", "2Gi"), pod("app", "none", container, spec))
            assert tenant.await_ready("app")["podIP"]
            bound = tenant.find("PersistentVolumeClaim", "data")
            assert bound["status"]["capacity"] == {"storage": "2Gi"}
            assert bound["spec"]["storageClassName"] == shared.storage_class
        await_no_volume(shared, bound["spec"]["volumeName"])

    def test_the_provisioner_may_do_what_it_must_and_no_more(self, shared: ClusterInfo) -> None:
        with open_api(shared, "provisioner") as api:

            def may(verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
                wanted = {"verb": verb, "resource": resource, "group": group, "subresource": subresource}
                review = {"spec": {"resourceAttributes": {**wanted, "namespace": "any"}}}
                answer = api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review)
                return bool(answer.raise_for_status().json()["status"]["allowed"])

            for verb in ("get", "list", "watch", "create", "patch", "delete"):
                assert may(verb, "namespaces")
                assert may(verb, "networkpolicies", "networking.k8s.io")
                assert may(verb, "statefulsets", "apps")
            assert may("get", "pods", subresource="log")
            assert may("delete", "pods")
            refused = [
                ("create", "pods"),
                ("update", "secrets"),
                ("list", "nodes"),
                ("get", "persistentvolumes"),
            ]
            assert not any(may(verb, resource) for verb, resource in refused)
            assert not may("create", "pods", subresource="exec")
            assert not may("create", "clusterroles", "rbac.authorization.k8s.io")

    async def test_the_api_server_alone_can_stop_and_come_back(
        self, shared: ClusterInfo, shared_config: ClusterConfig
    ) -> None:
        by_name = ClusterConfig(shared_config.name, shared_config.state_dir, {})
        before = set(processes_naming(shared_config.state_dir))
        await cluster.stop_api_server(by_name)
        assert len(before - set(processes_naming(shared_config.state_dir))) == 1
        status = await cluster.status(by_name)
        assert (status.state, status.problems) == ("degraded", ["kube-apiserver is not running"])
        await cluster.start_api_server(by_name)
        assert (await cluster.status(by_name)).info == shared
        assert node_names(shared) == ["simulated-0"]

    def test_a_taken_port_moves_a_new_cluster(self, unstarted: ClusterConfig) -> None:
        usual = Layout(unstarted, preferred_slot(unstarted.name))
        with socket.create_server(("127.0.0.1", usual.port("etcd"))):
            assert new_layout(unstarted).slot != usual.slot
        assert new_layout(unstarted).slot == usual.slot


class TestRefusals:
    async def test_a_folder_with_something_else_in_it_is_left_alone(self, unstarted: ClusterConfig) -> None:
        unstarted.state_dir.mkdir()
        precious = unstarted.state_dir / "thesis.txt"
        precious.touch()
        for change in (cluster.up(unstarted, QUIET), cluster.down(unstarted)):
            with pytest.raises(SandboxError, match=r"holds thesis\.txt, which is no cluster's"):
                await change
        precious.unlink()

    async def test_a_missing_program_is_told_with_the_remedy(self, unstarted: ClusterConfig) -> None:
        gone = replace(unstarted, binaries={**unstarted.binaries, "etcd": Path("/gone/etcd")})
        with pytest.raises(SandboxError, match="/gone/etcd is missing: run `berth sandbox install`"):
            await cluster.up(gone, QUIET)

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
    async def test_a_full_disk_is_told_with_the_remedy(self, unstarted: ClusterConfig) -> None:
        disk = unstarted.state_dir.parent / "disk"
        disk.mkdir()
        await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk])
        try:
            with pytest.raises(SandboxError, match="has 1 MiB left: free 1 GiB"):
                await cluster.up(replace(unstarted, state_dir=disk / "cluster"), QUIET)
        finally:
            await run(["umount", disk])

    def test_a_name_that_is_no_name_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SandboxError, match=r"cluster name '\.\./x' is not"):
            ClusterConfig("../x", tmp_path, {})

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives up root")
    def test_without_root_pods_cannot_run_and_it_says_so(self) -> None:
        program = (
            "import asyncio, os; from pathlib import Path; from sandbox.kubernetes import cluster;"
            "os.setuid(65534); print(asyncio.run(cluster.can_run_pods(Path('/'))))"
        )
        output = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
        )
        assert output.stdout == "not root\n"


@pytest.mark.real_pods
class TestReal:
    def test_a_tenant_finds_its_notes_on_its_volume(self, real: ClusterInfo) -> None:
        container, spec = mounted("data", "/data")
        with Tenant(real, "notes") as tenant:
            tenant.create(claim("data", "1Gi"), pod("writer", "echo remember > /data/note", container, spec))
            assert tenant.await_phase("writer", "Succeeded", "Failed") == "Succeeded"
            tenant.create(pod("reader", "cat /data/note", container, spec))
            assert tenant.await_phase("reader", "Succeeded", "Failed") == "Succeeded"
            assert tenant.log("reader") == "remember\n"

    def test_pod_security_refuses_a_privileged_tenant(self, real: ClusterInfo) -> None:
        container = {"securityContext": {"privileged": True}}
        with Tenant(real, "insecure") as tenant, pytest.raises(httpx.HTTPStatusError, match="PodSecurity"):
            tenant.create(pod("root", "id", container))

    def test_policies_close_a_tenant_to_others_and_leave_it_its_names(self, real: ClusterInfo) -> None:
        lookup = "timeout 5 nslookup kubernetes.default.svc.cluster.local"
        with Tenant(real, "closed") as tenant, Tenant(real, "other") as other:
            tenant.create(web_pod())
            fetch = f"timeout 5 wget -qO- http://{tenant.await_ready('web')['podIP']}:8080/"
            assert other.run("before", fetch) == ("Succeeded", "hello\n")
            tenant.create(policy("deny", ["Ingress", "Egress"]))
            assert other.run("after", f"{until_refused(fetch)}; {fetch}")[0] == "Failed"
            assert tenant.run("no-names", f"{until_refused(lookup)}; {lookup}")[0] == "Failed"
            tenant.create(policy("names", ["Egress"], [names_allowed()]))
            assert "10.96.0.1" in tenant.run("names", until_allowed(lookup))[1]

    def test_ingress_serves_a_closed_tenant_by_host(self, real: ClusterInfo) -> None:
        with Tenant(real, "served") as tenant:
            tenant.create(web_pod(), web_service(), web_ingress(HOST, real.ingress_class))
            tenant.create(policy("deny", ["Ingress", "Egress"]))
            tenant.await_ready("web")
            assert await_served(real) == "hello\n"
            other = httpx.get(str(real.ingress_url), headers={"Host": "else.apps.localhost"})
            assert other.status_code == 404

    def test_simulated_nodes_take_only_pods_that_ask_for_them(self, real: ClusterInfo) -> None:
        container, spec = mounted("data", "/data")
        with Tenant(real, "both") as tenant:
            tenant.create(
                pod("real", "sleep 300"),
                claim("data", "1Gi", "simulated"),
                pod("pretended", "none", container, {**spec, **ON_SIMULATED_NODES}),
            )
            tenant.await_ready("real")
            tenant.await_ready("pretended")
            assert tenant.find("Pod", "real")["spec"]["nodeName"] == real.node_name
            assert tenant.find("Pod", "pretended")["spec"]["nodeName"] == "simulated-0"

    def test_pods_serve_while_the_api_server_is_stopped(
        self, real: ClusterInfo, real_config: ClusterConfig
    ) -> None:
        with Tenant(real, "served") as tenant:
            tenant.create(web_pod(), web_service(), web_ingress(HOST, real.ingress_class))
            tenant.await_ready("web")
            await_served(real)
            asyncio.run(cluster.stop_api_server(real_config))
            with pytest.raises(httpx.ConnectError), open_api(real) as api:
                api.get("/readyz")
            assert await_served(real) == "hello\n"
            asyncio.run(cluster.start_api_server(real_config))
            assert restarts(tenant, "web") == 0

    def test_what_has_died_is_restarted_beside_running_pods(
        self, real: ClusterInfo, real_config: ClusterConfig
    ) -> None:
        with Tenant(real, "kept") as tenant:
            tenant.create(web_pod())
            tenant.await_ready("web")
            names = ("skipper", "kube-scheduler", "kubelet", "forwarder")
            daemons = [Daemon(name, [], real_config.state_dir / "daemons") for name in names]
            leaders = {process for daemon in daemons if (process := daemon.pid()) is not None}
            assert len(leaders) == len(names)
            kill([process for process in psutil.pids() if _group(process) in leaders])
            assert asyncio.run(cluster.up(real_config, QUIET)) == real
            assert asyncio.run(cluster.status(real_config)).state == "running"
            assert restarts(tenant, "web") == 0

    def test_down_leaves_nothing_even_without_records(self, real_config: ClusterConfig) -> None:
        asyncio.run(cluster.down(real_config))
        layout = Layout(real_config, preferred_slot(NAME))
        before = look(layout.interface, layout.cgroup)
        info = asyncio.run(cluster.up(real_config, QUIET))
        assert look(layout.interface, layout.cgroup).interfaces - before.interfaces == {layout.interface}
        leave_a_pod(info)
        (real_config.state_dir / "cluster.json").unlink()
        for pid_file in (real_config.state_dir / "daemons").glob("*.pid"):
            pid_file.unlink()
        asyncio.run(cluster.down(real_config))
        assert look(layout.interface, layout.cgroup) == before
        assert processes_naming(real_config.state_dir) == []
        assert not real_config.state_dir.exists()

    def test_down_after_kill_of_everything(self, real_config: ClusterConfig) -> None:
        asyncio.run(cluster.down(real_config))
        layout = Layout(real_config, preferred_slot(NAME))
        before = look(layout.interface, layout.cgroup)
        leave_a_pod(asyncio.run(cluster.up(real_config, QUIET)))
        kill(processes_naming(real_config.state_dir))
        asyncio.run(cluster.down(real_config))
        assert look(layout.interface, layout.cgroup) == before


def kill(processes: list[int]) -> None:
    """Kill processes and wait until they are gone: one that is still dying looks alive."""
    dying = [psutil.Process(process) for process in processes if psutil.pid_exists(process)]
    for process in dying:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(dying, timeout=10)
    assert alive == []


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


async def start_up_and_signal(wanted: ClusterConfig, program: str, number: signal.Signals) -> None:
    """Run `up` in a process of its own, and signal it as soon as `program` has been started."""
    arguments = ["--name", wanted.name, "--state-dir", str(wanted.state_dir), "--simulated"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandbox.kubernetes", "up", *arguments), stderr=asyncio.subprocess.DEVNULL
    )
    pid_file = wanted.state_dir / "daemons" / f"{program}.pid"
    async with asyncio.timeout(60):
        while not pid_file.exists():  # noqa: ASYNC110 - a file of another process has no event
            await asyncio.sleep(0.01)
        process.send_signal(number)
        assert await process.wait() != 0


def leave_a_pod(info: ClusterInfo) -> None:
    """Have a container run, which nobody ends."""
    tenant = Tenant(info, "left").__enter__()
    tenant.create(web_pod())
    tenant.await_ready("web")


def node_names(info: ClusterInfo) -> list[str]:
    with open_api(info) as api:
        items = api.get("/api/v1/nodes").raise_for_status().json()["items"]
    return sorted(item["metadata"]["name"] for item in items)


def restarts(tenant: Tenant, name: str) -> int:
    return int(tenant.find("Pod", name)["status"]["containerStatuses"][0]["restartCount"])


def until_allowed(command: str) -> str:
    """The command until it succeeds: a policy holds a second or so after it is there."""
    return f"for i in $(seq 20); do {command} && exit 0; sleep 0.5; done; exit 1"


def until_refused(command: str) -> str:
    """The command until it fails, or for ten seconds."""
    return f"for i in $(seq 20); do {command} > /dev/null 2>&1 || break; sleep 0.5; done"


def await_served(info: ClusterInfo) -> str:
    """What the ingress answers for the host, once it has a route for it."""
    deadline = time.monotonic() + 15
    with httpx.Client(timeout=5, trust_env=False) as browser:
        while True:
            response = browser.get(str(info.ingress_url), headers={"Host": HOST})
            if response.is_success:
                return response.text
            assert time.monotonic() < deadline, f"{HOST} is not served: {response.text}"


def await_no_volume(info: ClusterInfo, name: str) -> None:
    deadline = time.monotonic() + 15
    with open_api(info) as api:
        while api.get(f"/api/v1/persistentvolumes/{name}").status_code != 404:
            assert time.monotonic() < deadline, f"volume {name} is still there"
