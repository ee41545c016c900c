from fastapi import APIRouter, Request

from platform_api import problems
from platform_api.dependencies import CurrentServices
from platform_api.problems import responses
from platform_api.stripe_events.schemas import Received

router = APIRouter(tags=["stripe"])

_BODY = {
    "requestBody": {
        "required": True,
        "description": "An event, exactly as signed",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    "parameters": [
        {"name": "Stripe-Signature", "in": "header", "required": True, "schema": {"type": "string"}}
    ],
}


@router.post("/api/v1/webhooks/stripe", include_in_schema=False)
@router.post(
    "/webhooks/stripe",
    responses=responses(problems.BAD_EVENT, problems.BODY_TOO_LARGE, problems.DATABASE_UNAVAILABLE),
    openapi_extra=_BODY,
)
async def receive_stripe_event(services: CurrentServices, request: Request) -> Received:
    """Take in an event. 200 means it is stored; anything else asks Stripe to send it again."""
    await services.events.take(await request.body(), request.headers.get("stripe-signature"))
    return Received()
