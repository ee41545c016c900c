"""The `Stripe-Signature` header: https://docs.stripe.com/webhooks/signature."""

import hmac
from collections.abc import Iterable


def signature(body: bytes, secrets: Iterable[str], now: int) -> str:
    """The header for `body` sent at `now` (Unix seconds): one signature for each of the endpoint's secrets.

    An endpoint has two while the roll of its secret is under way.
    """
    signed = (hmac.digest(secret.encode(), f"{now}.".encode() + body, "sha256").hex() for secret in secrets)
    return ",".join([f"t={now}", *(f"v1={one}" for one in signed)])
