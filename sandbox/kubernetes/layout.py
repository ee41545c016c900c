"""Where a cluster's files, addresses and ports are; everything else is derived from here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from zlib import crc32

from sandbox.processes import SandboxError

SLOTS = 200
"""How many clusters can be told apart on one machine by address, port and interface."""

SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
POD_RANGE = "10.244.0.0/16"
NODE_POD_RANGE = "10.244.0.0/24"
SIMULATED_POD_RANGE = "10.245.0.0/16"
CLUSTER_DOMAIN = "cluster.local"

INGRESS_CLASS = "berth-sandbox"
REAL_STORAGE_CLASS = "local-path"
SIMULATED_STORAGE_CLASS = "simulated"
SIMULATED_LABEL = "berth.dev/simulated"

PAUSE_IMAGE = "berth.local/pause:1"
STORAGE_HELPER_IMAGE = "berth.local/busybox:1"

_NODE_NETWORK = IPv4Network("10.213.0.0/16")
_FIRST_PORT = 20000
_PORTS_PER_SLOT = 16
# An address of no interface: in simulated mode nothing runs that could use the API service.
_UNUSED_ADDRESS = "198.51.100.1"


@dataclass(frozen=True)
class ClusterConfig:
    """What cluster is wanted.

    Attributes:
        name: lower-case letters, digits and dashes; each name is a cluster of its own.
        state_dir: everything the cluster writes; removed by `down`, so it must be nobody else's.
        binaries: where each program is: kube-apiserver, etcd and so on (`sandbox.binaries`).
        images: docker-archive files for the node's container runtime (`sandbox.images`).
        simulated: no node runs containers; pods only pretend to (kwok), and root is not needed.
        simulated_nodes: how many pretending nodes; beside the real node they are tainted.
    """

    name: str
    state_dir: Path
    binaries: Mapping[str, Path]
    images: Sequence[Path] = field(default_factory=tuple)
    simulated: bool = False
    simulated_nodes: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", self.name):
            raise SandboxError(f"cluster name {self.name!r} is not lower-case letters, digits and dashes")
        if not 0 <= self.simulated_nodes <= SLOTS:
            raise SandboxError(f"simulated_nodes is {self.simulated_nodes}: give 0 to {SLOTS}")


@dataclass(frozen=True)
class Layout:
    """A cluster in its slot: file names, addresses and ports."""

    config: ClusterConfig
    slot: int

    @property
    def state_dir(self) -> Path:
        """Everything the cluster writes."""
        return self.config.state_dir

    @property
    def daemons(self) -> Path:
        """Pid and log files of every process."""
        return self.state_dir / "daemons"

    @property
    def pki(self) -> Path:
        """Keys, certificates and kubeconfigs."""
        return self.state_dir / "pki"

    @property
    def settings(self) -> Path:
        """Generated configuration files of the programs."""
        return self.state_dir / "settings"

    @property
    def node_dir(self) -> Path:
        """What the real node keeps: images, containers, pods, volumes, logs."""
        return self.state_dir / "node"

    @property
    def node_name(self) -> str:
        """The real node's name, or the first simulated one's when there is no real one."""
        return simulated_node_name(0) if self.config.simulated else f"berth-{self.config.name}"

    @property
    def interface(self) -> str:
        """The host's end of the wire to the real node."""
        return f"berth{self.slot}"

    @property
    def cgroup(self) -> str:
        """Name of the control group, below each hierarchy's root, that holds all pods."""
        return f"berth-{self.slot}"

    @property
    def wire(self) -> IPv4Network:
        """The network of two addresses between the host and the real node."""
        base = int(_NODE_NETWORK.network_address) + self.slot * 256
        return IPv4Network((base, 30))

    @property
    def host_address(self) -> str:
        """The host's address on the wire."""
        return str(self.wire[1])

    @property
    def node_address(self) -> str:
        """Where the control plane and the ingress listen: the real node, or loopback without one."""
        return "127.0.0.1" if self.config.simulated else str(self.wire[2])

    @property
    def advertised_address(self) -> str:
        """The API server's address as pods see it; must not be loopback."""
        return _UNUSED_ADDRESS if self.config.simulated else self.node_address

    def port(self, use: str) -> int:
        """The host port of `ingress`, or in simulated mode of any control-plane part.

        In a real cluster the control plane has the node's own ports: only `ingress` is the host's.
        """
        offset = _PORT_USES.index(use)
        return _FIRST_PORT + self.slot * _PORTS_PER_SLOT + offset

    @property
    def host_ports(self) -> list[int]:
        """Every port the cluster takes on the host's loopback."""
        return [self.port(use) for use in (_PORT_USES[1:] if self.config.simulated else ["ingress"])]

    @property
    def api_url(self) -> str:
        """The API server as the host reaches it."""
        return f"https://{self.node_address}:{self.port('api')}"

    @property
    def ingress_url(self) -> str:
        """The ingress as browsers on this machine reach it; only a real node has one."""
        return f"http://127.0.0.1:{self.port('ingress')}"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one user, see `sandbox.kubernetes.pki`."""
        return self.pki / f"{user}.kubeconfig"


_PORT_USES = ["ingress", "api", "etcd", "etcd-peer", "controller-manager", "scheduler", "kwok"]


def needed_binaries(*, simulated: bool, simulated_nodes: int = 0) -> list[str]:
    """The programs a cluster of this shape runs, by their names in `sandbox.binaries`."""
    names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    if not simulated:
        names += ["kubelet", "kube-proxy", "kube-router", "coredns", "local-path-provisioner", "skipper"]
    if simulated or simulated_nodes:
        names.append("kwok")
    return names


def simulated_node_name(number: int) -> str:
    """The name of the simulated node with this number, from 0."""
    return f"simulated-{number}"


def preferred_slot(name: str) -> int:
    """The slot a name gets when nothing else has it: the same on each start."""
    return crc32(name.encode()) % SLOTS
