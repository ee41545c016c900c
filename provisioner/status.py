"""How an instance is, in words a person understands. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from provisioner.contract.spec import Condition, Desired, InstanceSpec, Phase
from provisioner.observed import Object, Observed, ref
from provisioner.plan import Plan, Stage, Target

PROGRESS_DEADLINE: Final = timedelta(minutes=5)

_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet"})
_PULL: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_CONFIG: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_MAX_DETAIL: Final = 600


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement without its time; `rank` orders several about the same, the most telling first."""

    good: bool
    reason: str
    message: str
    rank: int = 9


def _good(reason: str, message: str) -> Finding:
    return Finding(good=True, reason=reason, message=message)


def _bad(reason: str, message: str, rank: int = 9) -> Finding:
    return Finding(good=False, reason=reason, message=message, rank=rank)


@dataclass(frozen=True, slots=True)
class Status:
    """What is recorded of an instance."""

    phase: Phase
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass over an instance found: all that its status is made from."""

    spec: InstanceSpec
    target: Target
    plan: Plan
    observed: Observed


def status(found: Pass, before: Status, now: datetime) -> Status:
    """Return the status after a pass; what did not turn keeps its `since`."""
    workload = workload_finding(found, now)
    ready = _ready(found, workload, before)
    findings = {
        "Isolated": _isolated(found),
        "Applied": _applied(found),
        "WorkloadReady": workload,
        "Ready": ready,
        "Progressing": _progressing(found, ready, before, now),
    }
    if found.spec.desired is Desired.DELETED:
        message = "its time is over, but its data is kept until a verified final backup is recorded"
        findings["Deleted"] = _bad("NoFinalBackup", message)
    conditions = tuple(_condition(name, finding, before, now) for name, finding in findings.items())
    return Status(_phase(found, ready, before.phase), conditions)


def refused(before: Status, sentence: str, now: datetime) -> Status:
    """Return the status after somebody refused the instance for good; what serves goes on serving."""
    finding = _bad("Refused", _short(sentence))
    conditions = {condition.type: condition for condition in before.conditions}
    conditions["Applied"] = _condition("Applied", finding, before, now)
    if before.phase not in {Phase.READY, Phase.DEGRADED, Phase.SUSPENDED}:
        conditions["Ready"] = _condition("Ready", finding, before, now)
    phase = Phase.PROVISIONING if before.phase is Phase.PENDING else before.phase
    return Status(phase, tuple(conditions.values()))


def deleting(before: Status, what: str, now: datetime) -> Status:
    """Return the status of an instance of which `what` is being removed."""
    return _ending(before, Phase.DELETING, _bad("Removing", f"{what} is being removed"), now)


def deleted(before: Status, now: datetime) -> Status:
    """Return the status of an instance of which nothing is left."""
    return _ending(before, Phase.DELETED, _good("Removed", "nothing of the instance is left"), now)


def _ending(before: Status, phase: Phase, finding: Finding, now: datetime) -> Status:
    ready = _bad(finding.reason, finding.message)
    told = (("Deleted", finding), ("Ready", ready))
    return Status(phase, tuple(_condition(name, one, before, now) for name, one in told))


def turned(before: Status, after: Status) -> Iterator[tuple[str, str]]:
    """Return (reason, message) of each line the timeline gets."""
    known = {condition.type: (condition.status, condition.reason) for condition in before.conditions}
    for condition in after.conditions:
        told_by_phase = condition.type in {"Ready", "Progressing"} and condition.reason != "DeadlineExceeded"
        if not told_by_phase and known.get(condition.type) != (condition.status, condition.reason):
            yield condition.reason, condition.message
    if after.phase is not before.phase:
        ready = next(condition for condition in after.conditions if condition.type == "Ready")
        yield after.phase.value.capitalize(), ready.message


def _isolated(found: Pass) -> Finding:
    wait = found.plan.wait
    if wait is not None and wait.stage <= Stage.ISOLATION:
        return _bad(wait.reason, wait.message)
    return _good("InForce", "quota, limits, pod security and network policies are in force")


def _applied(found: Pass) -> Finding:
    if found.plan.wait is not None:
        return _bad(found.plan.wait.reason, found.plan.wait.message)
    if found.plan.steps:
        return _bad("Pending", f"{len(found.plan.steps)} changes are still to be made")
    return _good("Settled", "the cluster holds what the plan asks for")


def _ready(found: Pass, workload: Finding, before: Status) -> Finding:
    if found.spec.desired is not Desired.RUNNING:
        return _bad("Suspended", "the instance is suspended; its data is kept")
    # A change on its way does not make an instance unready that goes on serving meanwhile.
    serving = before.phase in {Phase.READY, Phase.DEGRADED}
    if (workload.good and (serving or found.plan.settled)) or (serving and workload.reason == "Updating"):
        return _good("Serving", "the instance is up")
    if workload.good or (found.plan.wait is not None and workload.reason == "NotStarted"):
        applied = _applied(found)
        return _bad(applied.reason, applied.message)
    return _bad(workload.reason, workload.message)


def _progressing(found: Pass, ready: Finding, before: Status, now: datetime) -> Finding:
    if found.spec.desired is not Desired.RUNNING:
        return _bad("Suspended", ready.message)
    if ready.good:
        return _bad("Complete", "nothing is left to do")
    since = next(
        (item.since for item in before.conditions if item.type == "Ready" and item.status is False), now
    )
    if now - since >= PROGRESS_DEADLINE:
        minutes = int(PROGRESS_DEADLINE.total_seconds() // 60)
        return _bad("DeadlineExceeded", f"not ready after {minutes} minutes: {ready.message}")
    return _good("Working", ready.message)


def _phase(found: Pass, ready: Finding, before: Phase) -> Phase:
    if before in {Phase.RESTORING, Phase.DELETING, Phase.DELETED}:
        return before
    if found.spec.desired is not Desired.RUNNING:
        stopped = found.plan.settled and not any(_live(found.observed))
        return Phase.SUSPENDED if stopped else before
    if ready.good:
        return Phase.READY
    return Phase.DEGRADED if before in {Phase.READY, Phase.DEGRADED} else Phase.PROVISIONING


def _condition(name: str, finding: Finding, before: Status, now: datetime) -> Condition:
    known = next((item for item in before.conditions if item.type == name), None)
    since = known.since if known is not None and known.status is finding.good else now
    return Condition(name, finding.good, finding.reason, finding.message, since)


def workload_finding(found: Pass, now: datetime) -> Finding:
    """Say whether the app runs as it should, or the most telling reason why not."""
    if found.spec.desired is not Desired.RUNNING:
        if any(_live(found.observed)):
            return _bad("Stopping", "the app is being stopped")
        return _bad("Stopped", "the app is stopped")
    findings = [
        _workload(found, manifest, now)
        for manifest in found.target.workload
        if manifest["kind"] in _WORKLOADS
    ]
    bad = sorted((finding for finding in findings if not finding.good), key=lambda finding: finding.rank)
    return bad[0] if bad else _good("Running", "the app answers its health check")


def _workload(found: Pass, manifest: Object, now: datetime) -> Finding:
    known = found.observed.get(ref(manifest))
    if known is None:
        return _bad("NotStarted", "the app is not started yet")
    wanted = known["spec"]["replicas"]
    counts: Mapping[str, Any] = known.get("status") or {}
    if counts.get("readyReplicas", 0) >= wanted:
        seen = counts.get("observedGeneration", 0) >= known["metadata"].get("generation", 0)
        if seen and counts.get("updatedReplicas", 0) >= wanted:
            return _good("Running", "the app answers its health check")
        return _bad("Updating", "a change is being rolled out")
    pods = list(_live(found.observed))
    if not pods:
        return _no_pods(counts)
    return min((_pod(found, pod, now) for pod in pods), key=lambda finding: finding.rank)


def _no_pods(counts: Mapping[str, Any]) -> Finding:
    failure = _of_type(counts.get("conditions", ()), "ReplicaFailure")
    if failure is None or failure.get("status") != "True":
        return _bad("Starting", "the app's pod is being created")
    detail = _short(failure.get("message", ""))
    if "exceeded quota" in detail:
        return _bad("QuotaExceeded", f"the plan's quota leaves no room for the app: {detail}", 1)
    return _bad("PodRefused", f"the cluster refuses the app's pod: {detail}", 1)


def _pod(found: Pass, pod: Object, now: datetime) -> Finding:
    counts = pod.get("status") or {}
    scheduled = _of_type(counts.get("conditions", ()), "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return _unscheduled(found.observed, _short(scheduled.get("message", "")))
    containers = [*counts.get("initContainerStatuses", ()), *counts.get("containerStatuses", ())]
    findings = [
        _container(found.spec, container, now) for container in containers if not container.get("ready")
    ]
    return min(findings, key=lambda finding: finding.rank, default=_bad("Starting", "the app is starting"))


def _unscheduled(observed: Observed, detail: str) -> Finding:
    pending = [
        claim["metadata"]["name"]
        for claim in observed.of("PersistentVolumeClaim")
        if (claim.get("status") or {}).get("phase") != "Bound"
    ]
    if pending and "persistentvolumeclaim" in detail.lower():
        message = f"the data volume {', '.join(pending)} is not provided yet: {detail}"
        return _bad("VolumePending", message, 3)
    return _bad("Unschedulable", f"no host has room for the app: {detail}", 3)


def _container(spec: InstanceSpec, container: Mapping[str, Any], now: datetime) -> Finding:
    state: Mapping[str, Any] = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if "running" in state and container.get("started") and not _just_started(spec, state["running"], now):
        message = f"the app runs but does not answer GET {spec.probe.path} on port {spec.port}"
        return _bad("ProbeFailing", message, 4)
    blocked = _blocked(container.get("image") or spec.image, state.get("waiting") or {})
    if blocked is not None:
        return blocked
    if ended:
        return _ended(ended)
    return _bad("Starting", f"waiting for the app's first answer to GET {spec.probe.path}", 5)


def _just_started(spec: InstanceSpec, running: Mapping[str, Any], now: datetime) -> bool:
    """Whether the health check has not yet had the time to fail as often as makes it count."""
    started = running.get("startedAt")
    patience = timedelta(seconds=spec.probe.period * spec.probe.failure_threshold)
    return started is not None and now - datetime.fromisoformat(started) < patience


def _blocked(image: str, waiting: Mapping[str, Any]) -> Finding | None:
    reason, detail = waiting.get("reason", ""), _short(waiting.get("message", ""))
    if reason in _PULL:
        # The back-off's own words change from try to try; what they quote does not.
        cause = detail.rpartition("ErrImagePull: ")[2]
        return _bad("ImagePullFailed", f"the image {image} cannot be pulled: {cause}", 1)
    if reason in _CONFIG:
        return _bad("ContainerRefused", f"the app's container cannot be started: {detail}", 1)
    return None


def _ended(ended: Mapping[str, Any]) -> Finding:
    if ended.get("reason") == "OOMKilled":
        return _bad("OutOfMemory", "the app keeps running out of the memory its plan grants", 2)
    code = ended.get("exitCode")
    return _bad("Crashing", f"the app keeps stopping, last with exit code {code}: see its log", 2)


def _live(observed: Observed) -> Iterator[Object]:
    for pod in observed.of("Pod"):
        finished = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if "deletionTimestamp" not in pod["metadata"] and not finished:
            yield pod


def _of_type(conditions: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    return next((condition for condition in conditions if condition.get("type") == name), None)


def _short(text: str) -> str:
    clean = " ".join(text.split())
    return clean if len(clean) <= _MAX_DETAIL else clean[: _MAX_DETAIL - 1] + "…"


def changed(before: Status, after: Status) -> bool:
    """Whether there is anything to record."""
    return before.phase is not after.phase or _plain(before.conditions) != _plain(after.conditions)


def _plain(conditions: Sequence[Condition]) -> list[Condition]:
    return sorted(conditions, key=lambda condition: condition.type)
