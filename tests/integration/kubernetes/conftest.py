"""A control plane of its own for these tests: they stop its API server, and play the kubelet themselves."""

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from provisioner.clients.kubernetes import KubernetesClient
from provisioner.watch import WatchCache
from sandbox.binaries import ensure
from sandbox.kubernetes import control_plane, pki
from sandbox.kubernetes.api import connect, load_manifest
from sandbox.kubernetes.layout import ClusterConfig, Layout
from sandbox.kubernetes.state import new_layout
from sandbox.processes import Daemon
from sandbox.progress import QuietProgress

_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
_START_SECONDS = 60.0
PATIENCE = 20.0

Pool = AsyncConnectionPool[AsyncConnection[Any]]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """etcd, API server and controllers; no scheduler and no node."""

    layout: Layout

    @property
    def api_server(self) -> Daemon:
        return control_plane.api_server(self.layout)

    @property
    def kubeconfig(self) -> Path:
        """The provisioner's: these tests show that its rights are enough."""
        return self.layout.kubeconfig(pki.PROVISIONER)

    async def start(self) -> None:
        pki.create(self.layout)
        control_plane.etcd(self.layout).start()
        await self.start_api_server()
        keys = self.layout.pki
        async with connect(
            self.layout.api_url, keys / "ca.crt", keys / "admin.crt", keys / "admin.key"
        ) as api:
            for document in load_manifest("provisioner", {}):
                await api.apply(document)
        self.controllers.start()

    @property
    def controllers(self) -> Daemon:
        return control_plane.controller_manager(self.layout)

    async def start_api_server(self) -> None:
        keys = self.layout.pki
        self.api_server.start()
        async with connect(
            self.layout.api_url, keys / "ca.crt", keys / "admin.crt", keys / "admin.key"
        ) as api:
            await self.api_server.wait_ready(api.is_ready, _START_SECONDS)

    @asynccontextmanager
    async def without_api_server(self) -> AsyncIterator[None]:
        """Stop the API server for a while; the controllers are spared the back-off they would go into."""
        await self.controllers.stop(2)
        await self.api_server.stop(2)
        try:
            yield
        finally:
            await self.start_api_server()
            self.controllers.start()

    async def stop(self) -> None:
        for daemon in (
            self.controllers,
            self.api_server,
            control_plane.etcd(self.layout),
        ):
            await daemon.stop(2)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator["Operator"]:
        """Somebody else who works on the cluster: a person with kubectl, or a kubelet."""
        keys = self.layout.pki
        context = ssl.create_default_context(cafile=keys / "ca.crt")
        context.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        async with httpx.AsyncClient(
            base_url=self.layout.api_url, verify=context, timeout=10, trust_env=False
        ) as client:
            yield Operator(client)


@dataclass(frozen=True, slots=True)
class Operator:
    """Changes objects behind the provisioner's back."""

    client: httpx.AsyncClient

    async def patch(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/merge-patch+json"}
        response = await self.client.patch(f"{path}?fieldManager=kubectl-edit", json=change, headers=headers)
        return _checked(response)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _checked(await self.client.post(path, json=body))

    async def get(self, path: str) -> dict[str, Any]:
        return _checked(await self.client.get(path))

    async def delete(self, path: str) -> None:
        _checked(await self.client.request("DELETE", path))

    async def pod_status(self, pod: dict[str, Any], *, ready: bool, **container: object) -> None:
        """Say what a kubelet would of the pod's one container."""
        metadata = pod["metadata"]
        spec = pod["spec"]["containers"][0]
        status = {"name": spec["name"], "image": spec["image"], "imageID": "", "restartCount": 0}
        await self.patch(
            f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status",
            {
                "status": {
                    "phase": "Running" if ready else "Pending",
                    "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                    "containerStatuses": [{**status, "ready": ready, "started": ready, **container}],
                }
            },
        )


class Wire:
    """A TCP connection to the API server that can be cut and mended."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._target = plane.layout.port("api")
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._plane = plane
        self.kubeconfig = folder / "kubeconfig"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        text = self._plane.kubeconfig.read_text()
        self.kubeconfig.write_text(text.replace(f"127.0.0.1:{self._target}", f"127.0.0.1:{self._port}"))

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, up_writer}
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(65536):
                sink.write(chunk)
                await sink.drain()
        sink.close()
        self._open.discard(sink)


def _checked(response: httpx.Response) -> dict[str, Any]:
    assert response.is_success, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.fixture(scope="session")
def own_control_plane() -> Iterator[ControlPlane]:
    folder = Path(tempfile.mkdtemp(prefix="berth-instancetest-"))
    binaries = asyncio.run(ensure(_PROGRAMS, QuietProgress()))
    layout = new_layout(ClusterConfig("instancetest", folder, binaries, simulated=True))
    plane = ControlPlane(layout)
    try:
        asyncio.run(plane.start())
        yield plane
    finally:
        asyncio.run(plane.stop())
        shutil.rmtree(folder)


@pytest.fixture
async def client(own_control_plane: ControlPlane) -> AsyncIterator[KubernetesClient]:
    async with KubernetesClient.connect(own_control_plane.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def operator(own_control_plane: ControlPlane) -> AsyncIterator[Operator]:
    async with own_control_plane.operator() as someone:
        yield someone


@pytest.fixture
async def wire(own_control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Wire]:
    connection = Wire(own_control_plane, tmp_path)
    await connection.mend()
    yield connection
    await connection.cut()


@asynccontextmanager
async def following(client: KubernetesClient, pool: Pool) -> AsyncIterator[WatchCache]:
    """A cache that is being kept current."""
    cache = WatchCache(client, pool)
    running = asyncio.create_task(cache.run())
    async with asyncio.timeout(PATIENCE):
        await cache.wait_synced()
    try:
        yield cache
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
async def watch_cache(client: KubernetesClient, pool: Pool) -> AsyncIterator[WatchCache]:
    async with following(client, pool) as cache:
        yield cache
