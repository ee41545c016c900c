"""Which programs the sandbox runs, at which versions, and where each comes from."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.releases import Release

_SANDBOX = Path(__file__).parent
_SOURCE_SUFFIXES = {".go", ".html", ".mod", ".sum"}

_KUBERNETES = "v1.36.3"
_KUBERNETES_RELEASE = "https://dl.k8s.io/release/{version}/bin/linux/{arch}/"
_ETCD_RELEASE = "https://github.com/etcd-io/etcd/releases/download/{version}/"
_HELM_RELEASE = "https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz"


@dataclass(frozen=True)
class Binary:
    """A program, and where it comes from.

    Attributes:
        name: the program's file name.
        version: of the upstream project; for our own, any word (their cache follows their source).
        module: the folder below `sandbox/` with the go.mod that pins it.
        package: import path of its main package.
        expected_seconds: a build from nothing on two cores, after the modules before it in `BINARIES`.
        ldflags: tell the program its version.
        release: where it can be downloaded.
        version_args: make an installed one print its version; None when an installed one is of no use.
        own: its main package is ours, so that a change of it makes a new program of the same version.
    """

    name: str
    version: str
    module: str
    package: str
    expected_seconds: float
    ldflags: tuple[str, ...] = ()
    release: Release | None = None
    version_args: tuple[str, ...] | None = None
    own: bool = False

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return _SANDBOX / self.module

    @property
    def file_name(self) -> str:
        """Its name in the cache: differs whenever the program may."""
        suffix = f"-{_fingerprint(self.folder)}" if self.own else ""
        return f"{self.name}-{self.version}{suffix}"


def _kubernetes(name: str, expected_seconds: float) -> Binary:
    url = f"{_KUBERNETES_RELEASE}{name}"
    return Binary(
        name=name,
        version=_KUBERNETES,
        module="go/kube",
        package=f"k8s.io/kubernetes/cmd/{name}",
        expected_seconds=expected_seconds,
        ldflags=(f"-X k8s.io/component-base/version.gitVersion={_KUBERNETES}",),
        release=Release(url, checksums=f"{url}.sha256"),
        version_args=("--version",),
    )


def _declared() -> Iterator[Binary]:
    yield _kubernetes("kube-apiserver", 280)
    yield _kubernetes("kube-controller-manager", 70)
    yield _kubernetes("kube-scheduler", 7)
    yield _kubernetes("kubelet", 20)
    yield _kubernetes("kube-proxy", 8)
    yield Binary(
        name="etcd",
        version="v3.6.8",
        module="go/kube",
        package="go.etcd.io/etcd/server/v3",
        expected_seconds=15,
        release=Release(
            _ETCD_RELEASE + "etcd-{version}-linux-{arch}.tar.gz",
            checksums=_ETCD_RELEASE + "SHA256SUMS",
            member="etcd-{version}-linux-{arch}/etcd",
        ),
        version_args=("--version",),
    )
    yield Binary(
        name="coredns",
        version="v1.15.0",
        module="go/addons",
        package="berth.local/sandbox/addons/coredns",
        expected_seconds=120,
        version_args=("-version",),
        own=True,
    )
    yield Binary(
        name="kwok",
        version="v0.8.0",
        module="go/addons",
        package="sigs.k8s.io/kwok/cmd/kwok",
        expected_seconds=40,
        version_args=("--version",),
    )
    yield Binary(
        name="local-path-provisioner",
        version="v0.0.30",
        module="go/addons",
        package="github.com/rancher/local-path-provisioner",
        expected_seconds=60,
        ldflags=("-X main.VERSION=v0.0.30",),
        version_args=("--version",),
    )
    yield Binary(
        name="skipper",
        version="v0.22.0",
        module="go/addons",
        package="github.com/zalando/skipper/cmd/skipper",
        expected_seconds=40,
        ldflags=("-X main.version=v0.22.0",),
        version_args=("-version",),
    )
    yield Binary(
        name="kube-router",
        version="v2.1.0",
        module="go/addons",
        package="github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
        expected_seconds=45,
        ldflags=("-X github.com/cloudnativelabs/kube-router/v2/pkg/version.Version=v2.1.0",),
        version_args=("--version",),
    )
    yield Binary(
        name="helm",
        version="v4.3.1",
        module="go/helm",
        package="helm.sh/helm/v4/cmd/helm",
        expected_seconds=150,
        ldflags=("-X helm.sh/helm/v4/internal/version.version=v4.3.1",),
        release=Release(_HELM_RELEASE, checksums=f"{_HELM_RELEASE}.sha256sum", member="linux-{arch}/helm"),
        version_args=("version", "--short"),
    )
    yield Binary(
        name="stripe-mock",
        version="v0.203.0",
        module="go/stripe-mock",
        package="github.com/stripe/stripe-mock",
        expected_seconds=15,
    )
    yield Binary("load", "1", "go/load", "berth.local/sandbox/load", expected_seconds=2, own=True)
    yield Binary("pause", "1", "go/pause", "berth.local/sandbox/pause", expected_seconds=2, own=True)
    yield Binary("sample", "1", "sample_app", "berth.local/sandbox/sample", expected_seconds=3, own=True)


BINARIES: Mapping[str, Binary] = {binary.name: binary for binary in _declared()}
"""Every program by name, in the order in which they are built."""


def _fingerprint(folder: Path) -> str:
    """Changes when the source in a folder does."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in _SOURCE_SUFFIXES and not file.name.endswith("_test.go"):
            digest.update(f"{file.relative_to(folder)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
