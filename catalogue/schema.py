"""What is sold: the shape of `catalogue/<product>.yaml`, and what the services read from it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from catalogue.money import WITHOUT_HUNDREDTHS
from catalogue.problems import RefusedError
from catalogue.quantity import LARGEST, parse_bytes, parse_millicores
from catalogue.stripe_names import add_on_at_stripe, plan_at_stripe

Interval = Literal["month", "year"]
UNLIMITED = "unlimited"


@dataclass(frozen=True, slots=True)
class _Shape:
    """Text of a certain shape; `what` describes it to whoever wrote something else."""

    pattern: str
    what: str
    longest: int

    def check(self, value: str) -> str:
        if len(value) > self.longest or re.fullmatch(self.pattern, value) is None:
            raise RefusedError(f"'{value[:80]}' is not {self.what}", f"write {self.what}")
        return value

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        own = {"pattern": f"^(?:{self.pattern})$", "maxLength": self.longest, "description": self.what}
        return handler(schema) | own


def _amount(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str) or re.fullmatch(r"\d{1,8}\.\d\d", value, re.ASCII) is None:
        raise RefusedError(
            f"{value!r} is no amount", "write it in quotes with two decimal places, such as '29.00'"
        )
    return Decimal(value)


def _limit(value: object) -> object:
    if isinstance(value, str) and value != UNLIMITED:
        raise RefusedError(
            f"'{value[:40]}' is no limit", f"write a whole number without quotes, or {UNLIMITED}"
        )
    return None if value == UNLIMITED else value


def _has_hundredths(value: str) -> str:
    if value in WITHOUT_HUNDREDTHS:
        raise RefusedError(
            f"'{value}' is not counted in hundredths at Stripe", "sell in a currency that is, such as usd"
        )
    return value


def _positive(value: int) -> int:
    if value <= 0:
        raise RefusedError("nothing is too little", "write more than 0")
    return value


def _quantity_schema(example: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": ["string", "number"], "description": "a Kubernetes quantity", "examples": [example]}
    )


DnsLabel = Annotated[str, _Shape(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "a DNS label: a-z, 0-9 and -", 63)]
Name = Annotated[str, _Shape(r"[a-z][a-z0-9_]*", "a name: a-z, 0-9 and _", 63)]
EnvironmentName = Annotated[
    str, _Shape(r"[A-Z_][A-Z0-9_]*", "an environment variable's name: A-Z, 0-9 and _", 128)
]
Title = Annotated[str, _Shape(r"\S(.*\S)?", "one line of text", 80)]
ImageReference = Annotated[
    str,
    _Shape(
        r"[a-zA-Z0-9][-a-zA-Z0-9._/:]*(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})",
        "an image with its tag or digest, such as registry.example/app:1.2",
        512,
    ),
]
MountPath = Annotated[str, _Shape(r"|(/[\w.-]+)+", "an absolute path, or '' for no volume", 255)]
FilePath = Annotated[str, _Shape(r"(/[\w.-]+){2,}", "a file's absolute path, not right below /", 255)]
UrlPath = Annotated[str, _Shape(r"/[!-~]*", "a path that begins with /", 255)]
PriceId = Annotated[str, _Shape(r"price_\w+", "a Stripe price's id: price_…", 255)]
LookupKey = Annotated[str, _Shape(r"[\w.:-]+", "a Stripe lookup key", 200)]
Currency = Annotated[
    str,
    _Shape(r"[a-z]{3}", "a currency of three small letters, such as usd", 3),
    AfterValidator(_has_hundredths),
]
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,8}\.\d\d$", "examples": ["29.00"]}),
]
Limit = Annotated[
    Annotated[int, Field(ge=0, le=LARGEST)] | None,
    BeforeValidator(_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": UNLIMITED}, {"type": "null"}]}),
]
Millicores = Annotated[
    int, BeforeValidator(parse_millicores), AfterValidator(_positive), _quantity_schema("500m")
]
Bytes = Annotated[int, BeforeValidator(parse_bytes), AfterValidator(_positive), _quantity_schema("256Mi")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=False)


class Price(_Model):
    """What Stripe charges. Named by id or, so that test and live mode share one file, by lookup key."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["id"]}, {"required": ["lookup_key"]}]}
    )

    id: PriceId | None = None
    lookup_key: LookupKey | None = None
    amount: Amount | None = None
    """What the price should be, in `currency`; None when it is negotiated or only Stripe knows."""
    currency: Currency = "usd"
    former: Annotated[tuple[PriceId, ...], Field(max_length=100, strict=False)] = ()
    """Prices Berth did not make that sold this before; who subscribed to one of them keeps it."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if (self.id is None) == (self.lookup_key is None):
            what = "has neither id nor lookup_key" if self.id is None else "has both id and lookup_key"
            raise RefusedError(what, "give exactly one of them")
        return self

    @property
    def cents(self) -> int | None:
        """The amount in hundredths of `currency`, as Stripe counts."""
        return None if self.amount is None else int(self.amount * 100)


class Cpu(_Model):
    """CPU in millicores: `request` is reserved, `limit` is the most it may use."""

    request: Millicores
    limit: Millicores

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.request > self.limit:
            raise RefusedError(
                f"requests {self.request}m, more than the limit of {self.limit}m",
                "lower the request or raise the limit",
            )
        return self


class Size(_Model):
    """What a plan's instances get; memory and storage in bytes (memory's request is its limit)."""

    cpu: Cpu
    memory: Bytes
    storage: Bytes
    replicas: Annotated[int, Field(ge=1, le=100)] = 1

    @property
    def cpu_request(self) -> int:
        """Reserved CPU in millicores."""
        return self.cpu.request

    @property
    def cpu_limit(self) -> int:
        """The most CPU it may use, in millicores."""
        return self.cpu.limit


class Plan(_Model):
    """What a customer chooses.

    Without a price that says its amount it is `free` or, if not even that, sold by agreement only.
    """

    title: Title
    aliases: Annotated[tuple[DnsLabel, ...], Field(max_length=8, strict=False)] = ()
    """Other names it is asked for by; what is stored is the plan's own."""
    free: bool = False
    """Given without Stripe to whoever has a verified e-mail address; it has no price and no trial."""
    prices: Mapping[Interval, Price] = Field(default_factory=dict)
    trial_days: Annotated[int, Field(ge=0, le=730)] = 3
    limits: Mapping[Name, Limit] = Field(default_factory=dict)
    """For each of the product's meters how much; None is unlimited."""
    size: Size
    grace_days: Annotated[int, Field(ge=0, le=365)] = 7
    """How long an instance runs on after a payment failed."""
    retention_days: Annotated[int, Field(ge=0, le=3650)] = 30
    """How long an instance's data is kept after its subscription ended."""


