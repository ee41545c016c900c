"""Objects and pods on a real API server, for tests of what a cluster does."""

import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx

from sandbox.kubernetes.cluster import ClusterInfo

NOBODY = 65534
IMAGE = "berth.local/busybox:1"
_SECONDS = 60
_PATHS = {
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
}

Document = dict[str, Any]


def open_api(info: ClusterInfo, user: str = "admin") -> httpx.Client:
    """The cluster's API as one of its users."""
    keys = info.kubeconfig.parent
    context = ssl.create_default_context(cafile=keys / "ca.crt")
    context.load_cert_chain(keys / f"{user}.crt", keys / f"{user}.key")
    return httpx.Client(base_url=info.api_url, verify=context, timeout=_SECONDS + 10, trust_env=False)


class Tenant:
    """One namespace, made by and gone with a `with` block."""

    def __init__(self, info: ClusterInfo, namespace: str) -> None:
        self._api = open_api(info)
        self.namespace = namespace

    def __enter__(self) -> Self:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": self.namespace, "labels": labels}
        self._post("/api/v1/namespaces", {"metadata": metadata})
        # A pod is refused until its service account is there.
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        self._await(accounts, "default", lambda event, _: event == "ADDED")
        return self

    def __exit__(self, *_: object) -> None:
        self._api.delete(f"/api/v1/namespaces/{self.namespace}").raise_for_status()
        self._await("/api/v1/namespaces", self.namespace, lambda event, _: event == "DELETED")
        self._api.close()

    def create(self, *documents: Document) -> None:
        """Create objects in the namespace; httpx.HTTPStatusError, with its reason, when one is refused."""
        for document in documents:
            self._post(_PATHS[document["kind"]].format(self.namespace), document)

    def get(self, path: str) -> Document:
        """An object or list, by its path."""
        content: Document = self._api.get(path).raise_for_status().json()
        return content

    def find(self, kind: str, name: str) -> Document:
        """An object of the namespace."""
        return self.get(f"{_PATHS[kind].format(self.namespace)}/{name}")

    def run(self, name: str, command: str) -> tuple[str, str]:
        """Run a shell command in a pod of its own to its end; its phase and what it printed."""
        self.create(pod(name, command))
        phase = self.await_phase(name, "Succeeded", "Failed")
        return phase, self.log(name)

    def log(self, name: str) -> str:
        """What a pod has printed."""
        return self._api.get(f"{_PATHS['Pod'].format(self.namespace)}/{name}/log").raise_for_status().text

    def await_ready(self, name: str) -> Document:
        """Wait until the pod is ready, and return its status."""
        return self._await_pod(name, _is_ready)

    def await_phase(self, name: str, *phases: str) -> str:
        """Wait until the pod is in one of the phases, and return which."""
        return str(self._await_pod(name, lambda status: status["phase"] in phases)["phase"])

    def _await_pod(self, name: str, wanted: Callable[[Document], bool]) -> Document:
        path = _PATHS["Pod"].format(self.namespace)
        status: Document = self._await(path, name, lambda _, item: wanted(item["status"]))["status"]
        return status

    def _post(self, path: str, document: Document) -> None:
        response = self._api.post(path, json=document)
        if response.is_error:
            raise httpx.HTTPStatusError(response.text, request=response.request, response=response)

    def _await(self, path: str, name: str, wanted: Callable[[str, Document], bool]) -> Document:
        last: Document = {}
        for event, item in self._events(path, name):
            if wanted(event, item):
                return item
            last = item
        raise AssertionError(f"{name} did not come to it within {_SECONDS} s: {last.get('status')}")

    def _events(self, path: str, name: str) -> Iterator[tuple[str, Document]]:
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(_SECONDS)}
        with self._api.stream("GET", path, params=query) as response:
            for line in response.raise_for_status().iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]


def _is_ready(status: Document) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))


def pod(name: str, command: str, container: Document | None = None, spec: Document | None = None) -> Document:
    """A pod that Pod Security's restricted level admits, running a shell command once."""
    main = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", command],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **(container or {}),
    }
    user = {"runAsNonRoot": True, "runAsUser": NOBODY, "fsGroup": NOBODY}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [main],
            **(spec or {}),
        },
    }


def claim(name: str, size: str, storage_class: str | None = None) -> Document:
    """A claim for a volume of the named class, or of the cluster's default one."""
    chosen = {} if storage_class is None else {"storageClassName": storage_class}
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {**wanted, **chosen},
    }


def mounted(name: str, path: str) -> tuple[Document, Document]:
    """What a container and a pod say to have the claim `name` at `path`."""
    volume = {"name": name, "persistentVolumeClaim": {"claimName": name}}
    return {"volumeMounts": [{"name": name, "mountPath": path}]}, {"volumes": [volume]}


def policy(name: str, types: list[str], egress: list[Document] | None = None) -> Document:
    """A policy on every pod of the namespace that allows `egress` and otherwise nothing of `types`."""
    allowed = {} if egress is None else {"egress": egress}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {}, "policyTypes": types, **allowed},
    }


def web_pod() -> Document:
    """A pod `web` that serves "hello" on port 8080."""
    command = "echo hello > /www/index.html && exec httpd -f -p 8080 -h /www"
    container = {
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "www", "mountPath": "/www"}],
    }
    return pod("web", command, container, {"volumes": [{"name": "www", "emptyDir": {}}]})


def web_service() -> Document:
    """A service for `web_pod`."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


def web_ingress(host: str, ingress_class: str) -> Document:
    """A way from outside to `web_service` for one host."""
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {"ingressClassName": ingress_class, "rules": [{"host": host, "http": {"paths": paths}}]},
    }


def names_allowed() -> Document:
    """An egress rule that lets a tenant ask the cluster's name servers."""
    servers = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return {"to": [servers], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
