from datetime import datetime

from pydantic import BaseModel, Field


class ConditionView(BaseModel):
    """One statement about an instance; a status of null means unknown."""

    type: str
    status: bool | None
    reason: str
    message: str
    since: datetime


class SizeView(BaseModel):
    """What an instance may use."""

    cpu_request: int = Field(description="Millicores")
    cpu_limit: int = Field(description="Millicores")
    memory: int = Field(description="Bytes")
    storage: int = Field(description="Bytes")
    replicas: int = 1


class InstanceView(BaseModel):
    """An instance of yours."""

    id: str
    product: str
    plan: str
    slug: str
    url: str
    phase: str = Field(
        description="pending, provisioning, ready, degraded, suspended, restoring, deleting or deleted"
    )
    phase_since: datetime
    conditions: list[ConditionView]
    limits: dict[str, int | None] = Field(description="By meter; null: without limit")
    size: SizeView | None
    created_at: datetime
    paid_at: datetime | None
    ready_at: datetime | None


class InstancePage(BaseModel):
    """Instances, newest first."""

    data: list[InstanceView]
    next_cursor: str | None = Field(description="Null: this is the last page")


class InstanceEventView(BaseModel):
    """Something that happened to an instance."""

    id: int
    at: datetime
    reason: str
    message: str


class InstanceEventPage(BaseModel):
    """Events, oldest first."""

    data: list[InstanceEventView]
    last: int = Field(description="Send as `after` to get what happened since")
    has_more: bool
