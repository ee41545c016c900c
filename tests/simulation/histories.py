"""What may happen to a subscription, and to the news of it."""

from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import strategies as st

Plan = Literal["pro", "enterprise"]
Heal = Literal["sweep", "events", "both"]


@dataclass(frozen=True)
class Wait:
    """Days pass, on the customer's test clock."""

    days: int


@dataclass(frozen=True)
class Buy:
    """A new subscription, unless one lives."""

    plan: Plan
    trial_days: int


@dataclass(frozen=True)
class Change:
    """Another plan, how many of it, how many add-ons."""

    plan: Plan
    quantity: int
    agents: int


@dataclass(frozen=True)
class Cancel:
    """The end: now, or when the period ends."""

    now: bool


@dataclass(frozen=True)
class Stay:
    """A cancellation for later is taken back."""


@dataclass(frozen=True)
class Card:
    """From here on the customer's card pays, or does not."""

    pays: bool


@dataclass(frozen=True)
class PayBills:
    """The customer tries to pay what is open."""


@dataclass(frozen=True)
class Refund:
    """The last payment goes back in full."""


Act = Wait | Buy | Change | Cancel | Stay | Card | PayBills | Refund


@dataclass(frozen=True)
class Step:
    """An act, what becomes of its webhooks to the troubled Berth, and what its worker then does.

    Attributes:
        duplicates: how many more times each webhook is delivered.
        drop: how many are never delivered.
        late: whether they wait until somebody lets the late ones through, in any order.
        let_through: whether this step lets the late ones through.
        seed: of the order.
        passes: one entry for each pass over the queue: None goes well, a number is after how many dealings
            with the world the process dies.
    """

    act: Act
    duplicates: int
    drop: int
    late: bool
    let_through: bool
    seed: int
    passes: tuple[int | None, ...]


@dataclass(frozen=True)
class History:
    """Steps, and how the troubled Berth comes to itself in the end."""

    steps: tuple[Step, ...]
    heal: Heal


def _acts() -> st.SearchStrategy[Act]:
    plans = st.sampled_from(["pro", "enterprise"])
    return st.one_of(
        st.builds(Wait, st.sampled_from([1, 3, 8, 31])),
        st.builds(Buy, plans, st.sampled_from([0, 0, 3])),
        st.builds(Change, plans, st.integers(1, 2), st.integers(0, 2)),
        st.builds(Cancel, st.booleans()),
        st.just(Stay()),
        st.builds(Card, st.booleans()),
        st.just(PayBills()),
        st.just(Refund()),
    )


def histories() -> st.SearchStrategy[History]:
    """Histories of up to ten steps; the first one buys."""
    steps = st.builds(
        Step,
        _acts(),
        duplicates=st.integers(0, 2),
        drop=st.sampled_from([0, 1, 3, 50, 50]),
        late=st.booleans(),
        let_through=st.booleans(),
        seed=st.integers(0, 1000),
        passes=st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=2).map(tuple),
    )
    return st.one_of(
        _histories(steps, "events"), _histories(steps, "both"), _histories(steps.filter(_is_listed), "sweep")
    )


def _histories(steps: st.SearchStrategy[Step], heal: Heal) -> st.SearchStrategy[History]:
    more = st.lists(steps, max_size=9)
    return st.builds(lambda one, rest: History((one, *rest), heal), steps.map(_buying), more)


def _is_listed(step: Step) -> bool:
    """Whether a list of subscriptions tells of it: of money that went back, only events do."""
    return not isinstance(step.act, Refund)


def _buying(step: Step) -> Step:
    return replace(step, act=Buy("pro", step.seed % 2 * 3))
