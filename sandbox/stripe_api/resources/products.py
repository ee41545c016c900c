"""Products and their prices."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.periods import Interval
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Operation,
    difference,
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
    Url,
)
from sandbox.stripe_api.store import Query, State, every

MOST_LOOKUP_KEYS = 10
LookupKey = Annotated[str, Field(min_length=1, max_length=200)]
Currency = Annotated[str, Field(pattern=r"^[A-Za-z]{3}$"), AfterValidator(str.lower)]
TaxBehavior = Literal["exclusive", "inclusive", "unspecified"]
_MOST_INTERVALS: Mapping[Interval, int] = {"day": 1095, "week": 156, "month": 36, "year": 3}
"""Three years: https://docs.stripe.com/api/prices/create."""


class _Feature(Nested):
    name: Annotated[str, Field(min_length=1, max_length=80)]


class _Shown(Params):
    """What a new product and an edited one have in common."""

    active: Flag = True
    description: ClearableText = None
    images: Annotated[FormList[Url], Field(max_length=8)] = Field(default_factory=list)
    marketing_features: Annotated[FormList[_Feature], Field(max_length=15)] = Field(default_factory=list)
    shippable: Flag | None = None
    statement_descriptor: Annotated[str, Field(min_length=5, max_length=22)] | None = None
    tax_code: ClearableText = None
    unit_label: ClearableText = None
    url: Url | None = None


_EDITABLE = (
    "active",
    "default_price",
    "description",
    "images",
    "marketing_features",
    "name",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "unit_label",
    "url",
)


class Recurring(Nested):
    """How often a price is due."""

    interval: Interval
    interval_count: Annotated[int, Field(ge=1)] = 1
    usage_type: Literal["licensed"] = "licensed"

    @model_validator(mode="after")
    def _is_within_three_years(self) -> "Recurring":
        if self.interval_count > _MOST_INTERVALS[self.interval]:
            raise PydanticCustomError("interval", "An interval has up to three years")
        return self


class _DefaultPrice(Nested):
    currency: Currency
    unit_amount: Count
    recurring: Recurring | None = None
    tax_behavior: TaxBehavior = "unspecified"
    metadata: Metadata = Field(default_factory=dict)


class ProductCreate(_Shown):
    """A new product; `id` may be chosen."""

    id: Text | None = None
    name: Text
    default_price_data: _DefaultPrice | None = None
    metadata: Metadata = Field(default_factory=dict)


class ProductUpdate(_Shown):
    """An edit."""

    name: Text = ""
    default_price: Text = ""
    metadata: MetadataChange = Field(default_factory=dict)


class ProductList(DatedListParams):
    """A page of products."""

    active: Flag | None = None
    ids: FormList[Text] | None = None
    url: Url | None = None


class ProductData(Nested):
    """A product to make along with its price."""

    name: Text
    metadata: Metadata = Field(default_factory=dict)


class PriceCreate(Params):
    """A new price of a product, or of one made along with it."""

    currency: Currency
    unit_amount: Count
    product: Text | None = None
    product_data: ProductData | None = None
    recurring: Recurring | None = None
    active: Flag = True
    billing_scheme: Literal["per_unit"] = "per_unit"
    lookup_key: LookupKey | None = None
    transfer_lookup_key: Flag = False
    nickname: ClearableText = None
    tax_behavior: TaxBehavior = "unspecified"
    metadata: Metadata = Field(default_factory=dict)


class PriceUpdate(Params):
    """An edit: never of the amount."""

    active: Flag = True
    lookup_key: ClearableText = None
    transfer_lookup_key: Flag = False
    nickname: ClearableText = None
    tax_behavior: TaxBehavior = "unspecified"
    metadata: MetadataChange = Field(default_factory=dict)


class _RecurringFilter(Nested):
    interval: Interval | None = None
    usage_type: Literal["licensed", "metered"] | None = None


class PriceList(DatedListParams):
    """A page of prices."""

    active: Flag | None = None
    currency: Currency | None = None
    product: Text | None = None
    type: Literal["one_time", "recurring"] | None = None
    recurring: _RecurringFilter = _RecurringFilter()
    lookup_keys: Annotated[FormList[LookupKey], Field(max_length=MOST_LOOKUP_KEYS)] | None = None


def _create_product(asked: Asked[ProductCreate]) -> Change:
    params, moment = asked.params, asked.moment
    if params.id is not None and asked.state.find(params.id) is not None:
        raise ApiError("Product already exists.", code="resource_already_exists", param="id")
    new = objects.product(params.id or moment.new_id("prod"), moment.now, params.model_dump())
    decision = Decision(asked.state)
    if params.default_price_data is not None:
        given = {**params.default_price_data.model_dump(), "product": new["id"]}
        price = objects.price(moment.new_id("price"), moment.now, given)
        new["default_price"] = price["id"]
        decision.save(price)
        decision.tell("price.created", price)
    decision.save(new)
    decision.tell("product.created", new)
    return decision.change(new)


