"""An instance's words: what it is owed (spec) and what is said of it (phase, conditions)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import TypeAdapter


class Desired(StrEnum):
    """What an instance is owed."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Phase(StrEnum):
    """How an instance is, in one word."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    READY = "ready"
    DEGRADED = "degraded"
    SUSPENDED = "suspended"
    RESTORING = "restoring"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Size:
    """What a tier grants: CPU in millicores, memory and storage in bytes."""

    cpu_request: int
    cpu_limit: int
    memory: int
    storage: int
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP health check; times in seconds."""

    path: str = "/healthz"
    period: int = 5
    timeout: int = 2
    failure_threshold: int = 3
    startup: int = 60


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Everything needed to render an instance, pinned: nothing is looked up in the catalogue afterwards."""

    instance_id: str
    customer_id: str
    product: str
    title: str
    plan: str
    slug: str
    host: str
    desired: Desired
    chart: str
    chart_version: str
    image: str
    port: int
    data_path: str
    size: Size
    limits: Mapping[str, int | None]
    probe: Probe
    entitlement_file: str
    environment: Mapping[str, str]
    secret_names: tuple[str, ...] = ()
    quantity: int = 1
    """How many times the plan is bought; `limits` has it multiplied in already, and the add-ons added."""
    add_ons: Mapping[str, int] = field(default_factory=dict)
    plan_title: str = ""
    """What customers know the plan as."""

    @property
    def plan_for_people(self) -> str:
        """The plan's title, or its name in specs from before titles were kept."""
        return self.plan_title or self.plan

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace that holds this instance and nothing else."""
        return f"berth-{self.instance_id}"


SPEC = TypeAdapter(InstanceSpec)


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about an instance. `status` None means unknown, which is not the same as false."""

    type: str
    status: bool | None
    reason: str
    message: str
    since: datetime


CONDITIONS = TypeAdapter(list[Condition])
