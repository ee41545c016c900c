"""Subscriptions and their items."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.stripe_api.objects.common import Json, list_of

INCOMPLETE_SECONDS = 23 * 3600
"""How long a first payment may take: https://docs.stripe.com/billing/subscriptions/overview."""


def subscription(subscription_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A subscription; `given` holds customer, currency, items, status and what else is known of it.

    `_incomplete_until` is when its first payment is given up, `_noticed_trial_end` the trial's end that
    `trial_will_end` told of, `_resumption` the invoice whose payment ends a pause.
    """
    return {
        "id": subscription_id,
        "object": "subscription",
        "_incomplete_until": now + INCOMPLETE_SECONDS,
        "_noticed_trial_end": None,
        "_resumption": None,
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": given.get("trial_end") or now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": given["currency"],
        "customer": given["customer"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": given.get("default_payment_method"),
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": list_of(given["items"], f"/v1/subscription_items?subscription={subscription_id}"),
        "latest_invoice": given.get("latest_invoice"),
        "livemode": False,
        "managed_payments": None,
        "metadata": given.get("metadata") or {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": given["status"],
        "test_clock": None,
        "transfer_data": None,
        "trial_end": given.get("trial_end"),
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": now if given.get("trial_end") else None,
    }


@dataclass(frozen=True)
class Period:
    """Two Unix seconds."""

    start: int
    end: int


def subscription_item(item_id: str, now: int, given: Mapping[str, Any], period: Period) -> Json:
    """An item; `given` holds subscription, price, quantity and anchor.

    `_anchor` is where its periods are counted from, Unix seconds.
    """
    return {
        "id": item_id,
        "object": "subscription_item",
        "_anchor": given["anchor"],
        "billing_thresholds": None,
        "created": now,
        "current_period_end": period.end,
        "current_period_start": period.start,
        "discounts": [],
        "metadata": given.get("metadata") or {},
        "price": given["price"],
        "quantity": given["quantity"],
        "subscription": given["subscription"],
        "tax_rates": [],
    }
