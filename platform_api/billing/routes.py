from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from platform_api import problems
from platform_api.billing.schemas import CheckoutRequest, OpenCheckout
from platform_api.dependencies import CurrentCustomer, CurrentServices
from platform_api.problems import responses

router = APIRouter(tags=["billing"])

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><h1>{title}</h1><p>{text}</p></html>
"""


@router.post(
    "/v1/billing/checkout",
    status_code=201,
    responses=responses(
        problems.UNAUTHENTICATED,
        problems.UNKNOWN_PLAN,
        problems.SLUG_RESERVED,
        problems.SLUG_TAKEN,
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
    """Start buying a plan: the answer names Stripe's page to pay on."""
    checkout, url = await services.billing.open_checkout(customer, wanted)
    return OpenCheckout(id=checkout.id, url=url, slug=checkout.slug, expires_at=checkout.expires_at)


@router.get("/checkout/paid", include_in_schema=False)
async def paid() -> HTMLResponse:
    """Where Stripe sends a browser that has paid."""
    return HTMLResponse(_PAGE.format(title="Thank you", text="Your instance is being made ready."))


@router.get("/checkout/left", include_in_schema=False)
async def left() -> HTMLResponse:
    """Where Stripe sends a browser that turned back."""
    return HTMLResponse(
        _PAGE.format(title="Nothing was bought", text="The name is held for you for an hour.")
    )
