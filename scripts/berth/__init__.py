"""The operator's command line."""

from scripts.berth.app import main

__all__ = ["main"]
