"""From a spec to everything its instance is made of."""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import orjson

from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import kind_of
from provisioner.contract.errors import PermanentError
from provisioner.contract.spec import SPEC, InstanceSpec
from provisioner.isolation import isolation, namespace
from provisioner.labels import APPLIED, labels
from provisioner.plan import Manifest, Target
from provisioner.secrets import RootKey, fingerprint, secret_manifest
from provisioner.values import PlatformSettings, values

_KEPT: Final = 2000


def default_charts_folder() -> Path:
    """The charts that come with this package."""
    return Path(__file__).resolve().parent.parent / "helm"


class Renderer:
    """Makes targets, and remembers the last ones: a pass that changes nothing renders nothing."""

    def __init__(self, charts: Charts, platform: PlatformSettings, root: RootKey) -> None:
        self._charts = charts
        self._platform = platform
        self._root = root
        self._targets: OrderedDict[bytes, Target] = OrderedDict()

    async def target(self, spec: InstanceSpec) -> Target:
        """Return all manifests of `spec`.

        Raises:
            PermanentError: the spec or its chart cannot be rendered or run.
        """
        key = hashlib.sha256(SPEC.dump_json(spec)).digest()
        known = self._targets.get(key)
        if known is None:
            known = await self._render(spec)
            self._targets[key] = known
        self._targets.move_to_end(key)
        if len(self._targets) > _KEPT:
            self._targets.popitem(last=False)
        return known

    async def _render(self, spec: InstanceSpec) -> Target:
        rendered = await self._charts.render(
            spec.chart,
            spec.chart_version,
            values(spec, self._platform, fingerprint(self._root, spec)),
            release=spec.product,
            namespace=spec.namespace,
        )
        secret = secret_manifest(self._root, spec)
        return Target(
            namespace=sealed(namespace(spec)),
            isolation=tuple(sealed(manifest) for manifest in isolation(spec, self._platform)),
            secrets=(sealed(secret, self._root),) if secret else (),
            workload=tuple(sealed(placed(spec, manifest)) for manifest in rendered),
        )


def placed(spec: InstanceSpec, manifest: Manifest) -> dict[str, Any]:
    """Return a rendered manifest in the instance's namespace, with the labels it is found by.

    Raises:
        PermanentError: it belongs elsewhere, or is of a kind this platform does not run.
    """
    kind_of(manifest)
    metadata = manifest["metadata"]
    if metadata.get("namespace", spec.namespace) != spec.namespace:
        raise PermanentError(
            f"chart '{spec.chart}' puts {manifest['kind']} '{metadata['name']}' into namespace"
            f" '{metadata['namespace']}': take the namespace out of the template"
        )
    own = {"namespace": spec.namespace, "labels": {**(metadata.get("labels") or {}), **labels(spec)}}
    return {**manifest, "metadata": {**metadata, **own}}


def sealed(manifest: Manifest, root: RootKey | None = None) -> dict[str, Any]:
    """Return `manifest` annotated with its own hash; with a key, so that the hash says nothing of secrets."""
    text = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)
    key = root.value[:64] if root else b""
    digest = hashlib.blake2b(text, key=key, digest_size=12, person=b"berth-applied").hexdigest()
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
