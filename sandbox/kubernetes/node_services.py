"""What runs in the real node: the container runtime, the kubelet, networking, storage and the ingress."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from sandbox.kubernetes import forwarder as forwarder_program
from sandbox.kubernetes import pki
from sandbox.kubernetes.layout import (
    CLUSTER_DOMAIN,
    DNS_ADDRESS,
    INGRESS_CLASS,
    NODE_POD_RANGE,
    PAUSE_IMAGE,
    POD_RANGE,
    SERVICE_RANGE,
    STORAGE_HELPER_IMAGE,
    Layout,
)
from sandbox.processes import Daemon, SandboxError, run

# Inside the node only: its /run is its own.
_SOCKET = "/run/containerd/containerd.sock"
_INGRESS_PORT = 80
_POLICIES_HEALTH_PORT = 20244
_MAX_PODS = 220
_IMPORT_SECONDS = 60.0


def containerd(layout: Layout, enter: Sequence[str]) -> Daemon:
    """The container runtime."""
    runc = {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": False}}
    interface = {
        "sandbox_image": PAUSE_IMAGE,
        "netns_mounts_under_state_dir": True,
        # runc cannot lower a score in here, and fails trying ("can't get final child's PID").
        "restrict_oom_score_adj": True,
        "cni": {"bin_dir": "/usr/lib/cni", "conf_dir": str(_cni_settings(layout))},
        "containerd": {"snapshotter": "overlayfs", "runtimes": {"runc": runc}},
    }
    unused = (
        "internal.v1.opt",
        *(f"snapshotter.v1.{name}" for name in ("btrfs", "devmapper", "zfs", "aufs")),
    )
    settings = {
        "version": 2,
        "root": str(layout.node_dir / "containerd"),
        "state": "/run/containerd",
        "disabled_plugins": [f"io.containerd.{name}" for name in unused],
        "grpc": {"address": _SOCKET},
        "plugins": {"io.containerd.grpc.v1.cri": interface},
    }
    file = _write(layout, "containerd.toml", "\n".join(_toml(settings)))
    return Daemon("containerd", [*enter, "containerd", "--config", file], layout.daemons)


async def containerd_answers(enter: Sequence[str]) -> bool:
    """Whether the container runtime takes requests."""
    try:
        await run([*enter, "ctr", "--address", _SOCKET, "version"])
    except SandboxError:
        return False
    return True


async def import_image(enter: Sequence[str], archive: Path) -> None:
    """Give the node one image.

    Args:
        enter: the command that enters the node.
        archive: a docker-archive tar that names its image.

    Raises:
        SandboxError: the runtime refuses the archive.
    """
    tool = [*enter, "ctr", "--address", _SOCKET, "--namespace", "k8s.io"]
    await run([*tool, "images", "import", archive], timeout_seconds=_IMPORT_SECONDS)


def kubelet(layout: Layout, enter: Sequence[str]) -> Daemon:
    """The node's agent."""
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "enforceNodeAllocatable": ["pods"],
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "address": layout.node_address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(_write(layout, "resolv.conf", "# no name server beyond the cluster\n")),
        "volumePluginDir": str(layout.node_dir / "volume-plugins"),
        # The disk is the developer's own: full, it stops the sandbox, but never for being nearly so.
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": _MAX_PODS,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 50,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }
    options = [
        f"--config={_write(layout, 'kubelet.yaml', yaml.safe_dump(settings))}",
        f"--kubeconfig={layout.kubeconfig(pki.KUBELET)}",
        f"--root-dir={layout.node_dir / 'kubelet'}",
        f"--hostname-override={layout.node_name}",
        f"--node-ip={layout.node_address}",
    ]
    return _program(layout, "kubelet", options, enter)


def kube_proxy(layout: Layout, enter: Sequence[str]) -> Daemon:
    """Service addresses."""
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig(pki.KUBE_PROXY))},
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": layout.node_name,
        # Connection tracking limits are the whole machine's.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "iptables": {"minSyncPeriod": "0s"},
    }
    file = _write(layout, "kube-proxy.yaml", yaml.safe_dump(settings))
    return _program(layout, "kube-proxy", [f"--config={file}"], enter)


