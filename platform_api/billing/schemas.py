from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from platform_api.billing import slugs

Word = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9_.-]+$")]
Slug = Annotated[str, StringConstraints(max_length=slugs.MAX_LENGTH, pattern=slugs.PATTERN)]


class CheckoutRequest(BaseModel):
    """What a customer wants to buy. Who buys is the token's to say, and nothing else's."""

    model_config = ConfigDict(extra="forbid")

    product: Word = Field(examples=["mindroom"])
    plan: Word = Field(examples=["starter"])
    interval: Literal["month", "year"]
    slug: Slug | None = Field(
        default=None,
        description="The instance's name in its address; made from yours if left out. It is held while the "
        "checkout is open.",
        examples=["acme"],
    )


class OpenCheckout(BaseModel):
    """A checkout to be paid."""

    id: str
    url: str = Field(description="Stripe's page to pay on")
    slug: str
    expires_at: datetime = Field(description="Until then the name is held")
