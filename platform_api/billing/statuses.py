"""What Stripe's subscription statuses mean for buying; one that is not known is taken to be live."""

OVER = frozenset({"canceled", "incomplete_expired"})
"""What a subscription never comes back from."""
NEVER_BEGAN = frozenset({"incomplete", "incomplete_expired"})
NOT_LIVE = NEVER_BEGAN | OVER
