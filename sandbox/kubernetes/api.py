"""The little the sandbox itself asks of its API server."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template
from typing import Any

import httpx
import yaml

from sandbox.processes import SandboxError

_MANIFESTS = Path(__file__).parent / "manifests"
_TIMEOUT_SECONDS = 30.0

# Where each kind lives; a namespaced one's path holds {namespace}.
_PATHS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "IngressClass": "/apis/networking.k8s.io/v1/ingressclasses",
    "Node": "/api/v1/nodes",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
}


def load_manifest(name: str, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """The documents of `manifests/<name>.yaml` with each $name replaced by its value.

    Raises:
        KeyError: the file wants a value that is not given.
    """
    text = (_MANIFESTS / f"{name}.yaml").read_text()
    return list(yaml.safe_load_all(Template(text).substitute(values)))


class KubernetesApi:
    """An API server, as one user; see `connect`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def is_ready(self) -> bool:
        """Whether the API server says it is ready; False as well when it does not answer."""
        try:
            return (await self._client.get("/readyz")).is_success
        except httpx.HTTPError:
            return False

    async def get(self, path: str) -> dict[str, Any] | None:
        """The object or list at `path`; None when there is none.

        Raises:
            SandboxError: the API server refuses, or does not answer.
        """
        return await self._request("GET", path)

    async def apply(self, document: Mapping[str, Any]) -> None:
        """Create or change one object by server-side apply, taking over fields of others.

        Raises:
            SandboxError: the API server refuses, or does not answer.
        """
        metadata = document["metadata"]
        path = _PATHS[document["kind"]].format(namespace=metadata.get("namespace", ""))
        await self._request(
            "PATCH", f"{path}/{metadata['name']}?fieldManager=berth-sandbox&force=true", document
        )

    async def _request(
        self, method: str, path: str, document: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        try:
            response = await self._client.request(
                method,
                path,
                content=None if document is None else json.dumps(document),
                headers={} if document is None else {"Content-Type": "application/apply-patch+yaml"},
            )
        except httpx.HTTPError as error:
            raise SandboxError(f"the API server does not answer ({error!r}): see its log") from error
        if response.status_code == httpx.codes.NOT_FOUND and method == "GET":
            return None
        if response.is_error:
            raise SandboxError(f"the API server refused {method} {path}: {response.text}")
        content: dict[str, Any] = response.json()
        return content


@asynccontextmanager
async def connect(url: str, authority: Path, certificate: Path, key: Path) -> AsyncIterator[KubernetesApi]:
    """Open the API server at `url`, which `authority` vouches for, as who `certificate` says.

    Raises:
        OSError: a file cannot be read.
    """
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    # The machine's proxy settings are not for an address of this machine.
    async with httpx.AsyncClient(
        base_url=url, verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False
    ) as client:
        yield KubernetesApi(client)
