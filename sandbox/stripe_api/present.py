"""What an answer shows of a stored object: included sub-objects, and those the caller asked to expand."""

from collections.abc import Callable, Mapping
from typing import Any

from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json, list_of, public
from sandbox.stripe_api.store import Query, State, every

DEEPEST_EXPANSION = 4
"""Levels, the `data` of a list among them: https://docs.stripe.com/api/expanding_objects."""
MOST_INCLUDED = 10

_EXPANDABLE = {
    "billing_portal.configuration": {"features"},
    "billing_portal.configuration.features.subscription_update": {"products"},
    "billing_portal.session": {"configuration"},
    "charge": {"customer", "payment_intent", "refunds"},
    "checkout.session": {
        "customer",
        "invoice",
        "line_items",
        "payment_intent",
        "setup_intent",
        "subscription",
    },
    "checkout.session.discounts": {"coupon", "promotion_code"},
    "coupon": {"applies_to"},
    "customer": {"default_source", "subscriptions", "test_clock"},
    "customer.invoice_settings": {"default_payment_method"},
    "discount": {"customer", "promotion_code"},
    "discount.source": {"coupon"},
    "dispute": {"charge", "payment_intent"},
    "invoice": {
        "confirmation_secret",
        "customer",
        "default_payment_method",
        "discounts",
        "payments",
        "test_clock",
    },
    "invoice.parent.subscription_details": {"subscription"},
    "invoice.total_discount_amounts": {"discount"},
    "invoice_payment": {"invoice"},
    "invoice_payment.payment": {"payment_intent"},
    "invoiceitem": {"customer", "discounts", "invoice", "test_clock"},
    "line_item": {"discounts"},
    "payment_intent": {"customer", "latest_charge", "payment_method"},
    "payment_method": {"customer"},
    "price": {"product"},
    "product": {"default_price"},
    "promotion_code": {"customer"},
    "promotion_code.promotion": {"coupon"},
    "refund": {"charge", "payment_intent"},
    "subscription": {
        "customer",
        "default_payment_method",
        "discounts",
        "latest_invoice",
        "pending_setup_intent",
        "schedule",
        "test_clock",
    },
}
"""By kind (or place within one), the fields that hold an id, or several, and may show the object instead."""


def shown(found: Json, state: State) -> Json:
    """A stored object as answers and events show it when nothing is expanded."""
    found = public(found)
    match found["object"]:
        case "subscription":
            items = [_priced(item, state) for item in found["items"]["data"]]
            return {**found, "items": {**found["items"], "data": items}}
        case "billing_portal.configuration":
            return {**found, "features": _without_products(found["features"])}
        case "checkout.session":
            return {name: value for name, value in found.items() if name != "line_items"}
        case "promotion_code":
            coupon = state.find(found["promotion"]["coupon"])
            return {**found, "active": bool(found["active"] and coupon and coupon["valid"])}
        case "webhook_endpoint":
            return {name: value for name, value in found.items() if name != "secret"}
        case _:
            return found


def line_items(session: Json, state: State) -> Json:
    """A checkout session's line items as a list object."""
    items = [_priced(item, state) for item in session["line_items"]]
    return list_of(items, f"/v1/checkout/sessions/{session['id']}/line_items")


def expanded(answer: Json, paths: list[str], state: State) -> Json:
    """`answer` with each dotted path replaced by the object it names.

    Raises:
        ApiError: a path that cannot be expanded.
    """
    for path in paths:
        segments = path.split(".")
        if len(segments) > DEEPEST_EXPANSION:
            raise ApiError(
                f"You cannot expand more than {DEEPEST_EXPANSION} levels of a property. Property: {path}",
                param="expand",
            )
        answer = _expand(answer, segments, state, path, answer["object"])
    return answer


def _without_products(features: Json) -> Json:
    """A portal's plans show only when they are expanded."""
    shown_ones = {k: v for k, v in features["subscription_update"].items() if k != "products"}
    return {**features, "subscription_update": shown_ones}


