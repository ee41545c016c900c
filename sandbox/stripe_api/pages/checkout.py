"""The hosted checkout page: a person or a test pays here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.stripe_api import cards
from sandbox.stripe_api.billing import payments, purchase
from sandbox.stripe_api.billing.purchase import Buyer
from sandbox.stripe_api.cards import CardRefusedError
from sandbox.stripe_api.clocks import in_time_of_customer
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.ledger import Ledger
from sandbox.stripe_api.money import amount_text, interval_text
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Change, Moment, found
from sandbox.stripe_api.pages.site import GoneError, Site, lead, read_form, render
from sandbox.stripe_api.resources.payment_intents import authenticated
from sandbox.stripe_api.store import State
from sandbox.stripe_api.timetable import DAY


@dataclass(frozen=True)
class Typed:
    """What was filled in; shown again when it did not pay, but for the card's number."""

    card_number: str = ""
    expiry: str = ""
    email: str = ""
    name: str = ""
    promotion_code: str = ""


@dataclass(frozen=True)
class CheckoutPages:
    """The page of each checkout session, and the bank's question whether it is the holder who pays."""

    site: Site

    def routes(self) -> list[Route]:
        """Their routes."""
        pay = "/c/pay/{session}"
        return [
            Route(pay, self._page, methods=["GET", "POST"]),
            Route(f"{pay}/authenticate/{{method}}", self._page, methods=["GET", "POST"]),
            Route("/authenticate/{intent}", self._page, methods=["GET", "POST"]),
        ]

    async def _page(self, request: Request) -> Response:
        try:
            fields = await read_form(request)
            if "intent" in request.path_params:
                return self._intent(request, fields)
            return self._checkout(request, fields)
        except GoneError as gone:
            return self.site.gone(gone)

    def _checkout(self, request: Request, fields: Mapping[str, str]) -> Response:
        session = self._session(request)
        posted = request.method == "POST"
        if posted and session["status"] == "complete":
            return _leave(session)
        _check_open(session)
        # What is bought begins in the time of who buys.
        moment = in_time_of_customer(session["customer"], self.site.ledger.store, self.site.moment(request))
        visit = Visit(self.site.ledger, session, moment)
        if "method" in request.path_params:
            method = visit.method(request.path_params["method"])
            return self._authentication(visit, method, fields.get("outcome"))
        return self._act(visit, fields) if posted else self._form(visit, Typed(), None, 200)

    def _act(self, visit: "Visit", fields: Mapping[str, str]) -> Response:
        typed = Typed(**{name: fields.get(name, "").strip()[:200] for name in Typed.__dataclass_fields__})
        try:
            match fields.get("action", "pay"):
                case "apply_code":
                    return visit.apply(typed.promotion_code)
                case "remove_code":
                    return visit.remove_code()
                case _:
                    return visit.pay(typed)
        except (CardRefusedError, ApiError) as refusal:
            return self._form(visit, typed, str(refusal), 402)

    def _authentication(self, visit: "Visit", method: Json, outcome: str | None) -> Response:
        """The bank's question whether it is the holder who pays, and their answer."""
        try:
            match outcome:
                case None:
                    return self._ask(visit.session["amount_total"], visit.session["currency"], method)
                case "complete":
                    return visit.complete(method)
                case _:
                    refusal = payments.NOT_AUTHENTICATED_SENTENCE
        except ApiError as error:
            refusal = str(error)
        billing = method["billing_details"]
        typed = Typed(email=billing["email"] or "", name=billing["name"] or "")
        return self._form(visit, typed, refusal, 402)

    def _intent(self, request: Request, fields: Mapping[str, str]) -> Response:
        """The same question about a payment intent that an API call could not finish."""
        store = self.site.ledger.store
        intent = store.find(request.path_params["intent"])
        if intent is None or intent["object"] != "payment_intent":
            raise GoneError(404, "There is no such payment.")
        if intent["status"] != "requires_action":
            raise GoneError(410, "This payment does not wait for you any more.")
        outcome = fields.get("outcome")
        if outcome is None:
            method = found(store, "payment_method", intent["payment_method"])
            return self._ask(intent["amount"], intent["currency"], method)
        change = authenticated(intent, store, self.site.moment(request), passed=outcome == "complete")
        with self.site.ledger.transaction():
            self.site.ledger.commit(change, Cause())
        if intent["_return_url"] is not None:
            return lead(_with_query(intent))
        sentence = (
            payments.NOT_AUTHENTICATED_SENTENCE if change.refusal else "Thank you. The payment is made."
        )
        return render("gone.html", 402 if change.refusal else 200, sentence=sentence, session=None)

    def _ask(self, amount: int, currency: str, method: Json) -> Response:
        return render(
            "authenticate.html", 200, amount=amount_text(amount, currency), last4=method["card"]["last4"]
        )

    def _session(self, request: Request) -> Json:
        """The session as it is now: one whose time is up expires here, whoever asks first."""
        store = self.site.ledger.store
        session = store.find(request.path_params["session"])
        if session is None or session["object"] != "checkout.session":
            raise GoneError(404, "There is no such checkout.")
        if session["status"] != "open" or session["expires_at"] > self.site.moment(request).now:
            return session
        with self.site.ledger.transaction():
            self.site.ledger.commit(purchase.expired(session, store), Cause())
        return found(store, "checkout.session", session["id"])

    def _form(self, visit: "Visit", typed: Typed, refusal: str | None, status: int) -> Response:
        view = checkout_view(visit.session, self.site.ledger.store, visit.moment.now)
        return render("pay.html", status, typed=typed, refusal=refusal, **view)


