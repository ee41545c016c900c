"""Events, and the webhook endpoints that hear of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.stripe_api.objects.common import API_VERSION, Json


def webhook_endpoint(endpoint_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """An endpoint; `given` holds url, enabled_events and the secret, which only its creation shows."""
    return {
        "id": endpoint_id,
        "object": "webhook_endpoint",
        "api_version": given.get("api_version"),
        "application": None,
        "created": now,
        "description": given.get("description"),
        "enabled_events": given["enabled_events"],
        "livemode": False,
        "metadata": given.get("metadata") or {},
        "secret": given["secret"],
        "status": "enabled",
        "url": given["url"],
    }


@dataclass(frozen=True)
class Cause:
    """The API request that caused an event; both None when no request did."""

    request: str | None = None
    idempotency_key: str | None = None


def event(event_id: str, now: int, kind: str, data: Json, cause: Cause) -> Json:
    """An event of type `kind`; `pending_webhooks` is filled in when it is shown."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": cause.request, "idempotency_key": cause.idempotency_key},
        "type": kind,
    }