class AddOn(_Model):
    """What is bought on top of a plan, any number of times; each raises limits."""

    title: Title
    prices: Annotated[Mapping[Interval, Price], Field(min_length=1)]
    grants: Annotated[Mapping[Name, Annotated[int, Field(ge=1, le=LARGEST)]], Field(min_length=1)]
    """Meter → by how much one of it raises the limit."""


class Meter(_Model):
    """Something counted that plans limit."""

    title: Title


class Probe(_Model):
    """The HTTP request that tells whether an instance is healthy; times in seconds."""

    path: UrlPath = "/healthz"
    period: Annotated[int, Field(ge=1, le=300)] = 5
    timeout: Annotated[int, Field(ge=1, le=60)] = 2
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    startup: Annotated[int, Field(ge=1, le=3600)] = 60


class Backup(_Model):
    """A command run in the app's container before each backup, so that its files are consistent."""

    command: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
        Field(min_length=1, max_length=64, strict=False),
    ]
    timeout: Annotated[int, Field(ge=1, le=3600)] = 60


class Entitlement(_Model):
    """How an app learns what was bought: a JSON file in its container, and environment variables."""

    file: FilePath = "/etc/berth/entitlements.json"
    environment: Mapping[EnvironmentName, Name] = Field(default_factory=dict)
    """Variable → the meter whose limit it holds."""