@dataclass(frozen=True)
class Visit:
    """Somebody on the page of an open session, in their own time."""

    ledger: Ledger
    session: Json
    moment: Moment

    def apply(self, code: str) -> Response:
        """Redeem a promotion code."""
        if not self.session["allow_promotion_codes"]:
            raise ApiError("This checkout takes no promotion codes.")
        return self._changed(purchase.with_code(self.session, code, self.ledger.store, self.moment.now))

    def remove_code(self) -> Response:
        """Redeem none."""
        if not self.session["allow_promotion_codes"]:
            raise ApiError("This discount is part of the offer.")
        return self._changed(purchase.priced(self.session, (), self.ledger.store))

    def pay(self, typed: Typed) -> Response:
        """Buy, or first ask the card's holder to authenticate."""
        if _needs_email(self.session) and "@" not in typed.email:
            raise CardRefusedError("Your email address is incomplete.", "email_invalid")
        buyer = Buyer(typed.email or None, typed.name or None)
        if not purchase.needs_card(self.session):
            return self._complete(None, buyer)
        card = cards.typed(typed.card_number, typed.expiry, self.moment.now)
        billing = {"email": buyer.email, "name": buyer.name}
        method = payments.new_method(card, billing, self.moment)
        if not payments.wants_authentication(method):
            return self._complete(method, buyer)
        self._commit(Change(method, ({**method, "_session": self.session["id"]},)))
        return lead(f"/c/pay/{self.session['id']}/authenticate/{method['id']}")

    def method(self, method_id: str) -> Json:
        """The card that was typed here and whose holder is being asked."""
        method = self.ledger.store.find(method_id)
        if method is None or method.get("_session") != self.session["id"]:
            raise GoneError(404, "There is no such payment.", self.session)
        return method

    def complete(self, method: Json) -> Response:
        """Buy with a card whose holder has authenticated."""
        billing = method["billing_details"]
        return self._complete(method, Buyer(billing["email"], billing["name"]))

    def _complete(self, method: Json | None, buyer: Buyer) -> Response:
        change = purchase.complete(self.session, method, buyer, self.ledger.store, self.moment)
        self._commit(change)
        if change.refusal is not None:
            raise change.refusal
        return _leave(self.session)

    def _changed(self, session: Json) -> Response:
        self._commit(Change(session, (session,)))
        return lead(f"/c/pay/{session['id']}")

    def _commit(self, change: Change) -> None:
        with self.ledger.transaction():
            self.ledger.commit(change, Cause())


def checkout_view(session: Json, state: State, now: int) -> Json:
    """What the page shows of an open session."""
    currency, ends = session["currency"], purchase.trial_end(session, now)
    taken = session["total_details"]["amount_discount"]
    days = None if ends is None else -(-(ends - now) // DAY)
    due = amount_text(session["amount_total"], currency)
    return {
        "session": session,
        "items": [_item(item, state) for item in session["line_items"]],
        "coupons": [_coupon_text(one, state) for one in session["discounts"]],
        "taken": amount_text(taken, currency) if taken else None,
        "due": due,
        "trial_days": days,
        "trial_end": None if ends is None else f"{datetime.fromtimestamp(ends, UTC):%-d %B %Y}",
        "needs_card": purchase.needs_card(session),
        "needs_email": _needs_email(session),
        "customer_email": _known_email(session, state),
        "verb": _verb(session, due, trial=ends is not None),
    }


def _verb(session: Json, due: str, *, trial: bool) -> str:
    if session["mode"] == "payment":
        return f"Pay {due}" if session["amount_total"] else "Complete order"
    return "Start trial" if trial else "Pay and subscribe"


def _item(item: Json, state: State) -> Json:
    price = found(state, "price", item["price"])
    recurring = price["recurring"]
    return {
        "title": item["description"],
        "quantity": item["quantity"],
        "amount": amount_text(price["unit_amount"] * item["quantity"], price["currency"]),
        "interval": recurring and interval_text(recurring["interval"], recurring["interval_count"]),
    }


def _coupon_text(one: Json, state: State) -> str:
    """`SPRING: 25% off for 3 months`."""
    code = None if one["promotion_code"] is None else found(state, "promotion_code", one["promotion_code"])
    coupon = found(state, "coupon", one["coupon"] if code is None else code["promotion"]["coupon"])
    if coupon["percent_off"] is not None:
        off = f"{coupon['percent_off']:g}% off"
    else:
        off = f"{amount_text(coupon['amount_off'], coupon['currency'])} off"
    months = coupon["duration_in_months"]
    lasts = {"forever": "", "once": " once", "repeating": f" for {months} month{'' if months == 1 else 's'}"}
    name = coupon["name"] or "Discount" if code is None else code["code"]
    return f"{name}: {off}{lasts[coupon['duration']]}"


def _known_email(session: Json, state: State) -> str | None:
    if session["customer"] is None:
        email = session["customer_email"]
    else:
        email = found(state, "customer", session["customer"])["email"]
    return email if isinstance(email, str) else None


def _needs_email(session: Json) -> bool:
    return session["customer"] is None and session["customer_email"] is None


def _check_open(session: Json) -> None:
    if session["status"] == "complete":
        raise GoneError(200, "This checkout is paid. Thank you.", session)
    if session["status"] != "open":
        raise GoneError(410, "This checkout has expired.", session)


def _leave(session: Json) -> Response:
    target = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
    return lead(target)


def _with_query(intent: Json) -> str:
    """Where the holder goes after authenticating, told of the intent as Stripe does."""
    url = intent["_return_url"]
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}payment_intent={intent['id']}&payment_intent_client_secret={intent['client_secret']}"
