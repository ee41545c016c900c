"""From an instance's spec to the values of its chart. Pure; no secret ever stands in them (invariant 6)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provisioner.contract.errors import PermanentError
from provisioner.contract.spec import Desired, InstanceSpec
from provisioner.labels import labels
from provisioner.quantity import cpu, size
from provisioner.secrets import SECRET_NAME

SERVICE_ACCOUNT: Final = "instance"


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """What all instances of this platform share.

    `apps_url` is a template with `{slug}`; `ingress_namespace` is where the ingress controller's pods run.
    An empty `ingress_class` or `storage_class` means the cluster's default.
    """

    apps_url: str
    ingress_class: str = ""
    ingress_namespace: str = "kube-system"
    storage_class: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    def url(self, spec: InstanceSpec) -> str:
        """Where people reach `spec`."""
        return self.apps_url.format(slug=spec.slug)


def values(spec: InstanceSpec, platform: PlatformSettings, secrets_fingerprint: str = "") -> dict[str, Any]:
    """Return the chart values of `spec`; `secrets_fingerprint` makes pods restart when a secret changes.

    Raises:
        PermanentError: the spec asks for what cannot run.
    """
    if spec.data_path and spec.size.replicas > 1:
        raise PermanentError(
            f"plan '{spec.plan}' of '{spec.product}' wants {spec.size.replicas} replicas of an app whose data"
            " volume one pod at a time can mount: set size.replicas to 1, or data_path to ''"
        )
    return {
        "labels": labels(spec),
        "image": spec.image,
        "port": spec.port,
        "host": spec.host,
        "ingress": {"className": platform.ingress_class},
        "workload": {
            "kind": "Deployment",
            "replicas": spec.size.replicas if spec.desired is Desired.RUNNING else 0,
        },
        "resources": {
            "requests": {"cpu": cpu(spec.size.cpu_request), "memory": size(spec.size.memory)},
            "limits": {"cpu": cpu(spec.size.cpu_limit), "memory": size(spec.size.memory)},
        },
        "persistence": {
            "enabled": bool(spec.data_path),
            "path": spec.data_path,
            "size": size(spec.size.storage),
            "storageClass": platform.storage_class,
        },
        "entitlement": {"path": spec.entitlement_file, "content": entitlements(spec)},
        "environment": dict(spec.environment),
        "secret": {
            "name": SECRET_NAME if spec.secret_names else "",
            "keys": sorted(spec.secret_names),
            "fingerprint": secrets_fingerprint if spec.secret_names else "",
        },
        "probe": {
            "path": spec.probe.path,
            "period": spec.probe.period,
            "timeout": spec.probe.timeout,
            "failureThreshold": spec.probe.failure_threshold,
            "startup": spec.probe.startup,
        },
        "serviceAccountName": SERVICE_ACCOUNT,
        "nodeSelector": dict(platform.node_selector),
        "tolerations": [dict(toleration) for toleration in platform.tolerations],
    }


def entitlements(spec: InstanceSpec) -> str:
    """Return the text of entitlements.json: what the customer bought. A limit of null means unlimited."""
    content = {
        "instance": spec.instance_id,
        "customer": spec.customer_id,
        "slug": spec.slug,
        "product": spec.product,
        "title": spec.title,
        "plan": spec.plan,
        "host": spec.host,
        "limits": dict(spec.limits),
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
