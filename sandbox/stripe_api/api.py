"""Stripe's API over HTTP: who may call, how often, what was asked, and the answer's envelope."""

import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sandbox.stripe_api import forms, idempotency
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.idempotency import Reply
from sandbox.stripe_api.ledger import Ledger, encoded, new_id
from sandbox.stripe_api.objects import API_VERSION, Cause, Json
from sandbox.stripe_api.operation import Asked, Change, Moment, Operation
from sandbox.stripe_api.params import parse
from sandbox.stripe_api.present import expanded
from sandbox.stripe_api.resources import (
    charges,
    checkout,
    coupons,
    customers,
    disputes,
    events,
    invoices,
    payment_intents,
    payment_methods,
    portal,
    previews,
    products,
    search,
    subscription_items,
    subscriptions,
    test_clocks,
)
from sandbox.stripe_api.timekeeper import catch_up
from sandbox.stripe_api.web import LARGEST_BODY, BodyTooLargeError, base_url, read_body
from sandbox.stripe_api.webhooks.faults import CallFault

RETRY_AFTER_SECONDS = 1
_KEY = re.compile(r"[rs]k_test_\w+", re.ASCII)
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z]+)?")
_METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]


def operations() -> tuple[Operation[Any], ...]:
    """Every call the stand-in answers."""
    return (
        *search.operations(),  # first, or `search` would be taken for an id
        *customers.operations(),
        *payment_methods.operations(),
        *payment_intents.operations(),
        *charges.operations(),
        *disputes.operations(),
        *products.operations(),
        *checkout.operations(),
        *coupons.operations(),
        *subscriptions.operations(),
        *subscription_items.operations(),
        *previews.operations(),
        *invoices.operations(),
        *test_clocks.operations(),
        *events.operations(),
        *portal.operations(),
    )


@dataclass(frozen=True)
class Api:
    """Answers calls out of a ledger.

    Attributes:
        base_url: where the pages are; None for wherever the caller reached us.
    """

    ledger: Ledger
    base_url: str | None

    def routes(self) -> list[Route]:
        """A route for each operation, and one that refuses the rest."""
        known = [Route(one.path, self._endpoint(one), methods=[one.method]) for one in operations()]
        return [*known, Route("/v1/{path:path}", self._endpoint(None), methods=_METHODS)]

    def _endpoint(self, operation: Operation[Any] | None) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._respond(operation, request)

        return endpoint

    async def _respond(self, operation: Operation[Any] | None, request: Request) -> Response:
        request_id = new_id("req")
        try:
            body = await read_body(request)
            if self._hit_by("hang"):
                return await _never(request)
            reply = await self._answer(operation, request, body, request_id)
        except BodyTooLargeError:
            reply = _refused(request_id, ApiError(f"A body may have up to {LARGEST_BODY} bytes.", status=413))
        except ApiError as error:
            reply = _refused(request_id, error)
        kind = CutOff if self._hit_by("cut") else Response
        return kind(reply.body, reply.status, _headers(request, request_id, reply))

    async def _answer(
        self, operation: Operation[Any] | None, request: Request, body: bytes, request_id: str
    ) -> Reply:
        _authenticate(request)
        _check_version(request)
        self._refuse_if_told_to()
        if operation is None:
            raise ApiError(f"Unrecognized request URL ({request.method}: {request.url.path}).", status=404)
        await catch_up(self.ledger, base_url(request, self.base_url))
        key = request.headers.get("idempotency-key") if operation.method == "POST" else None
        cause = Cause(request_id, key)
        if key is None:
            return self._run(operation, request, body, cause, None)
        call = idempotency.call(key, f"{request.method} {request.url.path}", body)
        try:
            return self._run(operation, request, body, cause, call)
        except ApiError as error:
            if not error.began:
                raise
            reply = _refused(request_id, error)
            with self.ledger.transaction():
                self.ledger.replies.keep(call, reply, int(self.ledger.clock()))
            return reply

    def _run(
        self,
        operation: Operation[Any],
        request: Request,
        body: bytes,
        cause: Cause,
        call: idempotency.Call | None,
    ) -> Reply:
        """Answer in one transaction: the change, its events and the kept reply stand or fall together."""
        now = int(self.ledger.clock())
        request_id = cause.request or ""
        with self.ledger.transaction():
            known = self.ledger.replies.find(call, now) if call is not None else None
            if known is not None:
                return known
            params = parse(operation.params, _fields(operation, request, body))
            moment = Moment(now, new_id, base_url(request, self.base_url))
            change = operation.run(Asked(request.path_params, params, self.ledger.store, moment))
            self.ledger.commit(change, cause)
            reply = self._reply(change, params.expand, request_id)
            if call is not None:
                self.ledger.replies.keep(call, reply, now)
        return reply

    def _reply(self, change: Change, expand: list[str], request_id: str) -> Reply:
        if change.refusal is not None:
            return _refused(request_id, change.refusal)
        answer = expanded(change.answer, expand, self.ledger.store)
        return Reply(request_id, 200, encoded(answer))

    def _refuse_if_told_to(self) -> None:
        if self._hit_by("rate_limit"):
            raise ApiError("Request rate limit exceeded.", code="rate_limit", status=429)
        if self._hit_by("fail"):
            raise ApiError("The stand-in fails because it was told to.", status=500, type="api_error")

    def _hit_by(self, fault: CallFault) -> bool:
        """Whether this call is one that `fault` was asked for."""
        faults = self.ledger.outbox.faults()
        left: int = getattr(faults, fault)
        if left == 0:
            return False
        with self.ledger.transaction():
            self.ledger.outbox.set_faults(faults.model_copy(update={fault: left - 1}))
        return True


