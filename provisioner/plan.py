"""What to do next about an instance. Pure: no I/O, no clock, no randomness; same input, same plan."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from provisioner.labels import APPLIED, MANAGER
from provisioner.observed import Observed, Ref, ref
from provisioner.quantity import amount

Manifest = Mapping[str, Any]

_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet"})

# What may go when it is no longer rendered. Claims, secrets and namespaces hold what cannot be made again
# (invariant 7); quotas and the like are only ever replaced.
_PRUNABLE: Final = frozenset({"ConfigMap", "Service", "Ingress", "NetworkPolicy"}) | _WORKLOADS

_MERGE_KEYS: Final = ("name", "mountPath", "containerPort", "port", "topologyKey", "type")
_QUANTITIES: Final = frozenset(
    {"requests", "limits", "hard", "default", "defaultRequest", "max", "min", "sizeLimit"}
)
# The server drops most values of false; these it keeps, and their absence means true.
_MEANT_FALSE: Final = frozenset(
    {"allowPrivilegeEscalation", "automountServiceAccountToken", "enableServiceLinks"}
)


class Stage(IntEnum):
    """Steps of a stage may run together; a stage begins when the one before it is done."""

    NAMESPACE = 1
    ISOLATION = 2
    SECRETS = 3
    RETIRE = 4
    RESOURCES = 5
    WORKLOAD = 6
    PRUNE = 7


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply `manifest`, because it is missing, changed or drifted.

    The manifest may be a Secret: neither repr nor str shows it (invariant 6).
    """

    stage: Stage
    manifest: Manifest = field(repr=False)
    reason: str

    def __str__(self) -> str:
        return f"apply {ref(self.manifest)} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly the object with this uid."""

    stage: Stage
    ref: Ref
    uid: str
    reason: str

    def __str__(self) -> str:
        return f"delete {self.ref} ({self.reason})"


