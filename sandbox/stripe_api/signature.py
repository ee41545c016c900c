"""The `Stripe-Signature` header: https://docs.stripe.com/webhooks/signature."""

import hmac


def signature(body: bytes, secret: str, now: int) -> str:
    """The header for `body` sent at `now` (Unix seconds) to the endpoint with that secret."""
    signed = hmac.digest(secret.encode(), f"{now}.".encode() + body, "sha256")
    return f"t={now},v1={signed.hex()}"