def kube_router(layout: Layout, enter: Sequence[str]) -> Daemon:
    """Network policies, by the firewall part of kube-router alone."""
    options = [
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--enable-cni=false",
        f"--kubeconfig={layout.kubeconfig(pki.ADDONS)}",
        f"--hostname-override={layout.node_name}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--metrics-port=0",
        f"--health-port={_POLICIES_HEALTH_PORT}",
    ]
    return _program(layout, "kube-router", options, enter)


def policies_health(layout: Layout) -> str:
    """Where kube-router says that it has written its rules of late."""
    return f"http://{layout.node_address}:{_POLICIES_HEALTH_PORT}/healthz"


def local_path_provisioner(layout: Layout, enter: Sequence[str]) -> Daemon:
    """Volumes: folders below the state folder."""
    paths = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(layout.node_dir / "volumes")]}]
    helper = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 0},
            "containers": [
                {"name": "helper-pod", "image": STORAGE_HELPER_IMAGE, "imagePullPolicy": "IfNotPresent"}
            ],
        },
    }
    options = [
        "start",
        f"--config={_write(layout, 'local-path.json', json.dumps({'nodePathMap': paths}))}",
        f"--helper-pod-file={_write(layout, 'local-path-helper.yaml', yaml.safe_dump(helper))}",
        f"--helper-image={STORAGE_HELPER_IMAGE}",
        "--namespace=kube-system",
        "--service-account-name=local-path-helper",
        "--configmap-name=local-path-config",
        f"--kubeconfig={layout.kubeconfig(pki.ADDONS)}",
    ]
    return _program(layout, "local-path-provisioner", options, enter)


def ingress(layout: Layout, enter: Sequence[str]) -> Daemon:
    """Skipper on the node's port 80; it speaks from the node's own address, which policies let pass."""
    options = [
        "-kubernetes",
        f"-kubernetes-url={layout.api_url}",
        f"-kubernetes-token-file={layout.pki / 'ingress.token'}",
        f"-kubernetes-ingress-class={INGRESS_CLASS}",
        "-kubernetes-healthcheck=false",
        "-kubernetes-https-redirect=false",
        "-enable-kubernetes-endpointslices",
        f"-address={layout.node_address}:{_INGRESS_PORT}",
        "-support-listener=127.0.0.1:9911",
        # A new route is served this soon (milliseconds).
        "-source-poll-timeout=250",
        "-access-log-disabled",
    ]
    return Daemon(
        "skipper",
        [*enter, layout.config.binaries["skipper"], *options],
        layout.daemons,
        environment={"SSL_CERT_FILE": str(layout.pki / "ca.crt")},
    )


def forwarder(layout: Layout) -> Daemon:
    """Loopback's way to the ingress; runs on the host."""
    target = f"{layout.node_address}:{_INGRESS_PORT}"
    argv = [sys.executable, "-I", forwarder_program.__file__, str(layout.port("ingress")), target]
    return Daemon("forwarder", argv, layout.daemons)


def _program(layout: Layout, name: str, options: Sequence[str], enter: Sequence[str]) -> Daemon:
    return Daemon(name, [*enter, layout.config.binaries[name], *options], layout.daemons)


def _cni_settings(layout: Layout) -> Path:
    """Write how pods get an interface, and return the folder to look in."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": NODE_POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-addresses",
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    settings = {"cniVersion": "0.4.0", "name": "berth", "plugins": [bridge, portmap]}
    return _write(layout, "cni/10-berth.conflist", json.dumps(settings)).parent


def _write(layout: Layout, name: str, text: str) -> Path:
    file = layout.settings / name
    file.parent.mkdir(parents=True, exist_ok=True)
    # kube-proxy watches its own and ends when it is written, even with the same words
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file


def _toml(table: Mapping[str, object], path: str = "") -> Iterator[str]:
    """The lines of a TOML document; strings, booleans, numbers and lists of strings are TOML's as in JSON."""
    for key, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{key} = {json.dumps(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{path}.{json.dumps(key)}" if path else json.dumps(key)
            yield f"[{name}]"
            yield from _toml(value, name)
