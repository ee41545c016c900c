"""berth stripe webhook: have Stripe send its events here."""

import asyncio
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from scripts.berth.output import CommandError, JsonFlag, console, print_json
from scripts.berth.stripe_account import official_client
from scripts.demo.services import write_private
from scripts.stripe_catalogue.webhook import ensure_webhook, find_webhooks

WEBHOOK_EXAMPLE = (
    "Example: berth stripe webhook https://api.example.com/webhooks/stripe --secret-file webhook-secret"
)


def webhook(
    url: Annotated[str, typer.Argument(help="Where platform_api answers: https://api…/webhooks/stripe.")],
    secret_file: Annotated[
        Path, typer.Option(help="File of the signing secret, written if it is new; platform_api reads it.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Make the endpoint anew; its old secret is void at once.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Have Stripe deliver the events Berth acts upon; safe to repeat, for instance after an upgrade."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise CommandError(f"{url!r} is no address", "write it as https://api.example.com/webhooks/stripe")
    if not secret_file.parent.is_dir():
        raise CommandError(f"{secret_file.parent} is no folder", "make it, or name another --secret-file")
    known = secret_file.exists() and not replace
    secret = asyncio.run(_ensure(url, secret_file, known=known, replace=replace))
    if secret is not None:
        write_private(secret_file, secret)
    if as_json:
        print_json({"url": url, "secret_file": str(secret_file), "new_secret": secret is not None})
        return
    told = "" if secret is None else f"; its secret is in {secret_file}: restart platform_api with it"
    console.print(f"Stripe delivers to {url}{told}", soft_wrap=True)


async def _ensure(url: str, secret_file: Path, *, known: bool, replace: bool) -> str | None:
    async with official_client() as client:
        if not known and not replace and await find_webhooks(client, url):
            raise CommandError(
                f"Stripe has an endpoint at {url} already, and told its secret only when it was made",
                f"put that secret into {secret_file}, or make the endpoint anew with --replace",
            )
        return await ensure_webhook(client, url, secret_known=known)
