"""A model of what the API server and its controllers make of applied manifests: enough to plan against."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioner.observed import Observed, Ref, ref
from provisioner.plan import Apply, Step


@dataclass
class ClusterModel:
    """Objects by ref; every apply merges, every new object gets a uid."""

    objects: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    uids: int = 0

    @property
    def observed(self) -> Observed:
        return Observed(copy.deepcopy(self.objects))

    def run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Apply):
                self.apply(step.manifest)
            else:
                found = self.objects.pop(step.ref)
                assert found["metadata"]["uid"] == step.uid

    def apply(self, manifest: Mapping[str, Any]) -> None:
        known = self.objects.get(ref(manifest))
        if known is None:
            self.uids += 1
            known = self.objects[ref(manifest)] = {"metadata": {"uid": f"u{self.uids}"}}
        _merge(known, without_empty(copy.deepcopy(dict(manifest))))
        if manifest["kind"] == "Secret":
            keys: dict[str, object] = {f"f:{key}": {} for key in manifest["data"]}
            del known["data"]
            known["metadata"]["managedFields"] = [{"manager": "berth", "fieldsV1": {"f:data": keys}}]

    def count_quotas(self) -> None:
        """What kube-controller-manager does some time after a quota was written."""
        for found in self.objects.values():
            if found["kind"] == "ResourceQuota":
                hard = found["spec"]["hard"]
                found["status"] = {"hard": dict(hard), "used": dict.fromkeys(hard, "0")}


def without_empty(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Drop what the API server drops: empty lists and nulls."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item is not None and item != []}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


def _merge(into: dict[str, Any], manifest: Mapping[str, Any]) -> None:
    for key, value in manifest.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
