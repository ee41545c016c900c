"""The hosted checkout page: a person or a test pays here."""

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.stripe_api.cards import CardRefusedError
from sandbox.stripe_api.cards import typed as typed_card
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.money import amount_text, interval_text
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.resources.checkout import Buyer, expired, paid, trial_days
from sandbox.stripe_api.web import BodyTooLargeError, read_body

MOST_FIELDS = 20
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def environment() -> Environment:
    """The templates of the pages."""
    return Environment(
        loader=PackageLoader("sandbox.stripe_api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


@dataclass(frozen=True)
class Typed:
    """What was filled in; shown again when it did not pay, but for the card's number."""

    card_number: str = ""
    expiry: str = ""
    email: str = ""
    name: str = ""


@dataclass(frozen=True)
class Pages:
    """The hosted pages over a ledger."""

    ledger: Ledger
    templates: Environment

    def routes(self) -> list[Route]:
        """Their routes."""
        return [
            Route("/c/pay/{session}", self._show, methods=["GET"]),
            Route("/c/pay/{session}", self._pay, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        session = self._session(request)
        if session is None:
            return self._render("gone.html", 404, sentence="There is no such checkout.", session=None)
        if session["status"] != "open":
            return self._over(session)
        return self._form(session, Typed(), None, 200)

    async def _pay(self, request: Request) -> Response:
        try:
            body = await read_body(request)
            fields = dict(parse_qsl(body.decode(), max_num_fields=MOST_FIELDS))
        except (BodyTooLargeError, ValueError):
            return self._render("gone.html", 400, sentence="This form cannot be read.", session=None)
        session = self._session(request)
        if session is None:
            return self._render("gone.html", 404, sentence="There is no such checkout.", session=None)
        if session["status"] == "complete":
            return self._leave(session)
        if session["status"] != "open":
            return self._over(session)
        typed = Typed(*(fields.get(name, "").strip() for name in ("card_number", "expiry", "email", "name")))
        try:
            return self._charge(session, typed)
        except CardRefusedError as refusal:
            return self._form(session, typed, str(refusal), 402)

    def _charge(self, session: Json, typed: Typed) -> Response:
        now = int(self.ledger.clock())
        card = typed_card(typed.card_number, typed.expiry, now)
        if card.test.refusal is not None and not card.test.attaches:
            raise CardRefusedError(card.test.refusal.message, card.test.refusal.code)
        if _needs_email(session) and "@" not in typed.email:
            raise CardRefusedError("Your email address is incomplete.", "email_invalid")
        buyer = Buyer(card, typed.email or None, typed.name or None)
        moment = Moment(now, new_id, "")
        with self.ledger.transaction():
            change = paid(session, buyer, self.ledger.store, moment)
            self.ledger.commit(change, Cause())
        return self._leave(session)

    def _session(self, request: Request) -> Json | None:
        """The session as it is now: one whose time is up expires here, whoever asks first."""
        session = self.ledger.store.find(request.path_params["session"])
        if session is None or session["object"] != "checkout.session":
            return None
        if session["status"] != "open" or session["expires_at"] > self.ledger.clock():
            return session
        with self.ledger.transaction():
            self.ledger.commit(expired(session, self.ledger.store), Cause())
        return self.ledger.store.find(session["id"])

    def _leave(self, session: Json) -> Response:
        target = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
        return RedirectResponse(target, 303, HEADERS)

    def _over(self, session: Json) -> Response:
        if session["status"] == "complete":
            return self._render(
                "gone.html", 200, sentence="This checkout is paid. Thank you.", session=session
            )
        return self._render("gone.html", 410, sentence="This checkout has expired.", session=session)

    def _form(self, session: Json, typed: Typed, refusal: str | None, status: int) -> Response:
        days = trial_days(session, self.ledger.store)
        trial_end = datetime.fromtimestamp(self.ledger.clock() + (days or 0) * 86400, UTC)
        return self._render(
            "pay.html",
            status,
            session=session,
            items=[self._item(item) for item in session["line_items"]],
            due=amount_text(session["amount_total"], session["currency"]),
            trial_days=days,
            trial_end=f"{trial_end:%-d %B %Y}",
            customer_email=self._known_email(session),
            needs_email=_needs_email(session),
            typed=typed,
            refusal=refusal,
        )

    def _item(self, item: Json) -> Json:
        price = found(self.ledger.store, "price", item["price"])
        recurring = price["recurring"]
        return {
            "title": item["description"],
            "quantity": item["quantity"],
            "amount": amount_text(item["amount_total"], item["currency"]),
            "interval": interval_text(recurring["interval"], recurring["interval_count"]),
        }

    def _known_email(self, session: Json) -> str | None:
        if session["customer"] is None:
            email = session["customer_email"]
        else:
            email = found(self.ledger.store, "customer", session["customer"])["email"]
        return email if isinstance(email, str) else None

    def _render(self, template: str, status: int, **context: object) -> Response:
        return HTMLResponse(self.templates.get_template(template).render(context), status, HEADERS)


def _needs_email(session: Json) -> bool:
    return session["customer"] is None and session["customer_email"] is None
