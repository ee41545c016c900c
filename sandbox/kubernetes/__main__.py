"""A cluster by hand: `python -m sandbox.kubernetes up|down|status --name X [--simulated]`."""
