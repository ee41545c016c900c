"""What coupons take off: who may redeem them, how much, and for how long. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.periods import period_end
from sandbox.stripe_api.errors import ApiError, missing_object
from sandbox.stripe_api.money import amount_text
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.params import Nested, Text
from sandbox.stripe_api.store import Query, State, every


class DiscountChoice(Nested):
    """An element of a call's `discounts`: a coupon, or a promotion code's id."""

    coupon: Text | None = None
    promotion_code: Text | None = None


@dataclass(frozen=True)
class Redemption:
    """A coupon about to be redeemed, and the code it was asked for by, if any."""

    coupon: Json
    promotion_code: Json | None = None


class Position(NamedTuple):
    """What a discount may take a part of: some of a product, for an amount in the smallest unit."""

    product: str
    amount: int


def position(price: Json, quantity: int) -> Position:
    """So many of a price."""
    return Position(price["product"], price["unit_amount"] * quantity)


@dataclass(frozen=True)
class Order:
    """What a coupon is to be redeemed for."""

    customer: str | None
    currency: str
    sold: Sequence[Position]

    @property
    def subtotal(self) -> int:
        """What it costs together, in the currency's smallest unit."""
        return sum(one.amount for one in self.sold)


@dataclass(frozen=True)
class Cut:
    """What one discount takes off each line, in the order of the lines."""

    discount: str
    amounts: tuple[int, ...]

    @property
    def total(self) -> int:
        """What it takes off together."""
        return sum(self.amounts)


def redemptions(
    wanted: Sequence[DiscountChoice], order: Order, state: State, now: int
) -> tuple[Redemption, ...]:
    """The coupons that a call's `discounts` name.

    Raises:
        ApiError: there is no such coupon or code, or the order may not redeem it.
    """
    return tuple(
        _redemption(choice, order, state, now, f"discounts[{position}]")
        for position, choice in enumerate(wanted)
    )


def _redemption(choice: DiscountChoice, order: Order, state: State, now: int, param: str) -> Redemption:
    if (choice.coupon is None) == (choice.promotion_code is None):
        raise ApiError("You must give exactly one of coupon and promotion_code.", param=param)
    if choice.promotion_code is not None:
        code = found(state, "promotion_code", choice.promotion_code, f"{param}[promotion_code]")
        return by_code(code, order, state, now, f"{param}[promotion_code]")
    coupon = found_coupon(state, choice.coupon or "", f"{param}[coupon]")
    _check_coupon(coupon, order, now, f"{param}[coupon]")
    return Redemption(coupon)


def typed_code(code: str, order: Order, state: State, now: int) -> Redemption:
    """The coupon behind a code as a person typed it.

    Raises:
        ApiError: the sentence for the person.
    """
    codes = every(state, Query("promotion_code", label=code.strip().upper()), 100)
    usable = next((one for one in codes if is_active(one, state, now)), None)
    if usable is None:
        raise ApiError("This code is invalid." if not codes else "This code has expired.")
    return by_code(usable, order, state, now, "promotion_code")


def by_code(code: Json, order: Order, state: State, now: int, param: str) -> Redemption:
    """The coupon of a promotion code.

    Raises:
        ApiError: the order may not redeem it.
    """
    if not is_active(code, state, now):
        raise ApiError("This promotion code is not active.", "promotion_code_inactive", param)
    if code["customer"] not in (None, order.customer):
        raise ApiError("This promotion code is for another customer.", param=param)
    restrictions = code["restrictions"]
    if restrictions["first_time_transaction"] and _has_paid(order.customer, state):
        raise ApiError("This promotion code is only for a customer's first purchase.", param=param)
    least, currency = restrictions["minimum_amount"], restrictions["minimum_amount_currency"]
    if least is not None and (order.currency != currency or order.subtotal < least):
        raise ApiError(
            f"This promotion code needs an order of at least {amount_text(least, currency)}.", param=param
        )
    coupon = found_coupon(state, code["promotion"]["coupon"], param)
    _check_coupon(coupon, order, now, param)
    return Redemption(coupon, code)


def found_coupon(state: State, coupon_id: str, param: str = "id") -> Json:
    """The coupon of that id.

    Raises:
        ApiError: there is none, or it was deleted.
    """
    coupon = found(state, "coupon", coupon_id, param)
    if coupon["_deleted"]:
        raise missing_object("coupon", coupon_id, param)
    return coupon


def _check_coupon(coupon: Json, order: Order, now: int, param: str) -> None:
    if not _is_valid(coupon, now):
        raise ApiError(f"Coupon {coupon['id']} is used up or expired.", "coupon_expired", param)
    if coupon["currency"] not in (None, order.currency):
        raise ApiError(f"Coupon {coupon['id']} is in another currency than the order.", param=param)
    if not any(_applies(coupon, one.product) for one in order.sold):
        raise ApiError(f"Coupon {coupon['id']} applies to nothing in this order.", param=param)


