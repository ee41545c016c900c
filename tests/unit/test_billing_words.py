import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from platform_api.billing.meaning import meaning
from platform_api.billing.promo_codes import why_not
from platform_api.billing.queries import Subscription
from platform_api.stripe_objects import PromotionCode

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PAID = Subscription(
    id="sub_1",
    product="mindroom",
    plan="starter",
    interval="month",
    status="active",
    source="stripe",
    quantity=1,
    add_ons={},
    current_period_end=NOON,
    cancel_at_period_end=False,
    trial_end=None,
    past_due_since=None,
    review_since=None,
    instance_id=None,
    slug=None,
    phase=None,
    delete_at=None,
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "It is paid for until 1 June 2026 and then is renewed."),
        ({"cancel_at_period_end": True}, "It is paid for until 1 June 2026 and then ends."),
        (
            {"status": "trialing", "trial_end": NOON + timedelta(days=1)},
            "The trial runs until 2 June 2026 and then is renewed.",
        ),
        ({"status": "past_due"}, "or the instance is suspended on 8 June 2026."),
        ({"status": "past_due", "phase": "suspended"}, "is suspended: pay"),
        ({"status": "unpaid"}, "suspended: pay"),
        ({"status": "paused"}, "is paused"),
        ({"status": "canceled", "phase": "suspended"}, "is suspended: subscribe again to get it back"),
        ({"status": "canceled", "phase": "suspended", "delete_at": NOON}, "kept until 1 June 2026"),
        (
            {"status": "canceled", "phase": "deleted", "delete_at": NOON},
            "ended: subscribe again to begin anew",
        ),
        ({"status": "canceled"}, "ended: subscribe again to begin anew"),
        ({"status": "incomplete"}, "not complete"),
        ({"status": "incomplete_expired"}, "nothing was bought"),
        ({"status": "of_the_future"}, "'of_the_future', which we do not know yet"),
        ({"source": "free"}, "It is free"),
        ({"source": "free", "status": "canceled"}, "It has ended"),
    ],
)
def test_every_status_means_something_in_a_sentence(changes: dict[str, object], said: str) -> None:
    held = dataclasses.replace(PAID, **changes)  # type: ignore[arg-type]
    sentence = meaning(held, NOON + timedelta(days=7))
    assert said in sentence
    assert sentence.endswith(".")


CODE = PromotionCode("promo_1", "LAUNCH", active=False, customer=None, expires_at=None, used_up=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"active": True, "customer": "cus_other"}, "another customer"),
        ({"expires_at": NOON}, "expired on 1 June 2026"),
        ({"expires_at": NOON + timedelta(seconds=1)}, "no longer valid"),
        ({"used_up": True, "expires_at": NOON}, "as often as it may be"),
        ({}, "no longer valid"),
    ],
)
def test_why_a_promotion_code_cannot_be_used(changes: dict[str, object], said: str) -> None:
    assert said in why_not([dataclasses.replace(CODE, **changes)], NOON)  # type: ignore[arg-type]
