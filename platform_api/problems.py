"""Every error as an RFC 9457 problem: what is wrong and what to do, never how we are built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import psycopg
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:berth:problem:"
_MAX_ERRORS = 50


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: the tail of its type URI, its status and the title all of its kind share."""

    name: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """The `type` of problems of this kind."""
        return _TYPE_PREFIX + self.name


UNAUTHENTICATED = Kind("unauthenticated", 401, "A valid API token is needed")
EMAIL_UNVERIFIED = Kind("email-not-verified", 403, "The e-mail address is not verified")
NOT_FOUND = Kind("not-found", 404, "There is no such thing, or it is not yours")
NO_SUBSCRIPTION = Kind("no-subscription", 404, "There is no such subscription")
UNKNOWN_LINK = Kind("unknown-link", 404, "This link is not one of ours")
EXPIRED_LINK = Kind("expired-link", 410, "This link has expired")
TIMEOUT = Kind("request-timeout", 408, "The request arrived too slowly")
EMAIL_TAKEN = Kind("email-taken", 409, "This e-mail address is registered already")
SLUG_RESERVED = Kind("slug-reserved", 409, "This name is reserved")
SLUG_TAKEN = Kind("slug-taken", 409, "This name is taken")
INSTANCE_KEPT = Kind("instance-kept", 409, "An instance of yours is kept under another name")
ALREADY_SUBSCRIBED = Kind("already-subscribed", 409, "There is a live subscription to this product")
NOTHING_BOUGHT = Kind("nothing-bought", 409, "There is nothing to manage yet")
MANAGED_IN_PORTAL = Kind("managed-in-portal", 409, "This subscription is changed in the billing portal")
CHECKOUT_SUPERSEDED = Kind("checkout-superseded", 409, "Another checkout of yours replaced this one")
UNKNOWN_PLAN = Kind("unknown-plan", 400, "This is not on sale")
PROMO_CODE = Kind("promo-code-refused", 400, "This promotion code cannot be used")
AMBIGUOUS_PRODUCT = Kind("ambiguous-product", 400, "There is more than one subscription")
BAD_EVENT = Kind("bad-event", 400, "This is not an event from Stripe")
BAD_HOST = Kind("bad-host", 400, "This server does not answer to that host name")
BAD_REQUEST = Kind("bad-request", 400, "The request cannot be read")
BODY_TOO_LARGE = Kind("body-too-large", 413, "The request's body is too large")
INVALID = Kind("invalid-request", 422, "The request does not have the right form")
INTERNAL = Kind("internal-error", 500, "Something went wrong on our side")
BILLING_REFUSED = Kind("billing-refused", 502, "The payment provider refused our request")
BILLING_UNAVAILABLE = Kind("billing-unavailable", 503, "The payment provider cannot be reached")
DATABASE_UNAVAILABLE = Kind("database-unavailable", 503, "The database cannot be reached")
OVERLOADED = Kind("overloaded", 503, "Too many requests at once")


class FieldError(BaseModel):
    """One thing wrong with one part of the request."""

    pointer: str = Field(description="Where: `body/slug`, `query/limit`, ...")
    detail: str


class ProblemDocument(BaseModel):
    """An RFC 9457 problem."""

    type: str = Field(
        description="A URI that names the kind of problem; `about:blank`: only the status speaks"
    )
    title: str
    status: int
    detail: str
    instance: str = Field(description="Names this occurrence: give it to support")
    errors: list[FieldError] | None = Field(
        default=None, description="Each thing wrong with the request, if its form is"
    )


class Problem(HTTPException):
    """Raise to answer with a problem; `detail` is one sentence for the caller that names the remedy."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        extra = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(kind.status, detail, {**(headers or {}), **extra})
        self.kind = kind
        self.errors = list(errors)


def problem_response(problem: StarletteHTTPException, request_id: str) -> Response:
    """Render `problem` for the request that `request_id` names."""
    if isinstance(problem, Problem):
        uri, title, errors = problem.kind.uri, problem.kind.title, problem.errors
    else:
        uri, title, errors = "about:blank", HTTPStatus(problem.status_code).phrase, []
    document = ProblemDocument(
        type=uri,
        title=title,
        status=problem.status_code,
        detail=str(problem.detail),
        instance=f"urn:berth:request:{request_id}",
        errors=errors or None,
    )
    return Response(
        document.model_dump_json(exclude_none=True),
        status_code=problem.status_code,
        headers=dict(problem.headers or {}),
        media_type=MEDIA_TYPE,
    )


def responses(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """Say in the OpenAPI document that a route may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(f"{kind.title} (`{kind.uri}`)")
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": "; ".join(texts), "content": content} for status, texts in by_status.items()
    }
    return {**described, "default": {"description": "Any other problem", "content": content}}


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem; what is caught nowhere is the request log's to answer."""
    app.add_exception_handler(StarletteHTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(psycopg.OperationalError, _on_database_error)
    app.add_exception_handler(psycopg.InterfaceError, _on_database_error)
    app.add_exception_handler(TimeoutError, _on_database_error)


def _answer(request: Request, problem: StarletteHTTPException) -> Response:
    return problem_response(problem, request.state.request_id)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    return _answer(request, cast("StarletteHTTPException", error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    # What was sent is not sent back: it may hold what should not be shown.
    found = cast("RequestValidationError", error).errors()
    errors = [
        FieldError(pointer="/".join(str(part) for part in e["loc"])[:200], detail=str(e["msg"])[:300])
        for e in found[:_MAX_ERRORS]
    ]
    return _answer(request, Problem(INVALID, "Correct what `errors` names and send it again.", errors=errors))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    del error
    return _answer(request, Problem(BAD_REQUEST, "The connection closed before the whole body had arrived."))


async def _on_database_error(request: Request, error: Exception) -> Response:
    request.state.cause = error
    return _answer(
        request,
        Problem(DATABASE_UNAVAILABLE, "Nothing was changed; send it again in a moment.", retry_after=5),
    )
