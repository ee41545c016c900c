"""The operator's access to Stripe."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import stripe

from provisioner.clients.stripe import StripeClient
from scripts.berth.output import CommandError
from scripts.state import from_environment_or_demo, is_in_environment

STRIPE_URL = "https://api.stripe.com"
TIMEOUT = 20.0  # seconds, one try
RETRIES = 3


def stripe_client() -> StripeClient:
    """Return the client of the Stripe account that is named, to go with the database that is.

    Raises:
        CommandError: none is named, or one of the two is a running demo's and the other is not.
    """
    named = _named()
    if is_named_in_environment() != is_in_environment("BERTH_DATABASE_URL"):
        demos, own = ("database", "Stripe key") if is_named_in_environment() else ("Stripe key", "database")
        raise CommandError(
            f"the {own} is named in the environment, but the {demos} is a demo's",
            "set both BERTH_DATABASE_URL and BERTH_STRIPE_API_KEY, or neither",
        )
    return StripeClient(*named)


@asynccontextmanager
async def official_client() -> AsyncIterator[stripe.StripeClient]:
    """Lend Stripe's own client of the account that is named.

    Raises:
        CommandError: none is named, or Stripe refused what was asked inside, or did not answer.
    """
    key, url = _named()
    transport = stripe.HTTPXClient(timeout=TIMEOUT)
    try:
        yield stripe.StripeClient(
            key,
            base_addresses={"api": url.rstrip("/")},
            http_client=transport,
            max_network_retries=RETRIES,
        )
    except stripe.StripeError as error:
        raise _told(error, url) from error
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


def is_named_in_environment() -> bool:
    """Whether the environment itself names a Stripe account; a running demo does not count."""
    return is_in_environment("BERTH_STRIPE_API_KEY")


def _named() -> tuple[str, str]:
    """The key, and the address that belongs to it: a real key is not for the demo's stand-in."""
    key = from_environment_or_demo("BERTH_STRIPE_API_KEY")
    if key is None:
        raise CommandError(
            "no Stripe key is named and no demo is running",
            "set BERTH_STRIPE_API_KEY (or BERTH_STRIPE_API_KEY_FILE), or start a demo with: berth demo",
        )
    if is_named_in_environment():
        return key, os.environ.get("BERTH_STRIPE_API_URL") or STRIPE_URL
    return key, from_environment_or_demo("BERTH_STRIPE_API_URL") or STRIPE_URL


def _told(error: stripe.StripeError, url: str) -> CommandError:
    match error:
        case stripe.AuthenticationError() | stripe.PermissionError():
            return CommandError(
                "Stripe refused the key",
                "put one into BERTH_STRIPE_API_KEY that may read and write products, prices, portal"
                " configurations and webhook endpoints",
            )
        case stripe.RateLimitError():
            return CommandError("Stripe asks to slow down", "run the command again in a minute: it goes on")
        case stripe.InvalidRequestError():
            return CommandError(
                f"Stripe refused ({error.http_status} {error.code}): {error.user_message}",
                "mend what it says at Stripe or in the catalogue, then run the command again: it goes on",
            )
        case stripe.APIConnectionError():
            return CommandError(
                f"Stripe could not be reached at {url}",
                "check the network and BERTH_STRIPE_API_URL, then run the command again: it goes on",
            )
        case _:
            return CommandError(
                f"Stripe answered with an error ({error.http_status})", "run the command again: it goes on"
            )