class CutOff(Response):
    """An answer whose connection breaks half-way."""

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send half of the body the headers promise; the server then closes the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


async def _never(request: Request) -> Response:
    """Wait until the caller gives up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response(status_code=499)


async def internal_error(_: Request, __: Exception) -> Response:
    """What Stripe answers when it fails itself."""
    failure = ApiError("The stand-in failed: its log says how.", status=500, type="api_error")
    return JSONResponse(failure.envelope(), 500)


def _fields(operation: Operation[Any], request: Request, body: bytes) -> Json:
    if operation.method != "POST":
        return forms.decode(parse_qsl(request.url.query, keep_blank_values=True))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/x-www-form-urlencoded":
        raise ApiError("Send parameters as application/x-www-form-urlencoded.", began=False)
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise ApiError("The body is not form-encoded.", began=False) from None
    return forms.decode(parse_qsl(text, keep_blank_values=True))


def _refused(request_id: str, error: ApiError) -> Reply:
    return Reply(request_id, error.status, encoded(error.envelope()))


def _headers(request: Request, request_id: str, reply: Reply) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Request-Id": request_id,
        "Stripe-Version": request.headers.get("stripe-version", API_VERSION),
    }
    key = request.headers.get("idempotency-key")
    if key is not None:
        headers |= {"Idempotency-Key": key, "Original-Request": reply.request}
    if reply.request != request_id:
        headers["Idempotent-Replayed"] = "true"
    if reply.status == 429:
        headers |= {"Retry-After": str(RETRY_AFTER_SECONDS), "Stripe-Rate-Limited-Reason": "global-rate"}
    return headers


def _authenticate(request: Request) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            key = given.strip()
        case "basic":
            key = _basic_user(given)
        case _:
            raise ApiError(
                "You did not provide an API key: send it as 'Authorization: Bearer sk_test_…'.", status=401
            )
    if key.startswith("pk_test_"):
        raise ApiError(
            "This API call cannot be made with a publishable API key. Please use a secret API key.",
            "secret_key_required",
            status=401,
        )
    if _KEY.fullmatch(key) is None:
        raise ApiError(f"Invalid API Key provided: {key[:8]}****", status=401)


def _basic_user(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


def _check_version(request: Request) -> None:
    version = request.headers.get("stripe-version", API_VERSION)
    if _VERSION.fullmatch(version) is None:
        raise ApiError(f"Invalid Stripe API version: {version[:50]}")
