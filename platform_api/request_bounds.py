"""What a request may cost before any route sees it: raw ASGI, so that nothing buffers what is refused."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from platform_api import problems
from platform_api.problems import Problem, problem_response

MAX_BODY = 1024 * 1024  # bytes
READ_TIMEOUT = 10.0  # seconds between two pieces of a body, and for the whole of it three times that
MAX_CONCURRENT = 512  # requests


class TrustedHosts:
    """Answers only requests addressed to one of `hosts` (lower case, without port); `*` allows any."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is addressed to us."""
        if scope["type"] != "http" or "*" in self._hosts or _host(scope) in self._hosts:
            await self._app(scope, receive, send)
            return
        problem = Problem(problems.BAD_HOST, "Use one of the names in BERTH_TRUSTED_HOSTS.")
        await _answer(problem, scope, receive, send)


class ConcurrencyLimit:
    """Turns away what exceeds `limit` requests at once, so that a flood costs its own senders first."""

    def __init__(self, app: ASGIApp, limit: int = MAX_CONCURRENT) -> None:
        self._app = app
        self._free = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what there is room for."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._free == 0:
            problem = Problem(problems.OVERLOADED, "Send it again in a moment.", retry_after=1)
            await _answer(problem, scope, receive, send)
            return
        self._free -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._free += 1


class BodyLimit:
    """Refuses bodies over `limit` bytes, declared or streamed, and bodies that trickle in."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY, read_timeout: float = READ_TIMEOUT) -> None:
        self._app = app
        self._limit = limit
        self._read_timeout = read_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request with a body that stops at the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared[:19]) > self._limit:
            await _answer(self._too_large(), scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _limited(self, receive: Receive) -> Receive:
        seen = 0
        complete = False
        clock = asyncio.get_running_loop().time
        deadline = clock() + 3 * self._read_timeout

        async def limited() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()  # waits for the client to leave: no deadline belongs here
            soon = clock() + self._read_timeout
            try:
                async with asyncio.timeout_at(min(soon, deadline)):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > self._limit:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> Problem:
        return Problem(
            problems.BODY_TOO_LARGE,
            f"Send at most {self._limit} bytes.",
            headers={"Connection": "close"},
        )

    def _too_slow(self) -> Problem:
        return Problem(
            problems.TIMEOUT, "Send the whole body without pausing.", headers={"Connection": "close"}
        )


def header(scope: Scope, name: bytes) -> str:
    """Return the first header called `name` (lower case), or ''."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _answer(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)


def _host(scope: Scope) -> str:
    host = header(scope, b"host").lower()
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.rpartition(":")[0] if ":" in host else host
