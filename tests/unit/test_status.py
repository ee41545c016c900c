import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioner.contract.spec import Condition, Desired, Phase
from provisioner.observed import Object, Observed, Ref
from provisioner.plan import Plan, Stage, Wait, plan
from provisioner.status import (
    PROGRESS_DEADLINE,
    Pass,
    Status,
    changed,
    deleted,
    deleting,
    refused,
    status,
    turned,
    workload_finding,
)
from tests.instance_specs import SPEC, default_target, renderer, spec
from tests.unit.cluster_model import ClusterModel

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JUST_NOW = "2025-12-31T23:59:50Z"
TARGET = default_target()
DEPLOYMENT = Ref("Deployment", "mindroom")
NEW = Status(Phase.PENDING, ())
UP: dict[str, Any] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}


def observed(deployment_status: Object | None = None, *pods: Object, claim: str = "Bound") -> Observed:
    """A settled cluster, its Deployment in some status, with some pods."""
    model = ClusterModel()
    for _ in range(3):
        model.run(plan(TARGET, model.observed).steps)
        model.count_quotas()
    model.objects[DEPLOYMENT]["metadata"]["generation"] = 1
    model.objects[DEPLOYMENT]["status"] = dict(deployment_status or {})
    model.objects[Ref("PersistentVolumeClaim", "mindroom-data")]["status"] = {"phase": claim}
    for number, pod in enumerate(pods):
        metadata = {"name": f"p{number}", **pod.get("metadata", {})}
        model.objects[Ref("Pod", f"p{number}")] = {"kind": "Pod", **pod, "metadata": metadata}
    return model.observed


def passed(found: Observed, **changes: Any) -> Pass:  # noqa: ANN401 - passed on to a dataclass
    return replace(Pass(SPEC, TARGET, plan(TARGET, found), found), **changes)


def pod(*, conditions: list[Object] | None = None, **container: object) -> Object:
    status = {
        "conditions": conditions or [],
        "containerStatuses": [{"name": "app", "image": "i", **container}],
    }
    return {"status": status if container else {"conditions": conditions or []}}


def waiting(reason: str, message: str = "", **more: Any) -> Object:  # noqa: ANN401 - any JSON
    return pod(ready=False, state={"waiting": {"reason": reason, "message": message}}, **more)


def condition(found: Status, name: str) -> Condition:
    return next(item for item in found.conditions if item.type == name)


def unscheduled(message: str) -> Object:
    return pod(
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        ]
    )


def failed_creation(message: str) -> Object:
    return {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (observed({}), "Starting", "being created"),
        (observed({}, {"status": {}}), "Starting", "starting"),
        (
            observed({}, waiting("ErrImagePull", "rpc error: not found")),
            "ImagePullFailed",
            "the image i cannot be pulled: rpc error: not found",
        ),
        (
            observed({}, waiting("ImagePullBackOff", 'Back-off pulling image "i": ErrImagePull: not found')),
            "ImagePullFailed",
            "the image i cannot be pulled: not found",
        ),
        (observed({}, waiting("InvalidImageName")), "ImagePullFailed", "cannot be pulled"),
        (
            observed({}, waiting("CreateContainerConfigError", 'secret "x" not found')),
            "ContainerRefused",
            'secret "x" not found',
        ),
        (
            observed(
                {}, waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 3, "reason": "Error"}})
            ),
            "Crashing",
            "exit code 3",
        ),
        (
            observed({}, pod(ready=False, state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            "OutOfMemory",
            "memory",
        ),
        (
            observed({}, pod(ready=False, started=False, state={"running": {}})),
            "Starting",
            "first answer to GET /healthz",
        ),
        (
            observed(
                {},
                pod(
                    ready=False,
                    started=False,
                    state={"running": {}},
                    lastState={"terminated": {"exitCode": 1}},
                ),
            ),
            "Crashing",
            "exit code 1",
        ),
        (
            observed({}, pod(ready=False, started=True, state={"running": {}})),
            "ProbeFailing",
            "GET /healthz on port 8080",
        ),
        (
            observed({}, pod(ready=False, started=True, state={"running": {"startedAt": JUST_NOW}})),
            "Starting",
            "first answer to GET /healthz",
        ),
        (observed({}, waiting("ContainerCreating")), "Starting", ""),
        (
            observed({}, unscheduled("0/3 nodes are available: 3 Insufficient memory.")),
            "Unschedulable",
            "Insufficient memory",
        ),
        (
            observed({}, unscheduled("pod has unbound immediate PersistentVolumeClaims"), claim="Pending"),
            "VolumePending",
            "mindroom-data is not provided yet",
        ),
        (
            observed(failed_creation('pods "x" is forbidden: exceeded quota: tier')),
            "QuotaExceeded",
            "exceeded quota: tier",
        ),
        (observed(failed_creation("violates PodSecurity")), "PodRefused", "violates PodSecurity"),
        (observed(UP | {"observedGeneration": 0}), "Updating", "rolled out"),
        (observed(UP | {"updatedReplicas": 0}), "Updating", "rolled out"),
        (observed(UP), "Running", "answers"),
        # a pod that is going, or is done, says nothing about the one that is wanted
        (
            observed({}, {**waiting("ImagePullBackOff"), "metadata": {"deletionTimestamp": "2026"}}),
            "Starting",
            "being created",
        ),
        (observed({}, {"status": {"phase": "Failed"}}), "Starting", "being created"),
        # of several the most telling
        (observed({}, waiting("ContainerCreating"), waiting("ErrImagePull", "no")), "ImagePullFailed", "no"),
    ],
)
def test_what_is_wrong_is_said_in_words(found: Observed, reason: str, words: str) -> None:
    finding = workload_finding(passed(found), NOW)
    assert finding.reason == reason
    assert words in finding.message
    assert finding.good is (reason == "Running")