def _update_product(asked: Asked[ProductUpdate]) -> Change:
    old = found(asked.state, "product", asked.ids["product"])
    new = updated(old, asked.params, _EDITABLE)
    if asked.params.default_price:
        price = found(asked.state, "price", asked.params.default_price, "default_price")
        if price["product"] != old["id"]:
            raise ApiError("The price belongs to another product.", param="default_price")
    if new != old:
        new["updated"] = asked.moment.now
    return update("product", old, new, asked.state)


def _delete_product(asked: Asked[Params]) -> Change:
    old = found(asked.state, "product", asked.ids["product"])
    if every(asked.state, Query("price", keep=lambda one: bool(one["product"] == old["id"])), 1):
        raise ApiError(
            "This product cannot be deleted because it has one or more user-created prices: archive it"
            " instead, with active=false."
        )
    answer = {"id": old["id"], "object": "product", "deleted": True}
    return Change(answer, events=(Draft("product.deleted", old),), removed=(old["id"],))


def _products(asked: Asked[ProductList]) -> Query:
    params = asked.params
    return Query(
        "product",
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: (
            params.active in (None, one["active"])
            and params.url in (None, one["url"])
            and (params.ids is None or one["id"] in params.ids)
        ),
    )


def _create_price(asked: Asked[PriceCreate]) -> Change:
    params, moment = asked.params, asked.moment
    if (params.product is None) == (params.product_data is None):
        raise ApiError("You must give exactly one of product and product_data.", param="product")
    made: tuple[Json, ...] = ()
    if params.product_data is not None:
        product = objects.product(moment.new_id("prod"), moment.now, params.product_data.model_dump())
        made = (product,)
    else:
        product = found(asked.state, "product", params.product or "", "product")
    displaced = _displaced(asked.state, params.lookup_key, transfer=params.transfer_lookup_key)
    given = {**params.model_dump(), "product": product["id"]}
    new = objects.price(moment.new_id("price"), moment.now, given)
    return Change(
        new,
        (*made, *_without_key(displaced), new),
        (
            *(Draft("product.created", one) for one in made),
            *_displacements(displaced),
            Draft("price.created", new),
        ),
    )


def _update_price(asked: Asked[PriceUpdate]) -> Change:
    params = asked.params
    old = found(asked.state, "price", asked.ids["price"])
    new = updated(old, params, ("active", "lookup_key", "nickname", "tax_behavior"))
    if old["tax_behavior"] not in ("unspecified", new["tax_behavior"]):
        raise ApiError("A price's tax_behavior cannot change once it is set.", param="tax_behavior")
    if old["active"] and not new["active"]:
        product = asked.state.find(old["product"])
        if product is not None and product["default_price"] == old["id"]:
            raise ApiError(
                "This price cannot be archived because it is the default price of its product: give the"
                " product another default_price first.",
                param="active",
            )
    displaced: Json | None = None
    if new["lookup_key"] != old["lookup_key"]:
        displaced = _displaced(asked.state, new["lookup_key"], transfer=params.transfer_lookup_key)
    change = update("price", old, new, asked.state)
    return Change(
        change.answer,
        (*_without_key(displaced), *change.saved),
        (*_displacements(displaced), *change.events),
    )


def _displaced(state: State, lookup_key: str | None, *, transfer: bool) -> Json | None:
    """The price that has to give its lookup key away."""
    if lookup_key is None:
        return None
    holders = every(state, Query("price", label=lookup_key), 1)
    if not holders:
        return None
    if not transfer:
        raise ApiError(f"A price (`{holders[0]['id']}`) already uses that lookup key.", param="lookup_key")
    return holders[0]


def _without_key(displaced: Json | None) -> tuple[Json, ...]:
    return () if displaced is None else ({**displaced, "lookup_key": None},)


def _displacements(displaced: Json | None) -> tuple[Draft, ...]:
    return tuple(
        Draft("price.updated", new, difference(displaced or {}, new)) for new in _without_key(displaced)
    )


def _prices(asked: Asked[PriceList]) -> Query:
    params = asked.params
    wanted = params.recurring

    def keep(one: Json) -> bool:
        recurring = one["recurring"] or {}
        return (
            params.active in (None, one["active"])
            and params.currency in (None, one["currency"])
            and params.product in (None, one["product"])
            and params.type in (None, one["type"])
            and wanted.interval in (None, recurring.get("interval"))
            and wanted.usage_type in (None, recurring.get("usage_type"))
            and (params.lookup_keys is None or one["lookup_key"] in params.lookup_keys)
        )

    return Query("price", since=params.created.first(), until=params.created.last(), keep=keep)


def operations() -> tuple[Operation[Any], ...]:
    """Every call about products and prices."""
    return (
        Operation("POST", "/v1/products", ProductCreate, _create_product),
        listing("/v1/products", ProductList, _products),
        retrieval("/v1/products/{product}", "product"),
        Operation("POST", "/v1/products/{product}", ProductUpdate, _update_product),
        Operation("DELETE", "/v1/products/{product}", Params, _delete_product),
        Operation("POST", "/v1/prices", PriceCreate, _create_price),
        listing("/v1/prices", PriceList, _prices),
        retrieval("/v1/prices/{price}", "price"),
        Operation("POST", "/v1/prices/{price}", PriceUpdate, _update_price),
    )
