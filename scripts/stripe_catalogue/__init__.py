"""The catalogue at Stripe: what should be there, what differs, and making it so."""
