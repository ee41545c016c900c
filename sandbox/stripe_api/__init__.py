"""A stand-in for Stripe that its official clients cannot tell from it, but for what `guide` says.

`resources` holds the API's calls by noun, `pages` what people see, `webhooks` how the world is told. They
ask, and `billing` decides: pure functions from what is stored to what changes. `objects` are Stripe's, made
new. `ledger` stores what was decided, `timekeeper` lets time decide, `control` is for tests alone.
"""
