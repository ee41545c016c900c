"""What happened, and who is told: events and webhook endpoints."""

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Operation,
    found,
    listing,
    retrieval,
    updated,
)
from sandbox.stripe_api.params import (
    ClearableText,
    DatedListParams,
    Flag,
    FormList,
    ListParams,
    Metadata,
    MetadataChange,
    Params,
    Text,
    Url,
)
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.store import Query, every
from sandbox.stripe_api.webhooks.faults import MOST_ENDPOINTS

EVENT_DAYS = 30
MOST_TYPES = 20


class EventList(DatedListParams):
    """A page of the last 30 days' events."""

    delivery_success: Flag | None = None
    type: Text | None = None
    types: Annotated[FormList[Text], Field(max_length=MOST_TYPES)] | None = None


EventType = Annotated[str, Field(pattern=r"^(\*|[a-z0-9_]+(\.[a-z0-9_]+)+)$")]
EventTypes = Annotated[FormList[EventType], Field(min_length=1)]


class EndpointCreate(Params):
    """A new webhook endpoint."""

    url: Url
    enabled_events: EventTypes
    api_version: Literal["2026-10-28.endive"] | None = None
    description: ClearableText = None
    metadata: Metadata = Field(default_factory=dict)


class EndpointUpdate(Params):
    """An edit."""

    url: Url = ""
    enabled_events: EventTypes = Field(default_factory=list)
    disabled: Flag = False
    description: ClearableText = None
    metadata: MetadataChange = Field(default_factory=dict)


def _events(asked: Asked[EventList]) -> Query:
    params = asked.params
    if params.type is not None and params.types is not None:
        raise ApiError("You may not specify both type and types.", param="types")
    oldest = asked.moment.now - EVENT_DAYS * 86400
    pattern = params.type or "*"

    def keep(one: Json) -> bool:
        return (
            (params.types is None or one["type"] in params.types)
            and fnmatchcase(one["type"], pattern)
            and params.delivery_success in (None, one["pending_webhooks"] == 0)
        )

    return Query(
        "event",
        label=None if "*" in pattern else pattern,
        since=max(params.created.first(), oldest),
        until=params.created.last(),
        keep=keep,
    )


def _create_endpoint(asked: Asked[EndpointCreate]) -> Change:
    if len(every(asked.state, Query("webhook_endpoint"), MOST_ENDPOINTS)) == MOST_ENDPOINTS:
        raise ApiError(f"You have reached the maximum of {MOST_ENDPOINTS} test webhook endpoints.")
    moment = asked.moment
    given = {**asked.params.model_dump(), "secret": moment.new_id("whsec")}
    new = objects.webhook_endpoint(moment.new_id("we"), moment.now, given)
    return Change(new, (new,))


def _update_endpoint(asked: Asked[EndpointUpdate]) -> Change:
    old = found(asked.state, "webhook_endpoint", asked.ids["endpoint"])
    new = updated(old, asked.params, ("url", "enabled_events", "description"))
    if "disabled" in asked.params.model_fields_set:
        new["status"] = "disabled" if asked.params.disabled else "enabled"
    return Change(shown(new, asked.state), (new,))


def _delete_endpoint(asked: Asked[Params]) -> Change:
    old = found(asked.state, "webhook_endpoint", asked.ids["endpoint"])
    answer = {"id": old["id"], "object": "webhook_endpoint", "deleted": True}
    return Change(answer, removed=(old["id"],))


def _endpoints(_: Asked[ListParams]) -> Query:
    return Query("webhook_endpoint")


def operations() -> tuple[Operation[Any], ...]:
    """Every call about events and webhook endpoints."""
    return (
        listing("/v1/events", EventList, _events),
        retrieval("/v1/events/{event}", "event"),
        Operation("POST", "/v1/webhook_endpoints", EndpointCreate, _create_endpoint),
        listing("/v1/webhook_endpoints", ListParams, _endpoints),
        retrieval("/v1/webhook_endpoints/{endpoint}", "webhook_endpoint"),
        Operation("POST", "/v1/webhook_endpoints/{endpoint}", EndpointUpdate, _update_endpoint),
        Operation("DELETE", "/v1/webhook_endpoints/{endpoint}", Params, _delete_endpoint),
    )
