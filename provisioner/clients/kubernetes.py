"""A thin client of the Kubernetes API: list, watch, apply, get, delete; JSON in, JSON out.

Configuration, TLS and authentication come from `kubernetes.aio`; its generated models are left out, which is
most of what a call through it costs.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import orjson
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.labels import MANAGER

_CALL_SECONDS: Final = 15
_CONNECT_SECONDS: Final = 5
_CONCURRENT_CALLS: Final = 32
_PAGE: Final = 500
_MAX_PAGES: Final = 2000
_WATCH_SECONDS: Final = 300
_WATCH_SILENCE_SECONDS: Final = (
    90  # bookmarks come about once a minute: longer silence means a dead connection
)
_MAX_EVENT_BYTES: Final = 8 << 20  # an object is at most about 1.5 MiB
_MAX_MESSAGE: Final = 1000
_METADATA_ONLY: Final = "application/json;as={};v=v1;g=meta.k8s.io"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind and where it is served; `metadata_only`: its content is never read (secrets)."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True
    metadata_only: bool = False

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """URL path of the collection, over all namespaces when `namespace` is None, or of one object."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{inside}/{self.plural}" + (f"/{name}" if name else "")


KINDS: Final[Mapping[str, ResourceKind]] = {
    kind.name: kind
    for kind in (
        ResourceKind("v1", "Namespace", "namespaces", namespaced=False),
        ResourceKind("v1", "ResourceQuota", "resourcequotas"),
        ResourceKind("v1", "LimitRange", "limitranges"),
        ResourceKind("v1", "ServiceAccount", "serviceaccounts"),
        ResourceKind("v1", "Secret", "secrets", metadata_only=True),
        ResourceKind("v1", "ConfigMap", "configmaps"),
        ResourceKind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        ResourceKind("v1", "Service", "services"),
        ResourceKind("v1", "Pod", "pods"),
        ResourceKind("apps/v1", "Deployment", "deployments"),
        ResourceKind("apps/v1", "StatefulSet", "statefulsets"),
        ResourceKind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        ResourceKind("networking.k8s.io/v1", "Ingress", "ingresses"),
    )
}


class NotFoundError(TemporaryError):
    """The object or its namespace is not there (any more): the next observation tells."""


class ConflictError(TemporaryError):
    """The object is not what the call presumed, such as another uid."""


class GoneError(TemporaryError):
    """The resource version to continue from is too old: list again."""


class QuotaRefusedError(TemporaryError):
    """A quota leaves no room now.

    It may be full of the very object that was asked for, whose creation by a process that died (or another
    that raced) is not observed yet: the next observation tells.
    """


