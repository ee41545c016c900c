"""What Stripe's subscription statuses mean for buying; one that is not known is taken to be live."""

NEVER_BEGAN = frozenset({"incomplete", "incomplete_expired"})
NOT_LIVE = NEVER_BEGAN | {"canceled"}
