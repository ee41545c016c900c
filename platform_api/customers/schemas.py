from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from platform_api.text import Email, Name


class SignUp(BaseModel):
    """Who wants to become a customer."""

    model_config = ConfigDict(extra="forbid")

    email: Email = Field(examples=["ada@example.com"])
    name: Name = Field(examples=["Ada's Workshop"])


class SignedUp(BaseModel):
    """A new customer."""

    id: str
    token: str = Field(description="Send as `Authorization: Bearer …`; it is shown this once")


class Me(BaseModel):
    """The customer whose token was sent."""

    id: str
    email: str
    name: str
    created_at: datetime
    email_verified_at: datetime | None = Field(description="Null: not yet; a free plan waits for it")