def _priced(item: Json, state: State) -> Json:
    return {**public(item), "price": state.find(item["price"])}


def _expand(node: Json, segments: list[str], state: State, path: str, place: str) -> Json:
    name, rest = segments[0], segments[1:]
    place = node.get("object", place)
    if place in ("list", "search_result") and name == "data":
        if not rest:
            return node
        return {**node, "data": [_expand(item, rest, state, path, place) for item in node["data"]]}
    value: Any
    if name in _EXPANDABLE.get(place, ()):
        value = _fetched(node, name, state)
    elif isinstance(node.get(name), dict | list):
        value = node[name]
    else:
        hint = f" You may want to try expanding 'data.{path}' instead." if place == "list" else ""
        raise ApiError(f"This property cannot be expanded ({path}).{hint}", param="expand")
    if rest:
        value = _deeper(value, rest, state, path, f"{place}.{name}")
    return {**node, name: value}


def _deeper(value: object, segments: list[str], state: State, path: str, place: str) -> object:
    if isinstance(value, list):
        return [_deeper(one, segments, state, path, place) for one in value]
    return _expand(value, segments, state, path, place) if isinstance(value, dict) else value


def _fetched(node: Json, name: str, state: State) -> object:
    value = node.get(name)
    if (node.get("object"), name) == ("billing_portal.configuration", "features"):
        return _stored(node, state)["features"]  # what is shown of them lacks the products
    included = _INCLUDED.get((node.get("object", ""), name))
    if included is not None:
        return value or included(node, state)
    if isinstance(value, list):
        return [_named(one, state) for one in value]
    return _named(value, state)


def _named(value: object, state: State) -> object:
    target = state.find(value) if isinstance(value, str) else None
    return value if target is None else shown(target, state)


def _refunds(charge: Json, state: State) -> Json:
    found = every(state, Query("refund", label=charge["id"]), MOST_INCLUDED)
    return list_of([shown(one, state) for one in found], f"/v1/charges/{charge['id']}/refunds")


def _products(coupon: Json, state: State) -> Json | None:
    """The only products a coupon takes something off; None for all."""
    products = _stored(coupon, state).get("_products")
    return None if products is None else {"products": products}


def _stored(node: Json, state: State) -> Json:
    found = state.find(node["id"])
    if found is None:
        raise ApiError(f"{node['id']} is gone", status=500, type="api_error")
    return found


def _payments(invoice: Json, state: State) -> Json:
    """What was to pay an invoice, the newest first."""
    found = every(state, Query("invoice_payment", label=invoice["id"]), MOST_INCLUDED)
    return list_of([shown(one, state) for one in found], f"/v1/invoice_payments?invoice={invoice['id']}")


def _confirmation_secret(invoice: Json, state: State) -> Json | None:
    """What a page in the browser confirms an invoice's payment with."""
    for payment in every(state, Query("invoice_payment", label=invoice["id"]), 1):
        intent = state.find(payment["payment"]["payment_intent"])
        if intent is not None:
            return {"client_secret": intent["client_secret"], "type": "payment_intent"}
    return None


def _subscriptions(customer: Json, state: State) -> Json:
    live = Query("subscription", label=customer["id"], keep=lambda found: found["status"] != "canceled")
    found = every(state, live, MOST_INCLUDED + 1)
    shown_ones = [shown(one, state) for one in found[:MOST_INCLUDED]]
    url = f"/v1/customers/{customer['id']}/subscriptions"
    return list_of(shown_ones, url, has_more=len(found) > MOST_INCLUDED)


_INCLUDED: Mapping[tuple[str, str], Callable[[Json, State], object]] = {
    ("charge", "refunds"): _refunds,
    ("checkout.session", "line_items"): lambda one, state: line_items(_stored(one, state), state),
    ("coupon", "applies_to"): _products,
    ("customer", "subscriptions"): _subscriptions,
    ("invoice", "confirmation_secret"): _confirmation_secret,
    ("invoice", "payments"): _payments,
}
"""What is made for an answer that expands it, by kind and field."""
