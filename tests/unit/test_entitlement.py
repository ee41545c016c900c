import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from provisioner.entitlement import Entitlement, Owed, SubscriptionFacts, entitlement

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Terms:
    grace_days: int = 7
    retention_days: int = 30


def failing(since: timedelta) -> SubscriptionFacts:
    return SubscriptionFacts("past_due", past_due_since=NOW - since)


def ended(since: timedelta, *, under_review: bool = False) -> SubscriptionFacts:
    return SubscriptionFacts("canceled", ended_at=NOW - since, under_review=under_review)


TABLE = [
    # what Stripe says, what is owed, decided again after, data deleted after
    (SubscriptionFacts("trialing"), Owed.RUN, None, None),
    (SubscriptionFacts("active"), Owed.RUN, None, None),
    (SubscriptionFacts("active", past_due_since=NOW - 400 * DAY), Owed.RUN, None, None),
    (SubscriptionFacts("active", under_review=True), Owed.RUN, None, None),
    (SubscriptionFacts("past_due"), Owed.RUN, None, None),
    (failing(-1 * DAY), Owed.RUN, 8 * DAY, None),
    (failing(0 * DAY), Owed.RUN, 7 * DAY, None),
    (failing(7 * DAY - INSTANT), Owed.RUN, INSTANT, None),
    (failing(7 * DAY), Owed.SUSPEND, None, None),
    (failing(400 * DAY), Owed.SUSPEND, None, None),
    (SubscriptionFacts("unpaid"), Owed.SUSPEND, None, None),
    (SubscriptionFacts("paused"), Owed.SUSPEND, None, None),
    (SubscriptionFacts("canceled"), Owed.SUSPEND, None, None),
    (ended(0 * DAY), Owed.SUSPEND, 30 * DAY, 30 * DAY),
    (ended(30 * DAY - INSTANT), Owed.SUSPEND, INSTANT, INSTANT),
    (ended(30 * DAY), Owed.DELETE, None, 0 * DAY),
    (ended(400 * DAY), Owed.DELETE, None, -370 * DAY),
    (ended(0 * DAY, under_review=True), Owed.SUSPEND, None, None),
    (ended(400 * DAY, under_review=True), Owed.SUSPEND, None, None),
    (SubscriptionFacts("incomplete"), Owed.NOTHING_YET, None, None),
    (SubscriptionFacts("incomplete_expired", ended_at=NOW - 400 * DAY), Owed.NOTHING, None, None),
    (SubscriptionFacts("frozen_by_a_future_stripe", ended_at=NOW - 400 * DAY), Owed.UNKNOWN, None, None),
    (SubscriptionFacts(""), Owed.UNKNOWN, None, None),
]


@pytest.mark.parametrize(("facts", "owed", "again", "delete"), TABLE)
def test_every_status_has_its_entitlement_at_every_border_of_time(
    facts: SubscriptionFacts, owed: Owed, again: timedelta | None, delete: timedelta | None
) -> None:
    decided = entitlement(facts, Terms(), NOW)
    assert decided.owed is owed
    assert decided.again_at == (None if again is None else NOW + again)
    assert decided.delete_at == (None if delete is None else NOW + delete)
    assert decided.reason


def test_the_table_holds_every_status_the_official_client_knows() -> None:
    known = set(re.findall(r"[\"'](\w+)[\"']", str(stripe.Subscription.__annotations__["status"])))
    assert {"active", "past_due"} <= known
    unknown = {s for s in known if entitlement(SubscriptionFacts(s), Terms(), NOW).owed is Owed.UNKNOWN}
    assert not unknown
    assert known <= {facts.status for facts, *_ in TABLE}


def test_reasons_name_the_day() -> None:
    assert entitlement(failing(0 * DAY), Terms(), NOW) == Entitlement(
        Owed.RUN, "a payment failed; it runs on until 8 July 2026", NOW + 7 * DAY
    )
    over = entitlement(ended(30 * DAY), Terms(), NOW)
    assert over.reason == "the subscription ended on 1 June 2026; its data was kept until 1 July 2026"


@pytest.mark.parametrize(
    ("facts", "terms", "owed"),
    [
        (failing(2 * DAY), Terms(grace_days=3), Owed.RUN),
        (failing(2 * DAY), Terms(grace_days=2), Owed.SUSPEND),
        (failing(0 * DAY), Terms(grace_days=0), Owed.SUSPEND),
        (ended(2 * DAY), Terms(retention_days=3), Owed.SUSPEND),
        (ended(2 * DAY), Terms(retention_days=2), Owed.DELETE),
        (ended(0 * DAY), Terms(retention_days=0), Owed.DELETE),
    ],
)
def test_the_plan_says_how_long(facts: SubscriptionFacts, terms: Terms, owed: Owed) -> None:
    assert entitlement(facts, terms, NOW).owed is owed


moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
statuses = st.sampled_from(sorted({facts.status for facts, *_ in TABLE})) | st.text(max_size=8)
all_facts = st.builds(
    SubscriptionFacts, statuses, st.none() | moments, st.none() | moments, under_review=st.booleans()
)
all_terms = st.builds(Terms, st.integers(0, 365), st.integers(0, 3650))


@given(all_facts, all_terms, moments)
def test_data_goes_only_after_an_end_its_whole_retention_and_no_review(
    facts: SubscriptionFacts, terms: Terms, now: datetime
) -> None:
    if entitlement(facts, terms, now).owed is Owed.DELETE:
        assert facts.status == "canceled"
        assert not facts.under_review
        assert facts.ended_at is not None
        assert now - facts.ended_at >= terms.retention_days * DAY


@given(all_facts, all_terms, moments, st.timedeltas(timedelta(0), 4000 * DAY))
def test_time_alone_changes_the_answer_at_the_moment_told_and_never_back(
    facts: SubscriptionFacts, terms: Terms, now: datetime, passed: timedelta
) -> None:
    before = entitlement(facts, terms, now)
    after = entitlement(facts, terms, now + passed)
    if before.again_at is None or now + passed < before.again_at:
        assert after.owed is before.owed
    else:
        worse = [Owed.RUN, Owed.SUSPEND, Owed.DELETE]
        assert worse.index(after.owed) == worse.index(before.owed) + 1
    assert before.again_at is None or before.again_at > now
