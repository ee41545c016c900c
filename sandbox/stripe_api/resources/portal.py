"""The billing portal's configurations, and sessions that let a customer into it."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from sandbox.stripe_api import objects
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Moment,
    Operation,
    found,
    listing,
    retrieval,
    update,
    updated,
)
from sandbox.stripe_api.params import (
    ClearableText,
    Flag,
    FormList,
    ListParams,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
    Url,
    unset,
)
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.store import Query, State, every

UNVISITED_SECONDS = 5 * 60
"""How long a session's address works before its first visit; Stripe says only that it is short."""
IDLE_SECONDS = 3600
"""How long it works after the latest visit."""
MOST_PRODUCTS = 10

T = TypeVar("T")
_Clearable = Annotated[T, BeforeValidator(lambda value: {} if value == "" else value)]
"""A list that an empty value empties."""
_Proration = Literal["always_invoice", "create_prorations", "none"]


def _none(value: list[Json]) -> list[Json]:
    if value:
        raise PydanticCustomError("unsupported", "The stand-in has no subscription schedules: leave it empty")
    return value


class _Switch(Nested):
    enabled: Flag = False


class _CustomerUpdate(_Switch):
    allowed_updates: _Clearable[
        FormList[Literal["address", "email", "name", "phone", "shipping", "tax_id"]]
    ] = Field(default_factory=list)


class _PaymentMethodUpdate(_Switch):
    payment_method_configuration: Annotated[None, BeforeValidator(unset)] = None


class _CancellationReason(_Switch):
    options: _Clearable[
        FormList[
            Literal[
                "customer_service",
                "low_quality",
                "missing_features",
                "other",
                "switched_service",
                "too_complex",
                "too_expensive",
                "unused",
            ]
        ]
    ] = Field(default_factory=list)


class _SubscriptionCancel(_Switch):
    mode: Literal["at_period_end", "immediately"] = "at_period_end"
    proration_behavior: Literal["create_prorations", "none"] = "none"
    cancellation_reason: _CancellationReason = _CancellationReason()


class _AdjustableQuantity(_Switch):
    minimum: Annotated[int, Field(ge=0)] = 0
    maximum: Annotated[int, Field(ge=0)] | None = None


class _Product(Nested):
    product: Text
    prices: Annotated[FormList[Text], Field(min_length=1)]
    adjustable_quantity: _AdjustableQuantity = _AdjustableQuantity()


class _ScheduleAtPeriodEnd(Nested):
    conditions: Annotated[_Clearable[FormList[Json]], AfterValidator(_none)] = Field(default_factory=list)


_Update = Literal["price", "promotion_code", "quantity"]
_Products = _Clearable[Annotated[FormList[_Product], Field(max_length=MOST_PRODUCTS)]]


class _SubscriptionUpdate(_Switch):
    billing_cycle_anchor: Literal["now", "unchanged"] | None = None
    default_allowed_updates: _Clearable[FormList[_Update]] = Field(default_factory=list)
    products: _Products = Field(default_factory=list)
    proration_behavior: _Proration = "none"
    schedule_at_period_end: _ScheduleAtPeriodEnd = _ScheduleAtPeriodEnd()
    trial_update_behavior: Literal["continue_trial", "end_trial"] = "end_trial"


class Features(Nested):
    """What a customer may do; each is off unless it is switched on."""

    customer_update: _CustomerUpdate = _CustomerUpdate()
    invoice_history: _Switch = _Switch()
    payment_method_update: _PaymentMethodUpdate = _PaymentMethodUpdate()
    subscription_cancel: _SubscriptionCancel = _SubscriptionCancel()
    subscription_update: _SubscriptionUpdate = _SubscriptionUpdate()


class _BusinessProfile(Nested):
    headline: ClearableText = None
    privacy_policy_url: ClearableText = None
    terms_of_service_url: ClearableText = None


class _LoginPage(Nested):
    enabled: Literal["false"]
    """The stand-in has no login page: a session's address is the way in."""


class ConfigurationCreate(Params):
    """A new configuration."""

    features: Features
    business_profile: _BusinessProfile = _BusinessProfile()
    default_return_url: Annotated[Url | None, BeforeValidator(unset)] = None
    login_page: _LoginPage | None = None
    name: ClearableText = None
    metadata: Metadata = Field(default_factory=dict)


class ConfigurationUpdate(Params):
    """An edit: of a feature, what is given changes and the rest stays."""

    active: Flag = True
    features: Features = Features()
    business_profile: _BusinessProfile = _BusinessProfile()
    default_return_url: Annotated[Url | None, BeforeValidator(unset)] = None
    login_page: _LoginPage | None = None
    name: ClearableText = None
    metadata: MetadataChange = Field(default_factory=dict)


