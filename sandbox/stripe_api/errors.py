"""Stripe's error envelope."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ErrorType = Literal["api_error", "card_error", "idempotency_error", "invalid_request_error"]


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is not 2xx.

    Attributes:
        message: one sentence for the developer.
        code: Stripe's short code, where Stripe has one.
        param: the parameter at fault, as the form names it: `line_items[0][price]`.
        status: the HTTP status.
        began: whether an operation had begun, in which case its idempotency key replays this answer.
        details: what else the envelope holds: `decline_code`, the `payment_intent`.
    """

    message: str
    code: str | None = None
    param: str | None = None
    status: int = 400
    type: ErrorType = "invalid_request_error"
    began: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def envelope(self) -> dict[str, Any]:
        """The body Stripe answers."""
        page = self.code and f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        fields = {
            "code": self.code,
            "doc_url": page,
            "message": self.message,
            "param": self.param,
            "type": self.type,
        }
        fields |= self.details
        return {"error": {name: value for name, value in fields.items() if value is not None}}


def missing_object(kind: str, object_id: str, param: str = "id") -> ApiError:
    """The refusal for an id that names nothing; 404 when the path named it, 400 when a parameter did."""
    return ApiError(
        f"No such {kind}: '{object_id}'",
        code="resource_missing",
        param=param,
        status=404 if param == "id" else 400,
    )
