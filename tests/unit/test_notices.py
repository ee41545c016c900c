from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.emails import Template
from provisioner.entitlement import Entitlement, Owed
from provisioner.notices import Notice, Situation, due, next_due_at, suspension

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
RUNS = Entitlement(Owed.RUN, "it runs")
CALM = Situation("i1", "sub_1", "MindRoom", "pro", trial_end=None, latest_bill=None, entitlement=RUNS)
ABOUT = {"title": "MindRoom", "plan": "pro"}


@dataclass(frozen=True)
class Bill:
    status: str = "open"
    id: str = "in_1"
    amount_due: int = 2900
    currency: str = "usd"


def trial(left: timedelta) -> Situation:
    return replace(CALM, trial_end=NOW + left)


def kept(left: timedelta, owed: Owed = Owed.SUSPEND) -> Situation:
    return replace(CALM, entitlement=Entitlement(owed, "it ended", NOW + left, NOW + left))


def failing(grace_left: timedelta, bill: Bill | None) -> Situation:
    owed = Entitlement(Owed.RUN, "a payment failed", NOW + grace_left)
    return replace(CALM, latest_bill=bill, entitlement=owed)


def test_nothing_is_due_in_calm_times() -> None:
    assert list(due(CALM, NOW)) == []
    assert next_due_at(CALM, NOW) is None


@pytest.mark.parametrize(
    ("left", "is_due"),
    [
        (3 * DAY + INSTANT, False),
        (3 * DAY, True),
        (INSTANT, True),
        (0 * DAY, False),
        (-1 * DAY, False),
    ],
)
def test_a_trials_end_is_told_three_days_before(left: timedelta, is_due: bool) -> None:
    end = NOW + left
    told = f"{end.day} {end:%B %Y}"
    notice = Notice(
        f"trial-ending:sub_1:{int(end.timestamp())}", Template.TRIAL_ENDING, ABOUT | {"ends_on": told}
    )
    assert list(due(trial(left), NOW)) == [notice] * is_due
    assert next_due_at(trial(left), NOW) == (None if left <= 3 * DAY else NOW + INSTANT)


def test_a_failed_payment_is_told_once_per_bill_with_the_end_of_the_grace() -> None:
    data = ABOUT | {"amount": "29.00 USD", "suspended_on": "6 July 2026"}
    assert list(due(failing(5 * DAY, Bill()), NOW)) == [
        Notice("payment-failed:in_1", Template.PAYMENT_FAILED, data)
    ]


@pytest.mark.parametrize(
    ("currency", "amount"), [("eur", "29.00 EUR"), ("jpy", "2900 JPY"), ("kwd", "2.900 KWD")]
)
def test_an_amount_is_told_as_its_currency_is_counted(currency: str, amount: str) -> None:
    (notice,) = due(failing(5 * DAY, Bill(currency=currency)), NOW)
    assert notice.data["amount"] == amount


@pytest.mark.parametrize("status", ["draft", "paid", "void"])
def test_a_bill_that_nobody_failed_to_pay_is_not_told(status: str) -> None:
    assert list(due(failing(5 * DAY, Bill(status)), NOW)) == []


def test_after_the_grace_the_suspension_is_told_instead() -> None:
    over = replace(CALM, latest_bill=Bill(), entitlement=Entitlement(Owed.SUSPEND, "the grace is over"))
    assert list(due(over, NOW)) == []
    assert suspension(over, 4) == Notice(
        "suspended:i1:4", Template.SUSPENDED, ABOUT | {"reason": "the grace is over", "deleted_on": ""}
    )
    assert suspension(kept(30 * DAY), 2).data["deleted_on"] == "31 July 2026"


@pytest.mark.parametrize(
    ("left", "reminder", "days"),
    [
        (8 * DAY, None, ""),
        (7 * DAY + INSTANT, None, ""),
        (7 * DAY, 7, "7"),
        (7 * DAY - 3 * HOUR, 7, "7"),
        (2 * DAY, 7, "2"),
        (1 * DAY + INSTANT, 7, "2"),
        (1 * DAY, 1, "1"),
        (1 * HOUR, 1, "1"),
        (0 * DAY, None, ""),
        (-1 * DAY, None, ""),
    ],
)
def test_deletion_is_told_a_week_and_a_day_before_the_nearest_only(
    left: timedelta, reminder: int | None, days: str
) -> None:
    notices = list(due(kept(left), NOW))
    if reminder is None:
        assert notices == []
    else:
        end = NOW + left
        data = ABOUT | {"days": days, "deleted_on": f"{end.day} {end:%B %Y}"}
        assert notices == [Notice(f"deletion-soon:i1:sub_1:{reminder}", Template.DELETION_SOON, data)]


situations = st.builds(
    lambda trial_end, delete_at: replace(
        CALM, trial_end=trial_end, entitlement=Entitlement(Owed.SUSPEND, "it ended", delete_at, delete_at)
    ),
    *2 * [st.none() | st.integers(-20, 20).map(lambda days: NOW + days * DAY)],
)


@given(situations, st.timedeltas(timedelta(0), 30 * DAY))
def test_nothing_new_becomes_due_before_the_moment_told(situation: Situation, passed: timedelta) -> None:
    known = {notice.dedupe_key for notice in due(situation, NOW)}
    later = {notice.dedupe_key for notice in due(situation, NOW + passed)}
    at = next_due_at(situation, NOW)
    if at is None or NOW + passed < at:
        assert later <= known
    if at is not None:
        assert {notice.dedupe_key for notice in due(situation, at)} - known
