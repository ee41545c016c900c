"""Charts to manifests, by the official Helm engine in this process; only this module knows `helm_python`."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml

from provisioner.contract.errors import PermanentError

Manifest = Mapping[str, Any]

_MAX_MANIFESTS: Final = 200

# Source: helm.sh/helm/v4 pkg/release/v1/util/kind_sorter.go, InstallOrder
_INSTALL_ORDER: Final = (
    "PriorityClass",
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "SecretList",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleList",
    "ClusterRoleBinding",
    "ClusterRoleBindingList",
    "Role",
    "RoleList",
    "RoleBinding",
    "RoleBindingList",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
)
_RANK: Final = {kind: rank for rank, kind in enumerate(_INSTALL_ORDER)}

# Charts describe what runs inside one namespace; these would reach beyond it.
_CLUSTER_SCOPED: Final = frozenset(
    {
        "APIService",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PodSecurityPolicy",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)


class Charts:
    """The charts of one folder: `<chart>/`, or `<chart>-<version>/` or `.tgz` where older ones are kept.

    A chart is loaded once and never again; loaded charts may be rendered from several threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[tuple[str, str], helm_python.Chart] = {}
        self._lock = threading.Lock()

    async def render(
        self, chart: str, version: str, values: Mapping[str, Any], *, release: str, namespace: str
    ) -> tuple[Manifest, ...]:
        """Return the chart's manifests in the order Helm installs them.

        Raises:
            PermanentError: no such chart or version, values its schema refuses (the message names the key),
                or a manifest this platform does not run.
        """
        return await asyncio.to_thread(
            self.render_now, chart, version, values, release=release, namespace=namespace
        )

    def render_now(
        self, chart: str, version: str, values: Mapping[str, Any], *, release: str, namespace: str
    ) -> tuple[Manifest, ...]:
        """`render`, blocking for some milliseconds."""
        try:
            files = self._load(chart, version).render(dict(values), name=release, namespace=namespace)
        except helm_python.HelmValuesError as error:
            problem = " ".join(str(error).split())
            raise PermanentError(f"chart '{chart}' {version} refuses its values: {problem}") from error
        except helm_python.HelmError as error:
            raise PermanentError(f"chart '{chart}' {version} cannot be rendered: {error}") from error
        manifests = [manifest for path, text in sorted(files.items()) for manifest in _documents(path, text)]
        if len(manifests) > _MAX_MANIFESTS:
            raise PermanentError(
                f"chart '{chart}' {version} renders {len(manifests)} manifests: {_MAX_MANIFESTS} is the limit"
            )
        return tuple(sorted(manifests, key=_install_rank))

    def _load(self, chart: str, version: str) -> helm_python.Chart:
        with self._lock:
            if (chart, version) not in self._loaded:
                self._loaded[chart, version] = self._find(chart, version)
            return self._loaded[chart, version]

    def _find(self, chart: str, version: str) -> helm_python.Chart:
        found = []
        for name in (f"{chart}-{version}", f"{chart}-{version}.tgz", chart):
            path = self._folder / name
            if not path.exists():
                continue
            try:
                loaded = helm_python.Chart.load(path)
            except helm_python.HelmError as error:
                raise PermanentError(f"the chart at {path} cannot be loaded: {error}") from error
            if loaded.version == version:
                return loaded
            found.append(loaded.version)
        raise PermanentError(
            f"chart '{chart}' {version} is not in {self._folder} (found: {', '.join(found) or 'none'}):"
            f" add it there as {chart}-{version}.tgz"
        )


def _documents(path: str, text: str) -> Iterator[Manifest]:
    if Path(path).name.startswith("_") or Path(path).suffix not in {".yaml", ".yml", ".json"}:
        return
    try:
        documents = [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]
    except yaml.YAMLError as error:
        raise PermanentError(f"{path} does not render to YAML: {' '.join(str(error).split())}") from error
    for document in documents:
        _check(path, document)
        yield document


def _check(path: str, document: object) -> None:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(metadata, dict) or not metadata.get("name"):
        raise PermanentError(f"{path} renders something without kind and metadata.name: fix the template")
    kind = f"{document.get('kind')} '{metadata['name']}'"
    if "helm.sh/hook" in (metadata.get("annotations") or {}):
        raise PermanentError(
            f"{path} renders {kind} as a Helm hook: hooks are not run, make it a plain object"
        )
    if document.get("kind") in _CLUSTER_SCOPED:
        raise PermanentError(f"{path} renders {kind}, which belongs to the whole cluster: remove it")


def _install_rank(manifest: Manifest) -> tuple[int, str]:
    kind = str(manifest["kind"])
    return (_RANK[kind], "") if kind in _RANK else (len(_RANK), kind)
