"""What a subscription's items cost: a period of each, or the share of one that a change is about. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from sandbox.stripe_api.billing.discounts import cuts, position
from sandbox.stripe_api.billing.periods import next_end
from sandbox.stripe_api.money import amount_text
from sandbox.stripe_api.objects import BillLine, Json, Period
from sandbox.stripe_api.operation import found
from sandbox.stripe_api.store import State


def next_period(item: Json, state: State) -> Json:
    """An item in the period after its present one."""
    recurring = found(state, "price", item["price"])["recurring"]
    start = item["current_period_end"]
    end = next_end(item["_anchor"], start, recurring["interval"], recurring["interval_count"])
    return {**item, "current_period_start": start, "current_period_end": end}


def recurring_line(item: Json, state: State, *, trial: bool = False) -> BillLine:
    """An item's present period; costs nothing in a trial."""
    price = found(state, "price", item["price"])
    name, quantity = _name(price, state), item["quantity"]
    each = amount_text(price["unit_amount"], price["currency"])
    full = f"{quantity} × {name} (at {each} / {price['recurring']['interval']})"  # noqa: RUF001  # as Stripe writes it
    unit_amount = 0 if trial else price["unit_amount"]
    return BillLine(
        description=f"Trial period for {name}" if trial else full,
        amount=unit_amount * quantity,
        unit_amount=unit_amount,
        quantity=quantity,
        price=price["id"],
        product=price["product"],
        item=item["id"],
        period=_period(item),
    )


def one_time_line(price: Json, quantity: int, state: State, now: int) -> BillLine:
    """Something bought once, along with a subscription."""
    return BillLine(
        description=_name(price, state),
        amount=price["unit_amount"] * quantity,
        unit_amount=price["unit_amount"],
        quantity=quantity,
        price=price["id"],
        product=price["product"],
        item=None,
        period=Period(now, now),
    )


def prorations(before: Json, after: Json, state: State, now: int) -> list[BillLine]:
    """What a change of a subscription's items gives back and costs for the rest of their periods.

    An item whose period begins anew is only given back: its new period is billed whole.
    """
    then, since = _net_amounts(before, state, now), _net_amounts(after, state, now)
    old, new = _by_id(before), _by_id(after)
    anew = {item["id"] for item in new_periods(before, after)}
    lines = [
        _share(item, -then[item_id], state, now, "Unused time on")
        for item_id, item in old.items()
        if _sold(item) != _sold(new.get(item_id))
    ]
    lines += [
        _share(item, since[item_id], state, now, "Remaining time on")
        for item_id, item in new.items()
        if _sold(item) != _sold(old.get(item_id)) and item_id not in anew
    ]
    return [line for line in lines if line.amount]


def new_periods(before: Json, after: Json) -> list[Json]:
    """The items whose period a change made begin anew: it is neither what theirs was nor another item's."""
    old = _by_id(before)
    running = {_period(item) for item in old.values()}
    return [
        item
        for item in after["items"]["data"]
        if (_period(item) != _period(old[item["id"]]) if item["id"] in old else _period(item) not in running)
    ]


def _by_id(subscription: Json) -> dict[str, Json]:
    return {item["id"]: item for item in subscription["items"]["data"]}


def _sold(item: Json | None) -> object:
    """What of an item costs money."""
    return None if item is None else (item["price"], item["quantity"], item["current_period_start"])


def _net_amounts(subscription: Json, state: State, now: int) -> Mapping[str, int]:
    """What a period of each item costs after the subscription's discounts."""
    items = subscription["items"]["data"]
    sold = [position(found(state, "price", item["price"]), item["quantity"]) for item in items]
    amounts = [one.amount for one in sold]
    for cut in cuts(discounts_of(subscription, state), sold, state, now):
        amounts = [amount - off for amount, off in zip(amounts, cut.amounts, strict=True)]
    return {item["id"]: amount for item, amount in zip(items, amounts, strict=True)}


def discounts_of(subscription: Json, state: State) -> Sequence[Json]:
    """A subscription's discounts."""
    return [found(state, "discount", one) for one in subscription["discounts"]]


def _share(item: Json, amount: int, state: State, now: int, words: str) -> BillLine:
    """The part of an item's period after `now`, priced to the second."""
    price = found(state, "price", item["price"])
    period = _period(item)
    part = Decimal(max(period.end - now, 0)) / (period.end - period.start)
    many = "" if item["quantity"] == 1 else f"{item['quantity']} × "  # noqa: RUF001
    day = datetime.fromtimestamp(now, UTC)
    return BillLine(
        description=f"{words} {many}{_name(price, state)} after {day:%-d %b %Y}",
        amount=int((amount * part).quantize(Decimal(1), ROUND_HALF_UP)),
        unit_amount=price["unit_amount"],
        quantity=item["quantity"],
        price=price["id"],
        product=price["product"],
        item=item["id"],
        period=Period(now, period.end),
        proration=True,
    )


def _period(item: Json) -> Period:
    return Period(item["current_period_start"], item["current_period_end"])


def _name(price: Json, state: State) -> str:
    name: str = found(state, "product", price["product"])["name"]
    return name