class ConfigurationList(ListParams):
    """A page of configurations."""

    active: Flag | None = None
    is_default: Flag | None = None


class _Redirect(Nested):
    return_url: Url


class _HostedConfirmation(Nested):
    custom_message: Text | None = None


class _AfterCompletion(Nested):
    type: Literal["hosted_confirmation", "portal_homepage", "redirect"]
    redirect: _Redirect | None = None
    hosted_confirmation: _HostedConfirmation | None = None


class _OfSubscription(Nested):
    subscription: Text


class FlowData(Nested):
    """The one thing a customer is let in for."""

    type: Literal["payment_method_update", "subscription_cancel", "subscription_update"]
    after_completion: _AfterCompletion = _AfterCompletion(type="portal_homepage")
    subscription_cancel: _OfSubscription | None = None
    subscription_update: _OfSubscription | None = None


class SessionCreate(Params):
    """A customer's visit."""

    customer: Text
    configuration: Text | None = None
    flow_data: FlowData | None = None
    locale: Text | None = None
    return_url: Url | None = None


def default_configuration(moment: Moment) -> Change:
    """What an account has whose operator saved the portal's settings once: everything on, no plans named."""
    everything = Features.model_validate(
        {
            "customer_update": {"enabled": "true", "allowed_updates": ["email", "name", "phone"]},
            "invoice_history": {"enabled": "true"},
            "payment_method_update": {"enabled": "true"},
            "subscription_cancel": {
                "enabled": "true",
                "cancellation_reason": {
                    "enabled": "true",
                    "options": ["too_expensive", "missing_features", "switched_service", "unused", "other"],
                },
            },
            "subscription_update": {
                "enabled": "true",
                "default_allowed_updates": ["price"],
                "proration_behavior": "create_prorations",
                "trial_update_behavior": "continue_trial",
            },
        }
    )
    given = {
        "features": everything.model_dump(),
        "business_profile": _BusinessProfile().model_dump(),
        "login_page": _login_page(),
        "is_default": True,
    }
    new = objects.portal_configuration(moment.new_id("bpc"), moment.now, given)
    return Change(new, (new,))


def _login_page() -> Json:
    return {"enabled": False, "url": None}


def _create_configuration(asked: Asked[ConfigurationCreate]) -> Change:
    params, moment = asked.params, asked.moment
    for name in sorted(params.features.model_fields_set):
        if "enabled" not in getattr(params.features, name).model_fields_set:
            param = f"features[{name}][enabled]"
            raise ApiError(f"Missing required param: {param}.", "parameter_missing", param, began=False)
    given = {**params.model_dump(), "is_default": False, "login_page": _login_page()}
    new = objects.portal_configuration(moment.new_id("bpc"), moment.now, given)
    _check_products(new, asked.state)
    answer = shown(new, asked.state)
    return Change(answer, (new,), (Draft("billing_portal.configuration.created", answer),))


def _update_configuration(asked: Asked[ConfigurationUpdate]) -> Change:
    params = asked.params
    old = found(asked.state, "billing_portal.configuration", asked.ids["configuration"])
    if old["is_default"] and not params.active:
        raise ApiError("The default configuration cannot be deactivated.", param="active")
    new = updated(old, params, ("active", "default_return_url", "name"))
    for name in ("business_profile", "features"):
        new[name] = _merged(old[name], getattr(params, name))
    _check_products(new, asked.state)
    if new != old:
        new["updated"] = asked.moment.now
    return update("billing_portal.configuration", old, new, asked.state)


def _merged(old: Json, given: BaseModel) -> Json:
    """What a feature is once what was given of it has changed; a list is replaced as a whole."""
    new = {**old}
    whole = given.model_dump()
    for name in given.model_fields_set:
        value = getattr(given, name)
        new[name] = _merged(old[name], value) if isinstance(value, BaseModel) else whole[name]
    return new


def _check_products(configuration: Json, state: State) -> None:
    for position, sold in enumerate(configuration["features"]["subscription_update"]["products"]):
        param = f"features[subscription_update][products][{position}]"
        found(state, "product", sold["product"], f"{param}[product]")
        for index, price_id in enumerate(sold["prices"]):
            price = found(state, "price", price_id, f"{param}[prices][{index}]")
            if price["product"] != sold["product"] or price["type"] != "recurring":
                raise ApiError(
                    f"The price {price_id} is not a recurring price of the product {sold['product']}.",
                    param=f"{param}[prices][{index}]",
                )


def _configurations(asked: Asked[ConfigurationList]) -> Query:
    params = asked.params
    return Query(
        "billing_portal.configuration",
        keep=lambda one: (
            params.active in (None, one["active"]) and params.is_default in (None, one["is_default"])
        ),
    )


