"""The `Stripe-Signature` header and its secrets: https://docs.stripe.com/webhooks/signature."""

import hmac
from collections.abc import Iterable

from sandbox.stripe_api.objects import Json

_FORMER = "_former_secrets"
"""Where an endpoint's rolled secrets are kept."""


def signature(body: bytes, secrets: Iterable[str], now: int) -> str:
    """The header for `body` sent at `now` (Unix seconds): one signature for each of the endpoint's secrets.

    An endpoint has two while the roll of its secret is under way.
    """
    signed = (hmac.digest(secret.encode(), f"{now}.".encode() + body, "sha256").hex() for secret in secrets)
    return ",".join([f"t={now}", *(f"v1={one}" for one in signed)])


def with_new_secret(endpoint: Json, secret: str, now: int, overlap: int) -> Json:
    """An endpoint whose secret was rolled: the one it had signs too for `overlap` more seconds."""
    former = {"secret": endpoint["secret"], "expires_at": now + overlap}
    return {**endpoint, "secret": secret, _FORMER: [former, *endpoint.get(_FORMER, [])]}


def signing_secrets(endpoint: Json, now: float) -> list[str]:
    """The secrets an endpoint's deliveries are signed with, the newest first."""
    former = [one["secret"] for one in endpoint.get(_FORMER, []) if one["expires_at"] > now]
    return [endpoint["secret"], *former]
