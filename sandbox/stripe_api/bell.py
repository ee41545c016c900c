"""Tells whoever waits that something has changed."""

import asyncio


class Bell:
    """Rings for everybody who listens at that moment."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait for the next ring."""
        self._next.set()
        self._next = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Set by the next ring. Take it before looking at what may change, and no ring is missed."""
        return self._next
