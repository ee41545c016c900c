"""The hosted invoice page, where a customer pays what is open."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.stripe_api import cards
from sandbox.stripe_api.billing import invoicing, payments
from sandbox.stripe_api.billing.invoicing import Attempt
from sandbox.stripe_api.billing.payments import Collected, Holder
from sandbox.stripe_api.cards import CardRefusedError
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.money import amount_text
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.pages.site import GoneError, Site, lead, read_form, render

_PATH = "/invoice/{invoice}"


@dataclass(frozen=True)
class InvoicePages:
    """The page of each invoice that is no draft any more."""

    site: Site

    def routes(self) -> list[Route]:
        """Their routes."""
        return [Route(_PATH, self._page, methods=["GET", "POST"])]

    async def _page(self, request: Request) -> Response:
        try:
            typed = await read_form(request)
            invoice = self._invoice(request.path_params["invoice"])
        except GoneError as gone:
            return self.site.gone(gone)
        if request.method == "GET" or invoice["status"] != "open":
            return self._show(invoice, None, 200)
        try:
            return self._pay(invoice, typed, request)
        except (CardRefusedError, ApiError) as refusal:
            return self._show(invoice, str(refusal), 402)

    def _invoice(self, invoice_id: str) -> Json:
        invoice = self.site.ledger.store.find(invoice_id)
        if invoice is None or invoice["object"] != "invoice" or invoice["status"] == "draft":
            raise GoneError(404, "There is no such invoice.")
        return invoice

    def _pay(self, invoice: Json, typed: Mapping[str, str], request: Request) -> Response:
        moment = in_time_of(invoice, self.site.ledger.store, self.site.moment(request))
        card = cards.typed(typed.get("card_number", ""), typed.get("expiry", ""), moment.now)
        decision = Decision(self.site.ledger.store)
        tried = paid_by(card, invoice, decision, moment)
        with self.site.ledger.transaction():
            self.site.ledger.commit(decision.change(tried.intent), Cause())
        if tried.error is not None:
            raise tried.error
        action = tried.intent["next_action"]
        target = _PATH.format(invoice=invoice["id"]) if action is None else action["redirect_to_url"]["url"]
        return lead(target)

    def _show(self, invoice: Json, refusal: str | None, status: int) -> Response:
        return render("invoice.html", status, refusal=refusal, **invoice_view(invoice))


def paid_by(card: cards.Card, invoice: Json, decision: Decision, moment: Moment) -> Collected:
    """Try an open invoice with a card its customer typed; one that pays is theirs from then on."""
    customer = found(decision, "customer", invoice["customer"])
    billing = {"email": customer["email"], "name": customer["name"]}
    method = payments.new_method(card, billing, moment)
    decision.save(method)
    _come_back(invoice, decision)
    return invoicing.attempted(decision, invoice, Attempt(Holder.PRESENT, method=method), moment)


def _come_back(invoice: Json, decision: Decision) -> None:
    """Let whoever authenticates for it return to the invoice."""
    payment = invoicing.open_payment(invoice, decision)
    if payment is not None:
        intent = found(decision, "payment_intent", payment["payment"]["payment_intent"])
        decision.save({**intent, "_return_url": invoice["hosted_invoice_url"]})


def invoice_view(invoice: Json) -> Json:
    """What the page shows."""
    currency = invoice["currency"]
    return {
        "invoice": invoice,
        "lines": [
            {"title": line["description"], "amount": amount_text(line["amount"], currency)}
            for line in invoice["lines"]["data"]
        ],
        "total": amount_text(invoice["total"], currency),
        "due": amount_text(invoice["amount_remaining"], currency),
    }
