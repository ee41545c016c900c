"""What the sweep calls a difference."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalogue.loader import load_catalogue
from provisioner.clients.stripe import StripeItem, StripeSubscription
from provisioner.contract.inbox import ACTED_UPON
from provisioner.sweep import Difference, Held, compare
from scripts.stripe_catalogue.webhook import EVENTS

CATALOGUE = load_catalogue()
BEGAN = datetime(2026, 11, 21, tzinfo=UTC)
END = datetime(2026, 12, 21, tzinfo=UTC)


def item(price_id: str, lookup_key: str | None, quantity: int) -> StripeItem:
    return StripeItem(price_id, lookup_key, "month", quantity, BEGAN, END)


PLAN = item("price_pro", "voxflow_pro_month", 1)
EXTRA = item("price_extra", "voxflow_extra-agent_month", 2)
AT_STRIPE = StripeSubscription(
    "sub_1", "active", "cus_1", (PLAN, EXTRA), cancel_at_period_end=False, metadata={}, created=BEGAN
)
HELD = Held(
    "sub_1", "active", "price_pro", 1, {"extra-agent": 2}, END, cancel_at_period_end=False, trial_end=None
)


def test_what_is_held_as_stripe_has_it_does_not_differ() -> None:
    assert compare(HELD, AT_STRIPE, CATALOGUE) == []
    reordered = replace(AT_STRIPE, items=(EXTRA, PLAN))
    assert compare(HELD, reordered, CATALOGUE) == [], "the order of its lines says nothing"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"status": "past_due"}, ("status", "active", "past_due")),
        (
            {"items": (item("price_ent", "voxflow_enterprise_month", 1), EXTRA)},
            ("price", "price_pro", "price_ent"),
        ),
        ({"items": (replace(PLAN, quantity=3), EXTRA)}, ("quantity", "1", "3")),
        ({"items": (PLAN, replace(EXTRA, quantity=5))}, ("add-ons", "2 extra-agent", "5 extra-agent")),
        ({"items": (PLAN,)}, ("add-ons", "2 extra-agent", None)),
        ({"cancel_at_period_end": True}, ("cancel at period end", "no", "yes")),
        ({"trial_end": END}, ("trial end", None, "2026-12-21T00:00:00+00:00")),
        (
            {
                "items": tuple(
                    replace(each, current_period_end=END + timedelta(days=31)) for each in (PLAN, EXTRA)
                )
            },
            ("period end", "2026-12-21T00:00:00+00:00", "2027-01-21T00:00:00+00:00"),
        ),
    ],
)
def test_each_thing_that_decides_is_compared(
    change: dict[str, Any], difference: tuple[str, str | None, str | None]
) -> None:
    assert compare(HELD, replace(AT_STRIPE, **change), CATALOGUE) == [Difference("sub_1", *difference)]


def test_a_price_that_nobody_named_is_shown_as_stripe_has_it() -> None:
    found = compare(HELD, replace(AT_STRIPE, items=(item("price_x", None, 1), EXTRA)), CATALOGUE)
    assert Difference("sub_1", "price", "price_pro", "price_x, price_extra") in found


def test_what_is_not_held_is_one_difference() -> None:
    assert compare(None, AT_STRIPE, CATALOGUE) == [Difference("sub_1", "subscription", None, "active")]


def test_what_is_listed_after_an_outage_is_what_webhooks_bring() -> None:
    assert set(ACTED_UPON) <= set(EVENTS)
    assert len(ACTED_UPON) <= 20, "Stripe takes no more types in a list"
