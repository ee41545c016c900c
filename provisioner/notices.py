"""Which e-mails about a subscription are due, and when the next one will be. Pure.

A notice is due until something makes it moot; its dedupe key makes one sending of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final, Protocol

from catalogue.money import in_figures
from provisioner.emails import Template
from provisioner.entitlement import Entitlement, Owed, date

UNPAID: Final = frozenset({"open", "uncollectible"})
TRIAL_REMINDER: Final = timedelta(days=3)
DELETION_REMINDERS: Final = (timedelta(days=1), timedelta(days=7))
"""How long before, the last one first."""


class Bill(Protocol):
    """A bill of Stripe's; `amount_due` in the smallest unit of `currency`."""

    @property
    def id(self) -> str:
        """Stripe's id."""
        ...

    @property
    def status(self) -> str:
        """Stripe's word."""
        ...

    @property
    def amount_due(self) -> int:
        """What is to be paid."""
        ...

    @property
    def currency(self) -> str:
        """Three small letters."""
        ...


@dataclass(frozen=True, slots=True)
class Situation:
    """How an instance and its subscription are.

    Attributes:
        title: the product's.
        trial_end: when the trial turns into a paid subscription; None when there is none or it will not.
        latest_bill: the latest bill of a subscription that is past due.
        entitlement: what was decided.
    """

    instance_id: str
    subscription_id: str
    title: str
    plan: str
    trial_end: datetime | None
    latest_bill: Bill | None
    entitlement: Entitlement


@dataclass(frozen=True, slots=True)
class Notice:
    """An e-mail for `emails.write_email`."""

    dedupe_key: str
    template: Template
    data: Mapping[str, str]


def due(situation: Situation, now: datetime) -> Iterator[Notice]:
    """Yield the notices that are due at `now`."""
    about = {"title": situation.title, "plan": situation.plan}
    trial_end, owed = situation.trial_end, situation.entitlement
    if trial_end is not None and trial_end - TRIAL_REMINDER <= now < trial_end:
        key = f"trial-ending:{situation.subscription_id}:{int(trial_end.timestamp())}"
        yield Notice(key, Template.TRIAL_ENDING, about | {"ends_on": date(trial_end)})
    bill = situation.latest_bill
    # A draft was not tried yet; when the grace period is over, the suspension is told instead.
    if bill is not None and bill.status in UNPAID and owed.owed is Owed.RUN and owed.again_at is not None:
        amount = f"{in_figures(bill.amount_due, bill.currency)} {bill.currency.upper()}"
        told = {"amount": amount, "suspended_on": date(owed.again_at)}
        yield Notice(f"payment-failed:{bill.id}", Template.PAYMENT_FAILED, about | told)
    if owed.delete_at is not None:
        yield from _deletion(situation, owed.delete_at, now)


def next_due_at(situation: Situation, now: datetime) -> datetime | None:
    """When the first notice that is not due at `now` will be, if nothing but time passes."""
    moments = []
    if situation.trial_end is not None:
        moments.append(situation.trial_end - TRIAL_REMINDER)
    if situation.entitlement.delete_at is not None:
        moments += [situation.entitlement.delete_at - before for before in DELETION_REMINDERS]
    return min((moment for moment in moments if moment > now), default=None)


def suspension(situation: Situation, generation: int) -> Notice:
    """Return the notice that an instance was suspended by this generation of its spec."""
    owed = situation.entitlement
    data = {
        "title": situation.title,
        "plan": situation.plan,
        "reason": owed.reason,
        "deleted_on": date(owed.delete_at) if owed.delete_at else "",
    }
    return Notice(f"suspended:{situation.instance_id}:{generation}", Template.SUSPENDED, data)


def _deletion(situation: Situation, delete_at: datetime, now: datetime) -> Iterator[Notice]:
    """The last reminder whose time has come; the ones before it are moot."""
    left = delete_at - now
    reminder = next((before for before in DELETION_REMINDERS if timedelta(0) < left <= before), None)
    if reminder is not None:
        days = ceil(left / timedelta(days=1))
        key = f"deletion-soon:{situation.instance_id}:{situation.subscription_id}:{reminder.days}"
        data = {"title": situation.title, "plan": situation.plan}
        data |= {"days": str(days), "deleted_on": date(delete_at)}
        yield Notice(key, Template.DELETION_SOON, data)