def _applies(coupon: Json, product: str) -> bool:
    products = coupon.get("_products")
    return products is None or product in products


def _has_paid(customer: str | None, state: State) -> bool:
    if customer is None:
        return False
    return bool(every(state, Query("charge", label=customer, keep=lambda one: bool(one["paid"])), 1))


def is_active(code: Json, state: State, now: int) -> bool:
    """Whether a promotion code can be redeemed at that time: it and its coupon."""
    coupon = found(state, "coupon", code["promotion"]["coupon"])
    return code["active"] and _is_in_time(code["expires_at"], now) and _is_valid(coupon, now)


def _is_valid(coupon: Json, now: int) -> bool:
    return coupon["valid"] and _is_in_time(coupon["redeem_by"], now)


def _is_in_time(ends: int | None, now: int) -> bool:
    """Whether that is still to come in its customer's time, which may be a test clock's."""
    return ends is None or now < ends


def is_used_up(redeemable: Json) -> bool:
    """Whether a coupon or a promotion code was redeemed as often as it can be."""
    most = redeemable["max_redemptions"]
    return most is not None and redeemable["times_redeemed"] >= most


def redeemed(
    given: Sequence[Redemption], owner: Mapping[str, str | None], moment: Moment
) -> tuple[Json, ...]:
    """The discounts that coupons become; `owner` says whose: customer, subscription, checkout_session."""
    return tuple(_discount(one, owner, moment) for one in given)


def _discount(one: Redemption, owner: Mapping[str, str | None], moment: Moment) -> Json:
    coupon, code = one.coupon, one.promotion_code
    end = None
    if coupon["duration"] == "repeating":
        end = period_end(moment.now, "month", coupon["duration_in_months"])
    source = {"coupon": coupon["id"], "promotion_code": None if code is None else code["id"]}
    return objects.discount(moment.new_id("di"), moment.now, end, {**owner, **source})


def counted(given: Sequence[Redemption]) -> tuple[Json, ...]:
    """The coupons and codes with one redemption more, to be saved once the redemption stands."""
    return tuple(
        _once_more(one)
        for redemption in given
        for one in (redemption.coupon, redemption.promotion_code)
        if one is not None
    )


def _once_more(one: Json) -> Json:
    once_more = {**one, "times_redeemed": one["times_redeemed"] + 1}
    redeemable = "valid" if one["object"] == "coupon" else "active"
    return {**once_more, redeemable: one[redeemable] and not is_used_up(once_more)}


def cuts(discounts: Sequence[Json], sold: Sequence[Position], state: State, now: int) -> tuple[Cut, ...]:
    """What the discounts that apply now take off what is sold, one after the other, if anything."""
    current = [one for one in discounts if one["end"] is None or now < one["end"]]
    off = each_off([found(state, "coupon", one["source"]["coupon"]) for one in current], sold)
    return tuple(Cut(one["id"], amounts) for one, amounts in zip(current, off, strict=True) if any(amounts))


def each_off(coupons: Sequence[Json], sold: Sequence[Position]) -> list[tuple[int, ...]]:
    """What each coupon takes off what is sold, in turn: of what those before it left."""
    left = [one.amount for one in sold]
    each: list[tuple[int, ...]] = []
    for coupon in coupons:
        within = [
            amount if _applies(coupon, one.product) else 0 for amount, one in zip(left, sold, strict=True)
        ]
        off = amounts_off(coupon, within)
        left = [amount - taken for amount, taken in zip(left, off, strict=True)]
        each.append(off)
    return each


def lasting(discounts: Sequence[Json], state: State, now: int) -> tuple[Json, ...]:
    """The discounts that remain after an invoice they took something off: `once` has been."""
    return tuple(
        one
        for one in discounts
        if (one["end"] is None or now < one["end"])
        and found(state, "coupon", one["source"]["coupon"])["duration"] != "once"
    )


def amounts_off(coupon: Json, amounts: Sequence[int]) -> tuple[int, ...]:
    """What a coupon takes off each of these amounts: its percentage, or its sum in proportion to them."""
    if coupon["percent_off"] is not None:
        share = Decimal(str(coupon["percent_off"])) / 100
        return tuple(_rounded(amount * share) for amount in amounts)
    chargeable = [max(amount, 0) for amount in amounts]
    whole = sum(chargeable)
    off = min(coupon["amount_off"], whole)
    taken: list[int] = []
    passed = 0
    for amount in chargeable:
        # What is taken up to here is rounded, not each share, so that the shares add up.
        passed += amount
        taken.append(_rounded(Decimal(off) * passed / whole) - sum(taken) if whole else 0)
    return tuple(taken)


def _rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))
