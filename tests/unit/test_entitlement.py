import re
from datetime import UTC, datetime, timedelta

import pytest
import stripe

from provisioner.entitlement import GRACE, Entitlement, Owed, SubscriptionFacts, entitlement

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)

TABLE = [
    # status, how long we have seen it, what is owed, decided again after
    ("trialing", 0 * DAY, Owed.RUN, None),
    ("trialing", 400 * DAY, Owed.RUN, None),
    ("active", 0 * DAY, Owed.RUN, None),
    ("active", 400 * DAY, Owed.RUN, None),
    ("past_due", 0 * DAY, Owed.RUN, 7 * DAY),
    ("past_due", 6 * DAY, Owed.RUN, 1 * DAY),
    ("past_due", 7 * DAY - INSTANT, Owed.RUN, INSTANT),
    ("past_due", 7 * DAY, Owed.SUSPEND, None),
    ("past_due", 400 * DAY, Owed.SUSPEND, None),
    ("unpaid", 0 * DAY, Owed.SUSPEND, None),
    ("paused", 0 * DAY, Owed.SUSPEND, None),
    ("canceled", 0 * DAY, Owed.SUSPEND, None),
    ("canceled", 400 * DAY, Owed.SUSPEND, None),
    ("incomplete", 0 * DAY, Owed.NOTHING_YET, None),
    ("incomplete_expired", 0 * DAY, Owed.NOTHING, None),
    ("frozen_by_a_future_stripe", 0 * DAY, Owed.UNKNOWN, None),
    ("", 0 * DAY, Owed.UNKNOWN, None),
]


@pytest.mark.parametrize(("status", "seen", "owed", "again"), TABLE)
def test_every_status_has_its_entitlement(
    status: str, seen: timedelta, owed: Owed, again: timedelta | None
) -> None:
    decided = entitlement(SubscriptionFacts(status, NOW - seen), NOW)
    assert decided.owed is owed
    assert decided.again_at == (None if again is None else NOW + again)
    assert decided.reason


def test_the_table_holds_every_status_the_official_client_knows() -> None:
    known = set(re.findall(r"[\"'](\w+)[\"']", str(stripe.Subscription.__annotations__["status"])))
    assert {"active", "past_due"} <= known
    unknown = {s for s in known if entitlement(SubscriptionFacts(s, NOW), NOW).owed is Owed.UNKNOWN}
    assert not unknown
    assert known <= {row[0] for row in TABLE}


def test_the_reason_tells_when_the_grace_ends() -> None:
    decided = entitlement(SubscriptionFacts("past_due", NOW), NOW)
    assert decided == Entitlement(Owed.RUN, "a payment failed; it runs on until 2026-07-08", NOW + GRACE)


def test_another_grace_may_be_given() -> None:
    facts = SubscriptionFacts("past_due", NOW - 2 * DAY)
    assert entitlement(facts, NOW, grace=3 * DAY).owed is Owed.RUN
    assert entitlement(facts, NOW, grace=1 * DAY).owed is Owed.SUSPEND