Step = Apply | Delete


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing after `stage` can run before the cluster moved; `reason` is a word, `message` a sentence."""

    stage: Stage
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Target:
    """Everything an instance is made of, each manifest annotated with its own hash."""

    namespace: Manifest
    isolation: tuple[Manifest, ...]
    secrets: tuple[Manifest, ...] = field(repr=False)
    workload: tuple[Manifest, ...]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All of it."""
        return (self.namespace, *self.isolation, *self.secrets, *self.workload)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and what stands in the way of further ones."""

    steps: tuple[Step, ...] = ()
    wait: Wait | None = None

    @property
    def settled(self) -> bool:
        """Whether everything is as it should be."""
        return not self.steps and self.wait is None


def plan(target: Target, observed: Observed) -> Plan:
    """The steps that can run now to bring `observed` to `target`, in order.

    No claim and no workload is in it before `observed` shows the whole isolation in force (invariant 4).
    """
    space = observed.get(ref(target.namespace))
    if space is not None and "deletionTimestamp" in space["metadata"]:
        message = "the namespace is being deleted from outside; it is made again once it is gone"
        return Plan(wait=Wait(Stage.NAMESPACE, "NamespaceTerminating", message))
    around = (
        *_applies(Stage.NAMESPACE, [target.namespace], observed),
        *_applies(Stage.ISOLATION, target.isolation, observed),
    )
    steps: tuple[Step, ...] = (*around, *_applies(Stage.SECRETS, target.secrets, observed))
    if around:
        return Plan(steps, Wait(Stage.ISOLATION, "IsolationPending", "quota and policies are being set up"))
    if not all(_quota_counts(quota, observed) for quota in target.isolation):
        return Plan(steps, Wait(Stage.ISOLATION, "QuotaPending", "the quota is being counted"))
    return _plan_inside(target, observed, steps)


def _plan_inside(target: Target, observed: Observed, steps: tuple[Step, ...]) -> Plan:
    stale = tuple(_stale(target, observed))
    # Two workloads must not share the data volume: the old one goes, with its pods, before the new one comes.
    retiring = [item for item in stale if item["kind"] in _WORKLOADS]
    if retiring:
        names = ", ".join(str(ref(item)) for item in retiring)
        message = f"waiting for the former {names} to stop"
        return Plan((*steps, *_deletes(Stage.RETIRE, retiring)), Wait(Stage.RETIRE, "Retiring", message))
    resources = [keep_storage(item, observed) for item in target.workload if item["kind"] not in _WORKLOADS]
    workloads = [item for item in target.workload if item["kind"] in _WORKLOADS]
    return Plan(
        (
            *steps,
            *_applies(Stage.RESOURCES, resources, observed),
            *_applies(Stage.WORKLOAD, workloads, observed),
            *_deletes(Stage.PRUNE, stale),
        )
    )


def keep_storage(manifest: Manifest, observed: Observed) -> Manifest:
    """Return `manifest`, a claim at least as large as it is already: storage never shrinks (invariant 12)."""
    known = observed.get(ref(manifest))
    if manifest["kind"] != "PersistentVolumeClaim" or known is None:
        return manifest
    wanted = manifest["spec"]["resources"]["requests"]["storage"]
    has = known["spec"]["resources"]["requests"]["storage"]
    if (amount(has) or 0) <= (amount(wanted) or 0):
        return manifest
    resources = {**manifest["spec"]["resources"], "requests": {"storage": has}}
    return {**manifest, "spec": {**manifest["spec"], "resources": resources}}


def difference(manifest: Manifest, observed: Observed) -> str | None:
    """Return why `manifest` has to be applied ("missing", "changed", "drifted"), None when it matches."""
    known = observed.get(ref(manifest))
    if known is None:
        return "missing"
    if (known["metadata"].get("annotations") or {}).get(APPLIED) != manifest["metadata"]["annotations"][
        APPLIED
    ]:
        return "changed"
    if manifest["kind"] == "Secret":
        matches = contains(known["metadata"], manifest["metadata"]) and _owned(known, manifest["data"])
    else:
        matches = contains(known, manifest)
    return None if matches else "drifted"


def contains(found: object, wanted: object, *, quantities: bool = False) -> bool:
    """Whether `found` says everything `wanted` says; what the server adds by itself does not matter.

    Lists of objects that carry a merge key are compared by it, others item by item. The server drops empty
    values, so an empty one matches a missing one.
    """
    if found == wanted:
        return True
    match wanted:
        case dict():
            return isinstance(found, dict) and all(
                contains(found[key], value, quantities=quantities or key in _QUANTITIES)
                if key in found
                else not value and key not in _MEANT_FALSE
                for key, value in wanted.items()
            )
        case list():
            return isinstance(found, list) and _contains_list(found, wanted, quantities=quantities)
        case str() | int() | float() if quantities and isinstance(found, str | int | float):
            return amount(found) is not None and amount(found) == amount(wanted)
        case _:
            return False


def _contains_list(found: list[Any], wanted: list[Any], *, quantities: bool) -> bool:
    key = _merge_key(wanted)
    if key is None:
        return len(found) == len(wanted) and all(
            contains(has, wants, quantities=quantities) for has, wants in zip(found, wanted, strict=True)
        )
    by_key = {item[key]: item for item in found if isinstance(item, dict) and key in item}
    return all(contains(by_key.get(item[key]), item, quantities=quantities) for item in wanted)


def _merge_key(items: list[Any]) -> str | None:
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for key in _MERGE_KEYS:
        if all(key in item for item in items) and len({str(item[key]) for item in items}) == len(items):
            return key
    return None


def _owned(secret: Manifest, data: Mapping[str, str]) -> bool:
    """Whether every key of a secret we cannot read is as we applied it: who changes one becomes its owner."""
    owners: dict[str, set[str]] = {}
    for entry in secret["metadata"].get("managedFields", ()):
        for key in entry.get("fieldsV1", {}).get("f:data", {}):
            owners.setdefault(key.removeprefix("f:"), set()).add(entry["manager"])
    owners.pop(".", None)
    return owners.keys() == data.keys() and all(managers == {MANAGER} for managers in owners.values())


def _quota_counts(manifest: Manifest, observed: Observed) -> bool:
    """Whether a quota limits already: admission goes by its status, which a controller fills in."""
    if manifest["kind"] != "ResourceQuota":
        return True
    known = observed.get(ref(manifest)) or {}
    status = known.get("status") or {}
    hard = manifest["spec"]["hard"]
    return (
        contains(status.get("hard") or {}, hard, quantities=True)
        and hard.keys() <= (status.get("used") or {}).keys()
    )


def _applies(stage: Stage, manifests: Iterable[Manifest], observed: Observed) -> Iterator[Apply]:
    for manifest in manifests:
        reason = difference(manifest, observed)
        if reason is not None:
            yield Apply(stage, manifest, reason)


def _deletes(stage: Stage, items: Iterable[Manifest]) -> Iterator[Delete]:
    for item in items:
        if "deletionTimestamp" not in item["metadata"]:
            yield Delete(stage, ref(item), item["metadata"]["uid"], "no longer part of the instance")


def _stale(target: Target, observed: Observed) -> Iterator[Manifest]:
    wanted = {ref(manifest) for manifest in target.manifests}
    for key in sorted(observed.objects):
        found = observed.objects[key]
        if key.kind in _PRUNABLE and key not in wanted and not found["metadata"].get("ownerReferences"):
            yield found