@pytest.mark.parametrize(
    ("before", "up", "desired", "expected"),
    [
        (Phase.PENDING, False, Desired.RUNNING, Phase.PROVISIONING),
        (Phase.PENDING, True, Desired.RUNNING, Phase.READY),
        (Phase.PROVISIONING, False, Desired.RUNNING, Phase.PROVISIONING),
        (Phase.PROVISIONING, True, Desired.RUNNING, Phase.READY),
        (Phase.READY, True, Desired.RUNNING, Phase.READY),
        (Phase.READY, False, Desired.RUNNING, Phase.DEGRADED),
        (Phase.DEGRADED, False, Desired.RUNNING, Phase.DEGRADED),
        (Phase.DEGRADED, True, Desired.RUNNING, Phase.READY),
        (Phase.SUSPENDED, False, Desired.RUNNING, Phase.PROVISIONING),
        (Phase.SUSPENDED, True, Desired.RUNNING, Phase.READY),
        (Phase.READY, True, Desired.SUSPENDED, Phase.SUSPENDED),
        (Phase.DEGRADED, False, Desired.SUSPENDED, Phase.SUSPENDED),
        (Phase.READY, True, Desired.DELETED, Phase.SUSPENDED),
        (Phase.RESTORING, True, Desired.RUNNING, Phase.RESTORING),
        (Phase.DELETING, False, Desired.DELETED, Phase.DELETING),
    ],
)
def test_phases(before: Phase, up: bool, desired: Desired, expected: Phase) -> None:
    found = passed(observed(UP if up else {}), spec=spec(desired=desired))
    assert status(found, Status(before, ()), NOW).phase is expected


def test_the_first_ready_waits_until_everything_is_applied() -> None:
    found = observed(UP)
    unsettled = Plan(wait=Wait(Stage.ISOLATION, "QuotaPending", "the quota is being counted"))
    after = status(passed(found, plan=unsettled), NEW, NOW)
    assert after.phase is Phase.PROVISIONING
    assert condition(after, "Isolated").status is False
    assert condition(after, "Ready").reason == "QuotaPending"


def test_a_change_on_its_way_leaves_a_serving_instance_ready() -> None:
    found = observed(UP | {"observedGeneration": 0})
    larger = asyncio.run(renderer().target(spec(plan="professional")))
    after = status(passed(found, plan=plan(larger, found)), Status(Phase.READY, ()), NOW)
    assert after.phase is Phase.READY
    assert condition(after, "Applied").reason == "IsolationPending"
    assert status(passed(found), NEW, NOW).phase is Phase.PROVISIONING


