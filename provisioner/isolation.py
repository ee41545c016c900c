"""What stands around an instance before its first pod: namespace, quota, limits, network policy. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from provisioner.contract.spec import InstanceSpec
from provisioner.labels import labels
from provisioner.quantity import cpu, size
from provisioner.values import SERVICE_ACCOUNT, PlatformSettings

# Pods beside the steady ones: one that a rolling update surges, one that is still terminating.
_SPARE_PODS: Final = 2

_PRIVATE_IPV4: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",  # includes the cloud's metadata service
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)
_PRIVATE_IPV6: Final = ("::/127", "64:ff9b::/96", "fc00::/7", "fe80::/10", "ff00::/8")


def namespace(spec: InstanceSpec) -> dict[str, Any]:
    """Return the Namespace of `spec`, which admits only pods of the `restricted` standard."""
    security = {
        f"pod-security.kubernetes.io/{mode}{part}": value
        for mode in ("enforce", "warn")
        for part, value in (("", "restricted"), ("-version", "latest"))
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": spec.namespace, "labels": labels(spec) | security},
    }


def isolation(spec: InstanceSpec, platform: PlatformSettings) -> tuple[dict[str, Any], ...]:
    """Return what must exist in the namespace of `spec` before its first pod (invariant 4)."""
    return (
        _object(spec, "v1", "ResourceQuota", "tier", spec_={"hard": _quota(spec)}),
        _object(spec, "v1", "LimitRange", "tier", spec_={"limits": _limits(spec)}),
        _object(spec, "v1", "ServiceAccount", SERVICE_ACCOUNT, automountServiceAccountToken=False),
        *_policies(spec, platform),
    )


def _object(
    spec: InstanceSpec,
    api_version: str,
    kind: str,
    name: str,
    *,
    spec_: dict[str, Any] | None = None,
    **fields: object,
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": spec.namespace, "labels": labels(spec)}
    body = {"spec": spec_} if spec_ is not None else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields, **body}


def _quota(spec: InstanceSpec) -> dict[str, str]:
    tier = spec.size
    pods = tier.replicas + _SPARE_PODS
    return {
        "pods": str(pods),
        "requests.cpu": cpu(tier.cpu_request * pods),
        "limits.cpu": cpu(tier.cpu_limit * pods),
        "requests.memory": size(tier.memory * pods),
        "limits.memory": size(tier.memory * pods),
        "requests.storage": size(tier.storage if spec.data_path else 0),
        "persistentvolumeclaims": "1" if spec.data_path else "0",
        "services": "1",
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }


def _limits(spec: InstanceSpec) -> list[dict[str, Any]]:
    tier = spec.size
    most = {"cpu": cpu(tier.cpu_limit), "memory": size(tier.memory)}
    request = {"cpu": cpu(tier.cpu_request), "memory": size(tier.memory)}
    return [{"type": "Container", "default": most, "defaultRequest": request, "max": most}]


def _policies(spec: InstanceSpec, platform: PlatformSettings) -> Iterable[dict[str, Any]]:
    controller = {"matchLabels": {"kubernetes.io/metadata.name": platform.ingress_namespace}}
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    internet = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_PRIVATE_IPV4)}},
        {"ipBlock": {"cidr": "::/0", "except": list(_PRIVATE_IPV6)}},
    ]
    return (
        _policy(spec, "default-deny", policyTypes=["Ingress", "Egress"]),
        # To any address: the resolver may be a pod, the node itself or a link-local cache. Another tenant's
        # pod stays closed to this one, because that one's own policy lets only the ingress controller in.
        _policy(spec, "allow-dns", policyTypes=["Egress"], egress=[{"ports": dns}]),
        _policy(
            spec,
            "allow-ingress",
            policyTypes=["Ingress"],
            ingress=[
                {
                    "from": [{"namespaceSelector": controller}],
                    "ports": [{"protocol": "TCP", "port": spec.port}],
                }
            ],
        ),
        _policy(spec, "allow-internet", policyTypes=["Egress"], egress=[{"to": internet}]),
    )


def _policy(spec: InstanceSpec, name: str, **rules: object) -> dict[str, Any]:
    return _object(spec, "networking.k8s.io/v1", "NetworkPolicy", name, spec_={"podSelector": {}, **rules})
