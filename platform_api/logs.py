"""Logs, and the log of requests: which, how long, what came of it; never bodies, tokens or query strings."""

import functools
import re
import secrets
import time
import traceback
from collections.abc import Mapping

import psycopg
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from platform_api import problems
from platform_api.metrics import Metrics
from platform_api.problems import Problem, problem_response
from platform_api.request_bounds import header

Log = structlog.stdlib.BoundLogger

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Probes, and what the inbox keeps itself: only their failures are told.
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/webhooks/stripe", "/api/v1/webhooks/stripe"})
_MAX_FRAMES = 30


def describe(error: BaseException) -> Mapping[str, object]:
    """What may be logged of `error`: types and frames. Messages may quote what was sent, so they stay out."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    described: dict[str, object] = {
        "error": type(error).__qualname__,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, psycopg.Error) and error.sqlstate:
        described["sqlstate"] = error.sqlstate
        described["message"] = error.diag.message_primary
    if error.__cause__ is not None:
        described["cause"] = type(error.__cause__).__qualname__
    return described


class RequestLog:
    """The outermost layer: names each request, measures it, logs it, and answers what nothing else caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Log) -> None:
        self._app = app
        self._metrics_of = functools.cache(metrics.of_request)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request, named and measured."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        bound = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._measured(scope, receive, send, request_id)
        finally:
            structlog.contextvars.reset_contextvars(**bound)

    async def _measured(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.perf_counter()
        status = 0
        named = (b"x-request-id", request_id.encode())

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], named]
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as error:
            self._log.error("request failed", **describe(error))
            if status:
                raise
            problem = Problem(problems.INTERNAL, "It has been recorded; try again, or tell support.")
            await problem_response(problem, request_id)(scope, receive, noting_send)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "unmatched")
        count, time_taken = self._metrics_of(method, route, status)
        count.inc()
        time_taken.observe(seconds)
        if route in _QUIET_ROUTES and status < 400:
            return
        extra = {}
        if (cause := scope["state"].get("cause")) is not None:
            extra = {"cause": describe(cause)}
        self._log.info(
            "request", method=method, route=route, status=status, ms=round(seconds * 1000, 1), **extra
        )


def _request_id(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(10)
