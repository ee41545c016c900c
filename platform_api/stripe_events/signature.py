"""Whether Stripe signed what came. Pure but for the clock."""

import stripe

from platform_api import problems
from platform_api.problems import Problem

TOLERANCE = 300  # seconds a signature stays good: Stripe's own default
_MAX_SIGNATURES = 16


def verify(body: bytes, signature: str | None, secrets: tuple[str, ...]) -> str:
    """Return the body's text if one of `secrets` signed it within the last five minutes.

    Raises:
        Problem: 400.
    """
    if signature is None:
        raise Problem(problems.BAD_EVENT, "Sign the request: it has no Stripe-Signature header.")
    # The library's comparison raises on anything but ASCII.
    if signature.count(",") > _MAX_SIGNATURES or not signature.isascii():
        raise Problem(problems.BAD_EVENT, "The Stripe-Signature header is not what Stripe sends.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Problem(problems.BAD_EVENT, "Send UTF-8.") from None
    if not any(_is_signed_with(secret, text, signature) for secret in secrets):
        raise Problem(
            problems.BAD_EVENT,
            "The signature is not ours or older than five minutes: "
            "compare the endpoint's signing secret and the clocks.",
        )
    return text


def _is_signed_with(secret: str, text: str, signature: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(text, signature, secret, TOLERANCE)
    except stripe.SignatureVerificationError:
        return False
    return True
