"""The demo's three customers: they sign up, open Checkout, pay, and use what they bought."""

import asyncio
import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from scripts.berth.output import CommandError

CARD_THAT_PAYS = "4242424242424242"
TIMEOUT = httpx.Timeout(15.0)


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who buys what."""

    name: str
    email: str
    slug: str
    product: str
    plan: str
    interval: str = "month"


@dataclass(frozen=True, slots=True)
class Account:
    """A buyer with their API token and, once they have paid, when (seconds since the epoch)."""

    buyer: Buyer
    customer_id: str
    token: str
    paid_at: float | None = None


BUYERS = (
    Buyer("Acme", "anna@acme.example", "acme", "mindroom", "starter"),
    Buyer("Globex", "hank@globex.example", "globex", "mindroom", "professional"),
    Buyer("Initech", "bill@initech.example", "initech", "voxflow", "pro"),
)


class Accounts:
    """The buyers' accounts, kept in one private file so that a second run signs nobody up twice."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._accounts: dict[str, Account] = {}
        if file.exists():
            for raw in json.loads(file.read_text(encoding="utf-8")):
                account = Account(**{**raw, "buyer": Buyer(**raw["buyer"])})
                self._accounts[account.buyer.email] = account

    def get(self, buyer: Buyer) -> Account | None:
        """Return the buyer's account, if they have signed up."""
        return self._accounts.get(buyer.email)

    def save(self, account: Account) -> None:
        """Remember `account`."""
        self._accounts[account.buyer.email] = account
        self._file.touch(mode=0o600)
        self._file.write_text(json.dumps([asdict(a) for a in self._accounts.values()]), encoding="utf-8")


async def sign_up(client: httpx.AsyncClient, buyer: Buyer) -> Account:
    """Create the buyer's account at the platform."""
    created = await _call(client, "POST", "/v1/customers", body={"email": buyer.email, "name": buyer.name})
    return Account(buyer, created["id"], created["token"])


async def buy(client: httpx.AsyncClient, account: Account) -> Account:
    """Open Checkout and pay there."""
    return await pay(client, account, await open_checkout(client, account))


async def open_checkout(client: httpx.AsyncClient, account: Account) -> str:
    """Ask the platform for a Checkout; return its page's address."""
    buyer = account.buyer
    checkout = await _call(
        client,
        "POST",
        "/v1/billing/checkout",
        token=account.token,
        body={"product": buyer.product, "plan": buyer.plan, "interval": buyer.interval, "slug": buyer.slug},
    )
    return str(checkout["url"])


async def pay(client: httpx.AsyncClient, account: Account, url: str) -> Account:
    """Pay on Stripe's hosted page, as a browser would; return the account with the moment of payment."""
    page = await client.get(url)
    page.raise_for_status()
    action = re.search(r'<form[^>]*action="([^"]*)"', page.text)
    target = page.url.join(action.group(1)) if action and action.group(1) else page.url
    paid = await client.post(target, data={"card_number": CARD_THAT_PAYS}, follow_redirects=False)
    if paid.status_code != httpx.codes.SEE_OTHER:
        raise CommandError(
            f"paying for {account.buyer.name} ended with HTTP {paid.status_code} instead of a redirect",
            "see why in the stand-in's log, demo/services/stripe_api.log in the state folder",
        )
    return replace(account, paid_at=time.time())


async def instances(client: httpx.AsyncClient, account: Account) -> list[dict[str, Any]]:
    """Return the account's instances as the customer's API shows them."""
    found = await _call(client, "GET", "/v1/instances", token=account.token)
    rows: list[dict[str, Any]] = found["data"]
    return rows


async def wait_for_info(client: httpx.AsyncClient, url: str, seconds: float) -> dict[str, Any]:
    """Return what the tenant's app says of itself at `url`, trying for `seconds`."""
    info: dict[str, Any] = await _until_answered(client, "GET", f"{url}/api/info", seconds)
    return info


async def write_note(client: httpx.AsyncClient, url: str, text: str) -> None:
    """Leave a note in the tenant's app."""
    await _until_answered(client, "POST", f"{url}/api/notes", 10, json={"text": text})


async def has_note(client: httpx.AsyncClient, url: str, text: str, seconds: float) -> bool:
    """Say whether the tenant's app holds the note."""
    notes = await _until_answered(client, "GET", f"{url}/api/notes", seconds)
    return text in json.dumps(notes)


async def _until_answered(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    seconds: float,
    **request: Any,  # noqa: ANN401 - handed to httpx as it is
) -> Any:  # noqa: ANN401 - the tenant's JSON
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = await client.request(method, url, **request)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"{url} did not answer within {seconds:.0f} s: {error or type(error).__name__}",
                    "look at it with: berth instances list, then berth instances show <slug>",
                ) from error
            await asyncio.sleep(0.1)
        else:
            return answer.json()


async def _call(
    client: httpx.AsyncClient, method: str, path: str, *, token: str | None = None, body: object = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await client.request(method, path, headers=headers, json=body)
    if answer.is_error:
        raise CommandError(
            f"{method} {path} ended with HTTP {answer.status_code}: {answer.text[:300]}",
            "berth demo --stop, then again",
        )
    found: dict[str, Any] = answer.json()
    return found
