"""The billing portal over HTTP: who may come in, which page, what was done."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.pages import portal_acts, portal_views
from sandbox.stripe_api.pages.checkout import HEADERS
from sandbox.stripe_api.pages.portal_acts import (
    Act,
    AuthenticationWantedError,
    Deed,
    Form,
    RefusedError,
    Visit,
)
from sandbox.stripe_api.resources.portal import visited
from sandbox.stripe_api.store import State
from sandbox.stripe_api.web import BodyTooLargeError, read_body

MOST_FIELDS = 20
_HOME = "/p/session/{secret}"
_NOTICES = {
    "cancel": "Your cancellation was recorded.",
    "card": "Your card was saved. It is charged from now on.",
    "details": "Your details were saved.",
    "pay": "The invoice is paid. Thank you.",
    "resume": "Your subscription goes on.",
    "update": "Your plan was changed.",
}
_FLOWS = {"cancel": "subscription_cancel", "card": "payment_method_update", "update": "subscription_update"}
"""By what was done, the flow it completes."""


@dataclass(frozen=True)
class Page:
    """A page of the portal.

    Attributes:
        name: what is done there.
        path: below the session's.
        template: what shows when it is opened, and again when what was asked cannot be done.
        view: the template's context.
        deed: what its form does.
    """

    name: str
    path: str
    template: str
    view: Callable[[Visit, str, State], Json]
    deed: Deed

    def about(self, request: Request) -> str:
        """The id the page is about; empty for the customer."""
        ids = request.path_params
        return str(ids.get("subscription") or ids.get("invoice") or "")


_PAGES = (
    Page("card", "/card", "portal_card.html", portal_views.card, portal_acts.change_card),
    Page("details", "/details", "portal_details.html", portal_views.details, portal_acts.change_details),
    Page(
        "cancel",
        "/subscriptions/{subscription}/cancel",
        "portal_cancel.html",
        portal_views.cancel,
        portal_acts.cancel,
    ),
    Page(
        "resume", "/subscriptions/{subscription}/resume", "portal.html", portal_views.home, portal_acts.resume
    ),
    Page(
        "update",
        "/subscriptions/{subscription}/update",
        "portal_update.html",
        portal_views.switch,
        portal_acts.switch,
    ),
    Page("pay", "/invoices/{invoice}/pay", "portal.html", portal_views.home, portal_acts.pay),
)


@dataclass(frozen=True)
class Portal:
    """The portal's pages over a ledger.

    Attributes:
        base_url: where the hosted pages are; None for wherever the caller reached us.
    """

    ledger: Ledger
    templates: Environment
    base_url: str | None

    def routes(self) -> list[Route]:
        """Their routes."""
        routes = [Route(_HOME, self._home, methods=["GET"])]
        for page in _PAGES:
            routes.append(Route(_HOME + page.path, self._shows(page), methods=["GET"]))
            routes.append(Route(_HOME + page.path, self._does(page), methods=["POST"]))
        return routes

    async def _home(self, request: Request) -> Response:
        visit = self._enter(request)
        if visit is None:
            return self._gone()
        notice = _NOTICES.get(request.query_params.get("done", ""))
        context = portal_views.home(visit, "", self.ledger.store)
        return self._render("portal.html", 200, visit=visit, notice=notice, refusal=None, **context)

    def _shows(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            visit = self._enter(request)
            if visit is None:
                return self._gone()
            return self._page(page, visit, page.about(request), {}, None)

        return endpoint

    def _does(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                body = (await read_body(request)).decode()
                form = {name: text.strip() for name, text in parse_qsl(body, max_num_fields=MOST_FIELDS)}
            except (BodyTooLargeError, ValueError):
                return self._render("gone.html", 400, sentence="This form cannot be read.", session=None)
            visit = self._enter(request)
            if visit is None:
                return self._gone()
            about, base_url = page.about(request), self.base_url or str(request.base_url).rstrip("/")
            try:
                refusal = self._do(page.deed, visit, about, form, base_url)
            except AuthenticationWantedError:
                return self._page(page, visit, about, {**form, "authenticated": "asked"}, None)
            if refusal is not None:
                return self._page(page, visit, about, form, refusal)
            return RedirectResponse(_next(visit, page.name), 303, HEADERS)

        return endpoint

    def _do(self, deed: Deed, visit: Visit, about: str, form: Form, base_url: str) -> str | None:
        """Do it in one transaction. Returns why it was not done, or was done and not paid."""
        with self.ledger.transaction():
            act = Act(visit, self.ledger.store, Moment(visit.now, new_id, base_url))
            try:
                deed(act, about, form)
            except (ApiError, RefusedError) as error:
                return str(error)
            self.ledger.commit(act.decision.change(visit.session), Cause())
        return act.unpaid

    def _enter(self, request: Request) -> Visit | None:
        """The visit this address lets in to; None when there is none, or no more."""
        now, store = int(self.ledger.clock()), self.ledger.store
        session = visited(request.path_params["secret"], store, now)
        if session is None:
            return None
        with self.ledger.transaction():
            store.put(session)
        configuration = found(store, "billing_portal.configuration", session["configuration"])
        return Visit(session, configuration, found(store, "customer", session["customer"]), now)

    def _page(self, page: Page, visit: Visit, about: str, form: Form, refusal: str | None) -> Response:
        try:
            context = page.view(visit, about, self.ledger.store)
        except RefusedError as error:
            return self._render("gone.html", 404, sentence=str(error), session=None)
        status = 200 if refusal is None else 402
        return self._render(
            page.template, status, visit=visit, notice=None, refusal=refusal, form=form, **context
        )

    def _gone(self) -> Response:
        sentence = "This link is no longer valid: open billing again where you found it."
        return self._render("gone.html", 410, sentence=sentence, session=None)

    def _render(self, template: str, status: int, **context: object) -> Response:
        return HTMLResponse(self.templates.get_template(template).render(context), status, HEADERS)


def _next(visit: Visit, done: str) -> str:
    """Where to go once something is done: where the session's flow says, if that is what it was for."""
    flow = visit.session["flow"]
    if flow is not None and flow["type"] == _FLOWS.get(done) and flow["after_completion"]["redirect"]:
        target: str = flow["after_completion"]["redirect"]["return_url"]
        return target
    return f"{visit.home}?done={done}"