class RefusedError(PermanentError):
    """The API server understood and refused: `reason` is its word, the message its sentence."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a list at one resource version, from which a watch may go on."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


class KubernetesClient:
    """One cluster, built with `connect`; calls beyond a bound wait for their turn (watches do not count)."""

    def __init__(self, configuration: Configuration, session: aiohttp.ClientSession) -> None:
        self._configuration = configuration
        self._session = session
        self._slots = asyncio.Semaphore(_CONCURRENT_CALLS)

    @staticmethod
    @contextlib.asynccontextmanager
    async def connect(kubeconfig: Path | None) -> AsyncIterator["KubernetesClient"]:
        """Open a client with `kubeconfig`, or with the pod's own service account when that is None.

        Raises:
            PermanentError: the configuration cannot be used.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # no types
            else:
                await load_kube_config(  # type: ignore[no-untyped-call] # the library ships no types
                    config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
                )
        except (ConfigException, OSError) as error:
            source = kubeconfig or "the pod's service account"
            raise PermanentError(
                f"no Kubernetes configuration from {source} ({error}): set BERTH_KUBECONFIG"
            ) from error
        # watches hold connections for minutes: they and the calls share the pool
        connector = aiohttp.TCPConnector(
            limit=_CONCURRENT_CALLS + len(KINDS), ssl=RESTClientObject(configuration).ssl_context
        )
        async with aiohttp.ClientSession(connector=connector) as session:
            yield KubernetesClient(configuration, session)

    async def list(self, kind: ResourceKind, *, selector: str = "", namespace: str | None = None) -> Listing:
        """Return all objects of `kind` that `selector` selects, page by page, at one resource version."""
        items: list[Object] = []
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        for _ in range(_MAX_PAGES):
            accept = _accept(kind, "PartialObjectMetadataList")
            page = await self._answer(_Call("GET", kind.path(namespace), accept, query))
            items += (_typed(kind, item) for item in page["items"] or ())
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return Listing(tuple(items), page["metadata"]["resourceVersion"])
        raise TemporaryError(f"more than {_MAX_PAGES * _PAGE} {kind.plural}: refusing to list on")

    @contextlib.asynccontextmanager
    async def watch(
        self, kind: ResourceKind, resource_version: str, *, selector: str = ""
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Open a watch from `resource_version`; entering means the server accepted it.

        The events end when the server ends the watch, which it does after some minutes.

        Raises:
            GoneError: the version is too old; list again.
            TemporaryError: connection lost, server busy, or silent for too long.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        } | ({"labelSelector": selector} if selector else {})
        limits = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_WATCH_SILENCE_SECONDS)
        call = _Call("GET", kind.path(), _accept(kind, "PartialObjectMetadata"), query)
        async with self._send(call, limits) as response:
            try:
                yield _events(kind, response)
            finally:
                # left early: a polite TLS goodbye would wait for a server that is busy sending
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Server-side apply `manifest`, taking over fields others own; returns the object as it is now.

        Raises:
            RefusedError: validation, admission or authorization said no.
        """
        kind = kind_of(manifest)
        metadata = manifest["metadata"]
        call = _Call(
            "PATCH",
            kind.path(metadata.get("namespace"), metadata["name"]),
            _accept(kind, "PartialObjectMetadata"),
            {"fieldManager": MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
            confidential=kind.metadata_only,
        )
        return _typed(kind, await self._answer(call))

    async def get(self, kind: ResourceKind, namespace: str | None, name: str) -> Object:
        """Return one object.

        Raises:
            NotFoundError: there is none.
        """
        accept = _accept(kind, "PartialObjectMetadata")
        return _typed(kind, await self._answer(_Call("GET", kind.path(namespace, name), accept)))

    async def delete(
        self,
        kind: ResourceKind,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        propagation: str = "Foreground",
    ) -> None:
        """Ask for the deletion of exactly the object with `uid`; one that is gone already is fine.

        Raises:
            ConflictError: another object has the name now.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        with contextlib.suppress(NotFoundError):
            accept = _accept(kind, "PartialObjectMetadata")
            await self._answer(_Call("DELETE", kind.path(namespace, name), accept, body=body))

    async def _answer(self, call: "_Call") -> Object:
        limits = aiohttp.ClientTimeout(total=_CALL_SECONDS, sock_connect=_CONNECT_SECONDS)
        async with self._slots, self._send(call, limits) as response:
            found: Object = orjson.loads(await response.read())
            return found

    @contextlib.asynccontextmanager
    async def _send(
        self, call: "_Call", limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": call.accept, "Content-Type": call.content_type} | await self._authorization()
        try:
            async with self._session.request(
                call.method,
                f"{self._configuration.host}{call.path}",
                params=call.query,
                data=orjson.dumps(call.body) if call.body is not None else None,
                headers=headers,
                timeout=limits,
                proxy=self._configuration.proxy,
                server_hostname=self._configuration.tls_server_name or None,
            ) as response:
                if response.status >= 400:
                    _raise(response, await response.content.read(_MAX_EVENT_BYTES), call)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise TemporaryError(f"the Kubernetes API did not answer {call}: {what}") from error

    async def _authorization(self) -> dict[str, str]:
        settings: Mapping[str, Any] = await self._configuration.auth_settings()
        return {str(setting["key"]): str(setting["value"]) for setting in settings.values()}


def kind_of(manifest: Mapping[str, Any]) -> ResourceKind:
    """Return the kind of `manifest`.

    Raises:
        PermanentError: this platform does not run that kind.
    """
    kind = KINDS.get(str(manifest.get("kind")))
    if kind is None or kind.api_version != manifest.get("apiVersion"):
        raise PermanentError(
            f"{manifest.get('apiVersion')} {manifest.get('kind')} is not a kind this platform runs"
            f" (it runs {', '.join(KINDS)}): take it out of the chart"
        )
    return kind


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    accept: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    content_type: str = "application/json"
    confidential: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


async def _events(kind: ResourceKind, response: aiohttp.ClientResponse) -> AsyncIterator[WatchEvent]:
    pending = bytearray()
    async for chunk in response.content.iter_any():
        pending += chunk
        *lines, pending = pending.split(b"\n")
        for line in lines:
            yield _event(kind, bytes(line))
        if len(pending) > _MAX_EVENT_BYTES:
            raise TemporaryError(f"a watch event of {kind.plural} exceeds {_MAX_EVENT_BYTES} bytes")


def _event(kind: ResourceKind, line: bytes) -> WatchEvent:
    event = orjson.loads(line)
    if event["type"] == "ERROR":
        _raise_status(event["object"].get("code", 500), event["object"], f"watch of {kind.plural}", None)
    return WatchEvent(event["type"], _typed(kind, event["object"]))


def _accept(kind: ResourceKind, metadata_form: str) -> str:
    return _METADATA_ONLY.format(metadata_form) if kind.metadata_only else "application/json"


def _typed(kind: ResourceKind, item: Object) -> Object:
    """Items of a list come without kind, and metadata-only ones with another kind."""
    return item | {"apiVersion": kind.api_version, "kind": kind.name}


def _raise(response: aiohttp.ClientResponse, body: bytes, call: _Call) -> NoReturn:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = {"message": body[:_MAX_MESSAGE].decode(errors="replace")}
    if call.confidential:
        status["message"] = "its words are withheld, for they may quote a secret"
    _raise_status(response.status, status, str(call), response.headers.get("Retry-After"))


def _raise_status(code: int, status: Mapping[str, Any], call: str, retry_after: str | None) -> NoReturn:
    message = str(status.get("message", ""))[:_MAX_MESSAGE]
    reason = str(status.get("reason", ""))
    causes = [cause.get("reason") for cause in (status.get("details") or {}).get("causes") or []]
    wait = timedelta(seconds=int(retry_after)) if retry_after and retry_after.isdecimal() else None
    match code:
        case 404:
            raise NotFoundError(f"{call}: {message}")
        case 409:
            raise ConflictError(f"{call}: {message}")
        case 410:
            raise GoneError(f"{call}: {message}")
        case 403 if "NamespaceTerminating" in causes:
            raise TemporaryError(f"{call}: {message}")
        case 403 if "exceeded quota" in message:
            raise QuotaRefusedError(f"Kubernetes refused {call}: {message}")
        case 401:
            # Credentials are the operator's to mend, once for all instances: parking each would hide that.
            raise TemporaryError(f"the Kubernetes API does not accept our credentials ({call}): renew them")
        case 400 | 403 | 405 | 406 | 413 | 415 | 422:
            raise RefusedError(f"Kubernetes refused {call}: {message}", reason)
        case _:
            raise TemporaryError(f"the Kubernetes API answered {code} to {call}: {message}", wait)
