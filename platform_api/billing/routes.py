from typing import Annotated

from fastapi import APIRouter, Body, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from platform_api import problems
from platform_api.billing.pages import PRIVATE, page
from platform_api.billing.schemas import (
    CheckoutRequest,
    OpenCheckout,
    Portal,
    PortalRequest,
    SubscriptionView,
    Word,
)
from platform_api.dependencies import CurrentCustomer, CurrentServices
from platform_api.problems import Problem, responses

router = APIRouter(tags=["billing"])


@router.post(
    "/v1/billing/checkout",
    status_code=201,
    responses=responses(
        problems.UNAUTHENTICATED,
        problems.UNKNOWN_PLAN,
        problems.PROMO_CODE,
        problems.EMAIL_UNVERIFIED,
        problems.SLUG_RESERVED,
        problems.SLUG_TAKEN,
        problems.INSTANCE_KEPT,
        problems.ALREADY_SUBSCRIBED,
        problems.CHECKOUT_SUPERSEDED,
        problems.INVALID,
        problems.BILLING_REFUSED,
        problems.BILLING_UNAVAILABLE,
    ),
)
async def open_checkout(
    services: CurrentServices, customer: CurrentCustomer, wanted: CheckoutRequest
) -> OpenCheckout:
    """Start buying a plan: the answer says where to go on, mostly to Stripe's page to pay on."""
    return await services.billing.open_checkout(customer, wanted)


@router.post(
    "/v1/billing/portal",
    status_code=201,
    responses=responses(
        problems.UNAUTHENTICATED,
        problems.UNKNOWN_PLAN,
        problems.NOTHING_BOUGHT,
        problems.INVALID,
        problems.BILLING_REFUSED,
        problems.BILLING_UNAVAILABLE,
    ),
)
async def open_portal(
    services: CurrentServices,
    customer: CurrentCustomer,
    wanted: Annotated[PortalRequest | None, Body()] = None,
) -> Portal:
    """Open the billing portal: to change or end a plan, to pay, to see invoices."""
    return Portal(url=await services.portal.open(customer, wanted.product if wanted else None))


@router.get(
    "/v1/billing/subscription",
    responses=responses(
        problems.UNAUTHENTICATED, problems.AMBIGUOUS_PRODUCT, problems.NO_SUBSCRIPTION, problems.INVALID
    ),
)
async def get_subscription(
    services: CurrentServices,
    customer: CurrentCustomer,
    product: Annotated[
        Word | None, Query(description="Needed by who has several; else the live one is meant")
    ] = None,
) -> SubscriptionView:
    """Show what you subscribe to."""
    return await services.subscriptions.get(customer.id, product)


@router.delete(
    "/v1/billing/subscription",
    responses=responses(
        problems.UNAUTHENTICATED, problems.NO_SUBSCRIPTION, problems.MANAGED_IN_PORTAL, problems.INVALID
    ),
)
async def end_subscription(
    services: CurrentServices, customer: CurrentCustomer, product: Annotated[Word, Query()]
) -> SubscriptionView:
    """End a free plan; its instance is suspended, and kept for a while. A paid one ends in the portal."""
    return await services.subscriptions.end_free(customer.id, product)


@router.get("/billing/portal/{token}", include_in_schema=False)
async def follow_portal_link(services: CurrentServices, token: str) -> Response:
    """Where the links in e-mails lead: on to a new session of the billing portal."""
    try:
        return RedirectResponse(await services.portal.open_link(token), 303, PRIVATE)
    except Problem as problem:
        return _explained(problem)


@router.head("/billing/portal/{token}", include_in_schema=False)
async def try_portal_link(services: CurrentServices, token: str) -> Response:
    """Tell those who only check links, as mail scanners do, that it works; opens nothing at Stripe."""
    try:
        await services.portal.find_link(token)
    except Problem as problem:
        return _explained(problem)
    return Response(headers=PRIVATE)


def _explained(problem: Problem) -> HTMLResponse:
    headers = {**(problem.headers or {}), **PRIVATE}
    return page(problem.kind.title, str(problem.detail), problem.status_code, headers)


@router.get("/checkout/paid", include_in_schema=False)
async def paid() -> HTMLResponse:
    """Where Stripe sends a browser that has paid."""
    return page("Thank you", "Your instance is being made ready.")


@router.get("/checkout/left", include_in_schema=False)
async def left() -> HTMLResponse:
    """Where Stripe sends a browser that turned back."""
    return page("Nothing was bought", "The name is held for you for an hour.")


@router.get("/billing/left", include_in_schema=False)
async def left_portal() -> HTMLResponse:
    """Where Stripe sends a browser that leaves the billing portal."""
    return page("All set", "What you changed takes effect within a minute; you may close this page.")