class Product(_Model):
    """One `catalogue/<product>.yaml`. What spans several of its keys is checked by `catalogue.rules`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["chart"]}]})

    product: DnsLabel
    title: Title
    image: ImageReference | None = None
    chart: DnsLabel | None = None
    port: Annotated[int, Field(ge=1, le=65535)]
    data_path: MountPath = ""
    probe: Probe = Probe()
    backup: Backup | None = None
    entitlement: Entitlement = Entitlement()
    secrets: Annotated[tuple[EnvironmentName, ...], Field(max_length=64, strict=False)] = ()
    meters: Mapping[Name, Meter] = Field(default_factory=dict)
    plans: Annotated[Mapping[DnsLabel, Plan], Field(min_length=1)]
    add_ons: Mapping[DnsLabel, AddOn] = Field(default_factory=dict)

    def plan_name(self, asked: str) -> str | None:
        """Return the stored name of the plan called `asked`, by its own name or an alias."""
        if asked in self.plans:
            return asked
        return next((name for name, plan in self.plans.items() if asked in plan.aliases), None)


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A plan as one of its prices sells it."""

    product: Product
    plan_name: str
    plan: Plan
    interval: Interval
    price: Price


@dataclass(frozen=True, slots=True)
class PricedAddOn:
    """An add-on as one of its prices sells it."""

    product: Product
    add_on_name: str
    add_on: AddOn
    interval: Interval
    price: Price


Priced = PricedPlan | PricedAddOn


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a subscription buys: a plan `quantity` times, and add-ons, name → how many."""

    product: Product
    plan_name: str
    quantity: int = 1
    add_ons: Mapping[str, int] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.product.plans[self.plan_name]

    @property
    def limits(self) -> dict[str, int | None]:
        """Meter → limit, raised by quantity and add-ons; None is unlimited."""
        return {meter: self._limit(meter, limit) for meter, limit in self.plan.limits.items()}

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that tell the instance its limits, or `unlimited`."""
        limits = self.limits
        named = {name: limits[meter] for name, meter in self.product.entitlement.environment.items()}
        return {name: UNLIMITED if limit is None else str(limit) for name, limit in named.items()}

    def _limit(self, meter: str, limit: int | None) -> int | None:
        if limit is None:
            return None
        granted = (
            self.product.add_ons[name].grants.get(meter, 0) * count for name, count in self.add_ons.items()
        )
        return limit * self.quantity + sum(granted)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is sold; no price stands in it twice."""

    products: Mapping[str, Product]

    def priced_plans(self) -> Iterator[PricedPlan]:
        """Yield each plan once for each of its prices."""
        for product in self.products.values():
            for name, plan in product.plans.items():
                for interval, price in plan.prices.items():
                    yield PricedPlan(product, name, plan, interval, price)

    def priced(self) -> Iterator[Priced]:
        """Yield each plan and each add-on once for each of its prices."""
        yield from self.priced_plans()
        for product in self.products.values():
            for name, add_on in product.add_ons.items():
                for interval, price in add_on.prices.items():
                    yield PricedAddOn(product, name, add_on, interval, price)

    def sold_by(
        self,
        price_id: str,
        lookup_key: str | None,
        made_for: str | None = None,
        interval: str | None = None,
    ) -> Priced | None:
        """Return what a Stripe price sells; None when nothing here names it.

        Args:
            price_id: its id, which decides where the catalogue names it.
            lookup_key: its lookup key, which decides else.
            made_for: if Berth made the price, the id of the Stripe product it belongs to. So a price is known
                that the catalogue named once and whose lookup key another has by now, or that was negotiated.
            interval: how often such a price is paid.
        """
        by_key = None
        for priced in self.priced():
            if price_id == priced.price.id or price_id in priced.price.former:
                return priced
            if lookup_key is not None and priced.price.lookup_key == lookup_key:
                by_key = priced
        if by_key is not None or made_for is None or interval not in {"month", "year"}:
            return by_key
        return self._made_for(made_for, "year" if interval == "year" else "month", price_id)

    def _made_for(self, stripe_product: str, interval: Interval, price_id: str) -> Priced | None:
        price = Price.model_construct(id=price_id)  # Stripe's oldest prices have ids of another shape
        for product in self.products.values():
            for name, plan in product.plans.items():
                if plan_at_stripe(product.product, name) == stripe_product:
                    return PricedPlan(product, name, plan, interval, price)
            for name, add_on in product.add_ons.items():
                if add_on_at_stripe(product.product, name) == stripe_product:
                    return PricedAddOn(product, name, add_on, interval, price)
        return None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a product's file, for editors that complete and check as one types."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Product.model_json_schema(),
        "title": "A product of Berth's catalogue",
    }
