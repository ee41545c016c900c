import secrets

FREE_PREFIX = "free_"
"""Begins the id of a subscription of our own making, to a free plan; Stripe's begin with `sub_`."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_id(prefix: str) -> str:
    """Return an opaque id: `prefix` and 80 random bits in lower-case base 32, fit for a Kubernetes label."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(16))
