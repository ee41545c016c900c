"""How often a failed renewal is tried again, and what happens when that did not help. Pure."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.store import State
from sandbox.stripe_api.timetable import DAY

_ID = "sandbox_settings"


class Settings(BaseModel):
    """What a Stripe account's billing settings say.

    The defaults are those of Stripe's custom retry schedule:
    https://docs.stripe.com/billing/revenue-recovery/smart-retries#custom-retry-schedule.

    Attributes:
        retry_days: how many days after the attempt before it each retry is made.
        after_retries: what becomes of the subscription when the last retry failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    retry_days: Annotated[tuple[Annotated[int, Field(ge=1, le=60)], ...], Field(max_length=8)] = (3, 5, 7)
    after_retries: Literal["cancel", "unpaid", "past_due"] = "cancel"

    def next_attempt(self, attempts: int, now: int) -> int | None:
        """When to try again after that many attempts, the last of them now; None for never."""
        if attempts > len(self.retry_days):
            return None
        return now + self.retry_days[attempts - 1] * DAY


def settings_in(state: State) -> Settings:
    """The settings in force."""
    stored = state.find(_ID)
    return Settings() if stored is None else Settings.model_validate(stored["_settings"])


def stored_settings(settings: Settings) -> Json:
    """Settings as the object that keeps them."""
    return {
        "id": _ID,
        "object": "sandbox.settings",
        "_created": 0,
        "_settings": settings.model_dump(mode="json"),
    }
