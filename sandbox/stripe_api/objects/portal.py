"""The billing portal: what it offers, and a customer's visit to it."""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_api.objects.common import Json


def portal_configuration(configuration_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """What a portal offers; `given` holds at least features, complete, and is_default."""
    return {
        "id": configuration_id,
        "object": "billing_portal.configuration",
        "active": True,
        "application": None,
        "business_profile": given["business_profile"],
        "created": now,
        "default_return_url": given.get("default_return_url"),
        "features": given["features"],
        "is_default": given["is_default"],
        "livemode": False,
        "login_page": given["login_page"],
        "metadata": given.get("metadata") or {},
        "name": given.get("name"),
        "updated": now,
    }


def portal_session(session_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A visit; `given` holds customer, configuration, url, flow, and the secret in its address.

    `_until` is when the address stops working, Unix seconds.
    """
    return {
        "id": session_id,
        "object": "billing_portal.session",
        "configuration": given["configuration"],
        "created": now,
        "customer": given["customer"],
        "customer_account": None,
        "flow": given["flow"],
        "livemode": False,
        "locale": given.get("locale"),
        "on_behalf_of": None,
        "return_url": given["return_url"],
        "url": given["url"],
        "_secret": given["secret"],
        "_until": given["until"],
    }