def test_an_app_that_still_stops_is_not_suspended_yet() -> None:
    found = observed(UP, pod(ready=True, state={"running": {}}))
    suspended = passed(found, spec=spec(desired=Desired.SUSPENDED))
    stopping = status(suspended, Status(Phase.READY, ()), NOW)
    assert (stopping.phase, condition(stopping, "WorkloadReady").reason) == (Phase.READY, "Stopping")
    after = status(passed(observed(UP), spec=spec(desired=Desired.SUSPENDED)), stopping, NOW)
    assert (after.phase, condition(after, "WorkloadReady").reason) == (Phase.SUSPENDED, "Stopped")


def test_a_refusal_is_told_and_does_not_take_down_what_serves() -> None:
    words = "Kubernetes refused PATCH …: spec.selector: field is immutable"
    first = refused(NEW, words, NOW)
    assert first.phase is Phase.PROVISIONING
    assert condition(first, "Applied").reason == "Refused"
    assert "immutable" in condition(first, "Ready").message
    assert [reason for reason, _ in turned(NEW, first)] == ["Refused", "Provisioning"]
    before = status(passed(observed(UP)), Status(Phase.READY, ()), NOW)
    serving = refused(before, words, NOW)
    assert serving.phase is Phase.READY
    assert condition(serving, "Ready").status is True
    assert condition(serving, "Applied").status is False


def test_since_is_when_it_turned() -> None:
    first = status(passed(observed({})), NEW, NOW)
    later = NOW + timedelta(minutes=1)
    second = status(passed(observed({}, waiting("ErrImagePull", "no"))), first, later)
    third = status(passed(observed(UP)), second, later + timedelta(minutes=1))
    assert condition(second, "WorkloadReady").since == NOW
    assert condition(second, "WorkloadReady").reason == "ImagePullFailed"
    assert condition(third, "WorkloadReady").since == later + timedelta(minutes=1)
    assert condition(third, "Isolated").since == NOW


def test_after_five_minutes_no_progress_is_no_progress() -> None:
    first = status(passed(observed({}, waiting("ErrImagePull", "no"))), NEW, NOW)
    assert condition(first, "Progressing").status is True
    again = passed(observed({}, waiting("ErrImagePull", "no")))
    almost = status(again, first, NOW + PROGRESS_DEADLINE - timedelta(seconds=1))
    assert condition(almost, "Progressing").status is True
    late = status(again, almost, NOW + PROGRESS_DEADLINE)
    assert condition(late, "Progressing").reason == "DeadlineExceeded"
    assert "cannot be pulled" in condition(late, "Progressing").message
    assert late.phase is Phase.PROVISIONING
    assert [reason for reason, _ in turned(almost, late)] == ["DeadlineExceeded"]


def test_what_may_not_be_deleted_yet_says_why() -> None:
    after = status(passed(observed({}), spec=spec(desired=Desired.DELETED)), NEW, NOW)
    assert condition(after, "Deleted").status is False
    assert "final backup" in condition(after, "Deleted").message


def test_the_end_of_an_instance() -> None:
    going = deleting(status(passed(observed(UP)), NEW, NOW), "namespace berth-i1", NOW)
    assert going.phase is Phase.DELETING
    assert condition(going, "Deleted").status is False
    assert condition(going, "Ready").status is False
    gone = deleted(going, NOW)
    assert gone.phase is Phase.DELETED
    assert condition(gone, "Deleted").status is True
    assert [reason for reason, _ in turned(going, gone)] == ["Removed", "Deleted"]


def test_the_timeline_tells_each_turn_once() -> None:
    first = status(passed(observed({})), NEW, NOW)
    assert [reason for reason, _ in turned(NEW, first)] == ["InForce", "Settled", "Starting", "Provisioning"]
    assert not list(turned(first, status(passed(observed({})), first, NOW + timedelta(seconds=9))))
    ready = status(passed(observed(UP)), first, NOW)
    assert list(turned(first, ready)) == [
        ("Running", "the app answers its health check"),
        ("Ready", "the instance is up"),
    ]


def test_nothing_changed_means_nothing_to_write() -> None:
    first = status(passed(observed({})), NEW, NOW)
    assert changed(NEW, first)
    assert not changed(first, status(passed(observed({})), first, NOW + timedelta(minutes=1)))
    assert changed(first, status(passed(observed({}, waiting("ErrImagePull", "a"))), first, NOW))
