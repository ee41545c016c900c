"""The control plane: etcd, the API server, the controllers and the scheduler."""

from collections.abc import Sequence

from sandbox.kubernetes import pki
from sandbox.kubernetes.layout import SERVICE_RANGE, Layout
from sandbox.processes import Daemon

API_SERVER = "kube-apiserver"

# Fifty namespaces at once would otherwise queue behind the clients' own throttles (20 requests a second).
_CLIENT_RATE = ["--kube-api-qps=500", "--kube-api-burst=1000"]


def etcd(layout: Layout, enter: Sequence[str] = ()) -> Daemon:
    """The store. It never waits for the disk: a sandbox's data need not outlive a power cut.

    Args:
        layout: the cluster.
        enter: the command that enters the node's namespaces, empty for the host's own.
    """
    client = f"http://127.0.0.1:{layout.port('etcd')}"
    peer = f"http://127.0.0.1:{layout.port('etcd-peer')}"
    options = [
        "--name=sandbox",
        f"--data-dir={layout.state_dir / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=sandbox={peer}",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=5m",
        f"--quota-backend-bytes={2 * 1024**3}",
        "--log-level=warn",
    ]
    return _daemon(layout, "etcd", options, enter)


def api_server(layout: Layout, enter: Sequence[str] = ()) -> Daemon:
    """The API server; Pod Security admission is among its built-in defaults."""
    keys = layout.pki
    options = [
        f"--etcd-servers=http://127.0.0.1:{layout.port('etcd')}",
        f"--bind-address={layout.node_address}",
        f"--advertise-address={layout.advertised_address}",
        f"--secure-port={layout.port('api')}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        f"--tls-cert-file={keys / 'api-server.crt'}",
        f"--tls-private-key-file={keys / 'api-server.key'}",
        f"--client-ca-file={keys / 'ca.crt'}",
        f"--token-auth-file={keys / 'tokens.csv'}",
        f"--cert-dir={keys / 'generated'}",
        f"--service-account-key-file={keys / 'service-account.pub'}",
        f"--service-account-signing-key-file={keys / 'service-account.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--kubelet-client-certificate={keys / 'kubelet-client.crt'}",
        f"--kubelet-client-key={keys / 'kubelet-client.key'}",
        f"--kubelet-certificate-authority={keys / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={keys / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={keys / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={keys / 'front-proxy-client.key'}",
    ]
    return _daemon(layout, API_SERVER, options, enter)


def controller_manager(layout: Layout, enter: Sequence[str] = ()) -> Daemon:
    """The controllers, wide enough that fifty namespaces come up side by side."""
    keys = layout.pki
    options = [
        *_served_on(layout, "controller-manager", pki.CONTROLLER_MANAGER),
        *_CLIENT_RATE,
        # a stopped API server or a busy machine must not look like a dead node
        "--node-monitor-grace-period=5m",
        # a creation cut off half-way (its caller was killed) stays counted until the next full count
        "--resource-quota-sync-period=10s",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-statefulset-syncs=20",
        "--concurrent-endpoint-syncs=20",
        "--concurrent-service-endpoint-syncs=20",
        "--concurrent-namespace-syncs=30",
        "--concurrent-resource-quota-syncs=20",
        "--concurrent-serviceaccount-token-syncs=20",
        "--concurrent-gc-syncs=30",
        f"--root-ca-file={keys / 'ca.crt'}",
        f"--service-account-private-key-file={keys / 'service-account.key'}",
        "--use-service-account-credentials=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--requestheader-client-ca-file={keys / 'front-proxy-ca.crt'}",
        # Its default is outside the state folder, and it would be created.
        f"--flex-volume-plugin-dir={layout.state_dir / 'volume-plugins'}",
        "--profiling=false",
    ]
    return _daemon(layout, "kube-controller-manager", options, enter)


def scheduler(layout: Layout, enter: Sequence[str] = ()) -> Daemon:
    """The scheduler."""
    options = [*_served_on(layout, "scheduler", pki.SCHEDULER), *_CLIENT_RATE, "--profiling=false"]
    return _daemon(layout, "kube-scheduler", options, enter)


def _served_on(layout: Layout, use: str, user: str) -> list[str]:
    kubeconfig = layout.kubeconfig(user)
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.port(use)}",
        f"--cert-dir={layout.pki / 'generated' / use}",
    ]


def _daemon(layout: Layout, program: str, options: Sequence[str], enter: Sequence[str]) -> Daemon:
    return Daemon(program, [*enter, layout.config.binaries[program], *options], layout.daemons)
