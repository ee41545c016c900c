from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from platform_api import problems
from platform_api.problems import responses
from platform_api.request_bounds import header
from platform_api.stripe_events.schemas import Received

if TYPE_CHECKING:
    from platform_api.dependencies import Services

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

_RECEIVED = Response(Received().model_dump_json(), media_type="application/json")


class _PlainRoute(APIRoute):
    """Documented like any other, and called with the request alone.

    FastAPI's reading of parameters and dependencies costs several times what is done with an event.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what the endpoint answers."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)


router = APIRouter(
    tags=["stripe"], route_class=_PlainRoute, generate_unique_id_function=lambda route: route.name
)


@router.post("/api/v1/webhooks/stripe", include_in_schema=False)
@router.post(
    "/webhooks/stripe",
    response_model=Received,
    responses=responses(
        problems.BAD_EVENT, problems.BODY_TOO_LARGE, problems.DATABASE_UNAVAILABLE, problems.OVERLOADED
    ),
    openapi_extra=_BODY,
)
async def receive_stripe_event(request: Request) -> Response:
    """Take in an event. 200 means it is stored; anything else asks Stripe to send it again."""
    services = cast("Services", request.app.state.services)
    signature = header(request.scope, b"stripe-signature")
    await services.events.take(await _body(request.receive), signature or None)
    return _RECEIVED


async def _body(receive: Receive) -> bytes:
    """Read the whole body, which is bounded already, as one piece."""
    pieces: list[bytes] = []
    is_complete = False
    while not is_complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        is_complete = not message.get("more_body", False)
    return b"".join(pieces)
