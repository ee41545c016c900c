"""Coupons and promotion codes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.discounts import found_coupon, is_active, is_used_up
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Operation,
    found,
    listing,
    retrieval,
    update,
    updated,
)
from sandbox.stripe_api.params import (
    ClearableText,
    Count,
    DatedListParams,
    Flag,
    FormList,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
    Timestamp,
)
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.resources.products import Currency
from sandbox.stripe_api.store import Query, State, every

_RANDOM_LENGTH = 8
Positive = Annotated[int, Field(ge=1, le=999_999_999)]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,500}$"), AfterValidator(str.upper)]


class _AppliesTo(Nested):
    products: Annotated[FormList[Text], Field(min_length=1)]


class CouponCreate(Params):
    """A new coupon; `id` may be chosen."""

    id: Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")] | None = None
    amount_off: Positive | None = None
    currency: Currency | None = None
    percent_off: Annotated[float, Field(gt=0, le=100)] | None = None
    duration: Literal["forever", "once", "repeating"] = "once"
    duration_in_months: Annotated[int, Field(ge=1, le=1200)] | None = None
    max_redemptions: Positive | None = None
    name: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    redeem_by: Timestamp | None = None
    applies_to: _AppliesTo | None = None
    metadata: Metadata = Field(default_factory=dict)


class CouponUpdate(Params):
    """An edit: never of what it takes off."""

    name: ClearableText = None
    metadata: MetadataChange = Field(default_factory=dict)


class _Promotion(Nested):
    type: Literal["coupon"]
    coupon: Text


class _Restrictions(Nested):
    first_time_transaction: Flag = False
    minimum_amount: Count | None = None
    minimum_amount_currency: Currency | None = None


class CodeCreate(Params):
    """A new promotion code; made up when none is given."""

    promotion: _Promotion
    code: Code | None = None
    active: Flag = True
    customer: Text | None = None
    expires_at: Timestamp | None = None
    max_redemptions: Positive | None = None
    restrictions: _Restrictions = _Restrictions()
    metadata: Metadata = Field(default_factory=dict)


class CodeUpdate(Params):
    """An edit."""

    active: Flag = True
    metadata: MetadataChange = Field(default_factory=dict)


class CodeList(DatedListParams):
    """A page of promotion codes."""

    active: Flag | None = None
    code: Code | None = None
    coupon: Text | None = None
    customer: Text | None = None


def _create_coupon(asked: Asked[CouponCreate]) -> Change:
    params, moment = asked.params, asked.moment
    if (params.amount_off is None) == (params.percent_off is None):
        raise ApiError("You must give exactly one of amount_off and percent_off.", param="percent_off")
    if (params.amount_off is None) != (params.currency is None):
        raise ApiError("amount_off and currency go together.", "parameter_missing", "currency")
    if (params.duration == "repeating") != (params.duration_in_months is not None):
        raise ApiError(
            "duration_in_months goes together with the duration `repeating`.", param="duration_in_months"
        )
    if params.redeem_by is not None and params.redeem_by <= moment.now:
        raise ApiError("redeem_by must be in the future.", param="redeem_by")
    products = None if params.applies_to is None else params.applies_to.products
    for position, product in enumerate(products or []):
        found(asked.state, "product", product, f"applies_to[products][{position}]")
    coupon_id = params.id or _random(asked)
    if asked.state.find(coupon_id) is not None:
        raise ApiError("Coupon already exists.", "resource_already_exists", "id")
    new = objects.coupon(coupon_id, moment.now, {**params.model_dump(), "products": products})
    answer = shown(new, asked.state)
    return Change(answer, (new,), (Draft("coupon.created", answer),))


def _random(asked: Asked[Any]) -> str:
    return asked.moment.new_id("random").removeprefix("random_")[:_RANDOM_LENGTH].upper()


def _update_coupon(asked: Asked[CouponUpdate]) -> Change:
    old = found_coupon(asked.state, asked.ids["coupon"])
    return update("coupon", old, updated(old, asked.params, ("name",)), asked.state)


def _retrieve_coupon(asked: Asked[Params]) -> Change:
    return Change(shown(found_coupon(asked.state, asked.ids["coupon"]), asked.state))


def _delete_coupon(asked: Asked[Params]) -> Change:
    old = found_coupon(asked.state, asked.ids["coupon"])
    event = Draft("coupon.deleted", {**shown(old, asked.state), "valid": False})
    answer = {"id": old["id"], "object": "coupon", "deleted": True}
    return Change(answer, ({**old, "_deleted": True, "valid": False},), (event,))


def _coupons(asked: Asked[DatedListParams]) -> Query:
    created = asked.params.created
    return Query("coupon", since=created.first(), until=created.last(), keep=lambda one: not one["_deleted"])


def _create_code(asked: Asked[CodeCreate]) -> Change:
    params, state, moment = asked.params, asked.state, asked.moment
    coupon = found_coupon(state, params.promotion.coupon, "promotion[coupon]")
    if params.customer is not None:
        found(state, "customer", params.customer, "customer")
    limits = params.restrictions
    if (limits.minimum_amount is None) != (limits.minimum_amount_currency is None):
        raise ApiError(
            "minimum_amount and minimum_amount_currency go together.", param="restrictions[minimum_amount]"
        )
    _check_within(params, coupon)
    code = params.code or _random(asked)
    if params.active:
        _check_free(code, state, moment.now)
    given = {**params.model_dump(), "code": code, "coupon": coupon["id"]}
    new = objects.promotion_code(moment.new_id("promo"), moment.now, given)
    answer = shown(new, state)
    return Change(answer, (new,), (Draft("promotion_code.created", answer),))


def _check_within(params: CodeCreate, coupon: Json) -> None:
    """A code goes no further than its coupon."""
    for own, limit in (("expires_at", "redeem_by"), ("max_redemptions", "max_redemptions")):
        wanted, most = getattr(params, own), coupon[limit]
        if wanted is not None and most is not None and wanted > most:
            raise ApiError(f"{own} cannot be later or more than the coupon's {limit}.", param=own)


def _check_free(code: str, state: State, now: int) -> None:
    same = Query("promotion_code", label=code, keep=lambda one: is_active(one, state, now))
    if every(state, same, 1):
        raise ApiError(f"An active promotion code with `code: {code}` already exists.", param="code")


def _update_code(asked: Asked[CodeUpdate]) -> Change:
    old = found(asked.state, "promotion_code", asked.ids["promotion_code"])
    new = updated(old, asked.params, ("active",))
    if new["active"] and not old["active"]:
        if is_used_up(old) or not is_active(new, asked.state, asked.moment.now):
            raise ApiError("This code, or its coupon, has expired or is used up: make a new one.")
        _check_free(new["code"], asked.state, asked.moment.now)
    return update("promotion_code", old, new, asked.state)


def _codes(asked: Asked[CodeList]) -> Query:
    params, state, now = asked.params, asked.state, asked.moment.now
    return Query(
        "promotion_code",
        label=params.code,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: (
            params.active in (None, is_active(one, state, now))
            and params.coupon in (None, one["promotion"]["coupon"])
            and params.customer in (None, one["customer"])
        ),
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about coupons and promotion codes."""
    coupon, code = "/v1/coupons/{coupon}", "/v1/promotion_codes/{promotion_code}"
    return (
        Operation("POST", "/v1/coupons", CouponCreate, _create_coupon),
        listing("/v1/coupons", DatedListParams, _coupons),
        Operation("GET", coupon, Params, _retrieve_coupon),
        Operation("POST", coupon, CouponUpdate, _update_coupon),
        Operation("DELETE", coupon, Params, _delete_coupon),
        Operation("POST", "/v1/promotion_codes", CodeCreate, _create_code),
        listing("/v1/promotion_codes", CodeList, _codes),
        retrieval(code, "promotion_code"),
        Operation("POST", code, CodeUpdate, _update_code),
    )
