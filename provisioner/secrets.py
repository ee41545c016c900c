"""Per-instance secrets, derived and never stored by us: losing a cluster does not change them.

Pure. A derived secret goes into one Secret manifest, never into chart values (invariant 6).
"""

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from provisioner.contract.spec import InstanceSpec
from provisioner.labels import labels

VERSION: Final = 1
SECRET_NAME: Final = "instance-secrets"  # noqa: S105 - the object's name, not a secret
_MINIMUM_ROOT_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class RootKey:
    """The key all instance secrets come from; kept out of every repr."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) < _MINIMUM_ROOT_KEY:
            raise ValueError(
                f"BERTH_ROOT_KEY has {len(self.value)} bytes: it needs at least {_MINIMUM_ROOT_KEY}"
                " (make one with `openssl rand -hex 32`)"
            )


def derive(root: RootKey, instance_id: str, name: str, version: int = VERSION) -> str:
    """Return the secret `name` of an instance: 256 bits, URL-safe base 64 without padding.

    The same for the same arguments for ever; changing any argument gives an unrelated secret.
    """
    return urlsafe_b64encode(_digest(root, "secret", version, instance_id, name)).rstrip(b"=").decode()


def fingerprint(root: RootKey, spec: InstanceSpec) -> str:
    """Return what changes exactly when a secret of `spec` does, and tells nothing about any of them."""
    return _digest(root, "fingerprint", VERSION, spec.instance_id, *spec.secret_names).hex()[:16]


def secret_manifest(root: RootKey, spec: InstanceSpec) -> dict[str, Any] | None:
    """Return the Secret with every secret `spec` names, or None when it names none."""
    if not spec.secret_names:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_NAME, "namespace": spec.namespace, "labels": labels(spec)},
        "type": "Opaque",
        "data": {
            name: b64encode(derive(root, spec.instance_id, name).encode()).decode()
            for name in sorted(spec.secret_names)
        },
    }


def _digest(root: RootKey, purpose: str, version: int, *parts: str) -> bytes:
    # NUL cannot stand in an id or a name, so no two lists of parts join to the same message
    message = "\0".join(("berth", purpose, str(version), *parts))
    return hmac.new(root.value, message.encode(), hashlib.sha256).digest()