def _create_session(asked: Asked[SessionCreate]) -> Change:
    params, state, moment = asked.params, asked.state, asked.moment
    found(state, "customer", params.customer, "customer")
    configuration = _configuration(params.configuration, state)
    flow = None if params.flow_data is None else params.flow_data.model_dump()
    way = "" if params.flow_data is None else _way(params.flow_data, params.customer, configuration, state)
    secret = moment.new_id("test")
    given = {
        "configuration": configuration["id"],
        "customer": params.customer,
        "flow": flow and {**flow, "subscription_update_confirm": None},
        "locale": params.locale,
        "return_url": params.return_url or configuration["default_return_url"],
        "secret": secret,
        "until": moment.now + UNVISITED_SECONDS,
        "url": f"{moment.base_url}/p/session/{secret}{way}",
    }
    new = objects.portal_session(moment.new_id("bps"), moment.now, given)
    answer = shown(new, state)
    return Change(answer, (new,), (Draft("billing_portal.session.created", answer),))


def _configuration(wanted: str | None, state: State) -> Json:
    if wanted is None:
        (default,) = every(state, Query("billing_portal.configuration", keep=_is_default), 1)
        return default
    configuration = found(state, "billing_portal.configuration", wanted, "configuration")
    if not configuration["active"]:
        raise ApiError("This configuration is inactive: activate it, or use another.", param="configuration")
    return configuration


def _is_default(configuration: Json) -> bool:
    default: bool = configuration["is_default"]
    return default


def _way(flow: FlowData, customer: str, configuration: Json, state: State) -> str:
    """Where below the portal a flow begins."""
    if not configuration["features"][flow.type]["enabled"]:
        raise ApiError(
            f"The portal configuration {configuration['id']} does not have {flow.type} enabled.",
            param="flow_data[type]",
        )
    if (flow.after_completion.type == "redirect") != (flow.after_completion.redirect is not None):
        raise ApiError(
            "Give flow_data[after_completion][redirect] with the type `redirect`, and only then.",
            param="flow_data[after_completion]",
        )
    if flow.type == "payment_method_update":
        return "/card"
    wanted = getattr(flow, flow.type)
    param = f"flow_data[{flow.type}]"
    if wanted is None:
        raise ApiError(f"Missing required param: {param}.", "parameter_missing", param)
    subscription = found(state, "subscription", wanted.subscription, f"{param}[subscription]")
    if subscription["customer"] != customer:
        raise ApiError("The subscription is another customer's.", param=f"{param}[subscription]")
    action = flow.type.removeprefix("subscription_")
    return f"/subscriptions/{subscription['id']}/{action}"


def visited(secret: str, state: State, now: int) -> Json | None:
    """The session whose address has this secret, extended by this visit; None when it is none or over."""
    known = every(state, Query("billing_portal.session", label=secret), 1)
    if not known or known[0]["_until"] <= now:
        return None
    return {**known[0], "_until": now + IDLE_SECONDS}


def plans(configuration: Json, subscription: Json, state: State) -> list[Json]:
    """The prices a customer may switch a subscription to: none when it has several items, as at Stripe."""
    feature = configuration["features"]["subscription_update"]
    items = subscription["items"]["data"]
    if not feature["enabled"] or "price" not in feature["default_allowed_updates"] or len(items) != 1:
        return []
    named = (state.find(price) for sold in feature["products"] for price in sold["prices"])
    return [price for price in _sellable(named, subscription) if price["id"] != items[0]["price"]]


def _sellable(prices: Iterable[Json | None], subscription: Json) -> Iterable[Json]:
    return (one for one in prices if one and one["active"] and one["currency"] == subscription["currency"])


def cancellations(configuration: Json) -> list[str]:
    """When a customer may let a subscription end.

    A configuration has one mode. The default one allows both, for whoever tries the stand-in in a browser.
    """
    feature = configuration["features"]["subscription_cancel"]
    if not feature["enabled"]:
        return []
    return ["at_period_end", "immediately"] if configuration["is_default"] else [feature["mode"]]


def operations() -> tuple[Operation[Any], ...]:
    """Every call about the billing portal."""
    path = "/v1/billing_portal/configurations"
    return (
        Operation("POST", path, ConfigurationCreate, _create_configuration),
        listing(path, ConfigurationList, _configurations),
        retrieval(f"{path}/{{configuration}}", "billing_portal.configuration"),
        Operation("POST", f"{path}/{{configuration}}", ConfigurationUpdate, _update_configuration),
        Operation("POST", "/v1/billing_portal/sessions", SessionCreate, _create_session),
    )
