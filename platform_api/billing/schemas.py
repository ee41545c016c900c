from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from platform_api.billing import slugs


def _well_formed(slug: str) -> str:
    if not slugs.is_well_formed(slug):
        raise PydanticCustomError("slug", slugs.RULE)
    return slug


Word = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9_.-]+$")]
Slug = Annotated[
    str,
    AfterValidator(_well_formed),
    WithJsonSchema({"type": "string", "maxLength": slugs.MAX_LENGTH, "pattern": slugs.PATTERN}),
]
Code = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class CheckoutRequest(BaseModel):
    """What a customer wants to buy. Who buys is the token's to say, and nothing else's."""

    model_config = ConfigDict(extra="forbid")

    product: Word = Field(examples=["mindroom"])
    plan: Word = Field(examples=["starter"])
    interval: Literal["month", "year"] = Field(default="month", description="How often it is paid")
    slug: Slug | None = Field(
        default=None,
        description="The instance's name in its address; made from yours if left out. It is held while the "
        "checkout is open. An instance of yours that is kept comes back under the name it has.",
        examples=["acme"],
    )
    promo_code: Code | None = Field(
        default=None,
        description="A promotion code; if left out, one can be typed on Stripe's page",
        examples=["LAUNCH"],
    )


class OpenCheckout(BaseModel):
    """Where to go on."""

    kind: Literal["checkout", "portal", "instance"] = Field(
        description="What `url` is. checkout: Stripe's page to pay on; portal: you subscribe to the product "
        "already, and this is where you change that; instance: the plan is free and yours, and your instance "
        "will answer there"
    )
    id: str = Field(description="Of the checkout; of the subscription, if it is there already")
    url: str
    slug: str | None = Field(description="The instance's name; null: it has none yet")
    expires_at: datetime | None = Field(
        description="Until then the checkout holds the name; null: no checkout"
    )


class PortalRequest(BaseModel):
    """What to manage."""

    model_config = ConfigDict(extra="forbid")

    product: Word | None = Field(
        default=None, description="What the portal should offer plans of", examples=["mindroom"]
    )


class Portal(BaseModel):
    """A way into the billing portal."""

    url: str = Field(description="Stripe's page, for this visit")


class SubscribedInstance(BaseModel):
    """The instance a subscription pays for."""

    id: str
    slug: str
    url: str
    phase: str


class SubscriptionView(BaseModel):
    """A subscription of yours."""

    id: str
    product: str
    plan: str
    title: str = Field(description="The plan's, for people")
    source: Literal["stripe", "free"] = Field(description="Where it is paid; free: nowhere")
    interval: str | None = Field(description="How often it is paid; null: it is free")
    status: str = Field(description="Stripe's word for it")
    meaning: str = Field(description="What the status means for you, in a sentence")
    current_period_end: datetime | None
    cancel_at_period_end: bool
    trial_end: datetime | None
    quantity: int
    add_ons: dict[str, int] = Field(description="By name, how many")
    limits: dict[str, int | None] = Field(description="By meter; null: without limit")
    instance: SubscribedInstance | None = Field(description="Null: it is not made yet, or another has it now")
    suspended_on: datetime | None = Field(description="When a payment that failed suspends the instance")
    delete_at: datetime | None = Field(description="When the instance's data stops being kept")
    under_review: bool = Field(
        description="Whether a person looks at a dispute or refund; nothing is deleted"
    )
