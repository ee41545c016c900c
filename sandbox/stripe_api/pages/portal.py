"""The billing portal over HTTP: who may come in, which page, what was done."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.pages import portal_acts, portal_views
from sandbox.stripe_api.pages.portal_acts import (
    Act,
    AuthenticationWantedError,
    Deed,
    Form,
    RefusedError,
    Visit,
)
from sandbox.stripe_api.pages.site import GoneError, Site, lead, read_form, render
from sandbox.stripe_api.resources.portal import visited
from sandbox.stripe_api.store import State

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
class PortalPages:
    """The portal's pages."""

    site: Site

    def routes(self) -> list[Route]:
        """Their routes."""
        pages = [Route(_HOME + page.path, self._endpoint(page), methods=["GET", "POST"]) for page in _PAGES]
        return [Route(_HOME, self._home, methods=["GET"]), *pages]

    async def _home(self, request: Request) -> Response:
        try:
            visit = self._enter(request)
        except GoneError as gone:
            return self.site.gone(gone)
        notice = _NOTICES.get(request.query_params.get("done", ""))
        context = portal_views.home(visit, "", self.site.ledger.store)
        return render("portal.html", 200, visit=visit, notice=notice, refusal=None, **context)

    def _endpoint(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                form = await read_form(request)
                visit, about = self._enter(request), page.about(request)
                if request.method == "POST":
                    return self._act(page, visit, about, form, self.site.moment(request))
                return self._show(page, visit, about, form, None)
            except GoneError as gone:
                return self.site.gone(gone)

        return endpoint

    def _act(self, page: Page, visit: Visit, about: str, form: Form, moment: Moment) -> Response:
        try:
            refusal = self._do(page.deed, visit, about, form, moment)
        except AuthenticationWantedError:
            return self._show(page, visit, about, {**form, "authenticated": "asked"}, None)
        if refusal is not None:
            return self._show(page, visit, about, form, refusal)
        return lead(_next(visit, page.name))

    def _do(self, deed: Deed, visit: Visit, about: str, form: Form, moment: Moment) -> str | None:
        """Do it in one transaction. Returns why it was not done, or was done and not paid."""
        ledger = self.site.ledger
        with ledger.transaction():
            act = Act(visit, ledger.store, moment)
            try:
                deed(act, about, form)
            except (ApiError, RefusedError) as error:
                return str(error)
            ledger.commit(act.decision.change(visit.session), Cause())
        return act.unpaid

    def _enter(self, request: Request) -> Visit:
        """The visit this address lets in to."""
        ledger = self.site.ledger
        session = visited(request.path_params["secret"], ledger.store, int(ledger.clock()))
        if session is None:
            raise GoneError(410, "This link is no longer valid: open billing again where you found it.")
        with ledger.transaction():
            ledger.store.put(session)
        configuration = found(ledger.store, "billing_portal.configuration", session["configuration"])
        return Visit(session, configuration, found(ledger.store, "customer", session["customer"]))

    def _show(self, page: Page, visit: Visit, about: str, form: Form, refusal: str | None) -> Response:
        try:
            context = page.view(visit, about, self.site.ledger.store)
        except RefusedError as error:
            raise GoneError(404, str(error)) from error
        status = 200 if refusal is None else 402
        return render(page.template, status, visit=visit, notice=None, refusal=refusal, form=form, **context)


def _next(visit: Visit, done: str) -> str:
    """Where to go once something is done: where the session's flow says, if that is what it was for."""
    flow = visit.session["flow"]
    if flow is not None and flow["type"] == _FLOWS.get(done) and flow["after_completion"]["redirect"]:
        target: str = flow["after_completion"]["redirect"]["return_url"]
        return target
    return f"{visit.home}?done={done}"
