"""The mailbox's two servers: SMTP takes what comes, HTTP shows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiosmtpd.smtp import SMTP, Envelope, Session
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sandbox import loopback
from sandbox.mailbox.messages import Mailbox, Message

LARGEST_MESSAGE = 4 << 20
IDLE_SECONDS = 60
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MAIL_HEADERS = {
    **_PAGE_HEADERS,
    "Content-Security-Policy": (
        "sandbox allow-popups allow-popups-to-escape-sandbox;"
        " default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
    ),
}


@dataclass(frozen=True)
class Server:
    """A mailbox that listens: `url` for people and programs, `smtp_port` for mail."""

    url: str
    smtp_port: int
    mailbox: Mailbox
    tasks: tuple[asyncio.Task[None], ...]


class _Receiver:
    """aiosmtpd's handler."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        content = envelope.content
        body = content if isinstance(content, bytes) else (content or "").encode()
        self._mailbox.add(envelope.mail_from or "", tuple(envelope.rcpt_tos), body)
        return "250 Kept"


@dataclass(frozen=True)
class _Pages:
    mailbox: Mailbox
    templates: Environment

    def routes(self) -> list[Route]:
        return [
            Route("/", self._list, methods=["GET"]),
            Route("/messages/{message:int}", self._show, methods=["GET"]),
            Route("/messages/{message:int}/html", self._html, methods=["GET"]),
            Route("/api/messages", self._api_list, methods=["GET"]),
            Route("/api/messages", self._api_clear, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> Response:
        to = request.query_params.get("to") or None
        return self._page("list.html", messages=self.mailbox.listed(to), to=to or "")

    async def _show(self, request: Request) -> Response:
        message = self.mailbox.find(request.path_params["message"])
        return _gone() if message is None else self._page("message.html", message=message)

    async def _html(self, request: Request) -> Response:
        """The mail's own HTML, which may do nothing but show itself and open links elsewhere."""
        message = self.mailbox.find(request.path_params["message"])
        if message is None or message.html is None:
            return _gone()
        return HTMLResponse(f'<base target="_blank">{message.html}', headers=_MAIL_HEADERS)

    async def _api_list(self, request: Request) -> Response:
        found = self.mailbox.listed(request.query_params.get("to") or None)
        return JSONResponse({"data": [_as_json(message) for message in found]})

    async def _api_clear(self, _: Request) -> Response:
        self.mailbox.clear()
        return Response(status_code=204)

    def _page(self, template: str, **context: object) -> Response:
        return HTMLResponse(self.templates.get_template(template).render(context), headers=_PAGE_HEADERS)


def _gone() -> Response:
    return HTMLResponse("There is no such message (any more).", 404, _PAGE_HEADERS)


def _as_json(message: Message) -> dict[str, object]:
    return {
        "id": message.id,
        "received_at": message.received_at.isoformat(),
        "from": message.sender,
        "to": list(message.recipients),
        "subject": message.subject,
        "text": message.text,
        "html": message.html,
    }


def make_app(mailbox: Mailbox) -> Starlette:
    """The pages and the JSON over a mailbox."""
    templates = Environment(
        loader=PackageLoader("sandbox.mailbox"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return Starlette(routes=_Pages(mailbox, templates).routes())


@asynccontextmanager
async def serve(smtp_port: int = 0, http_port: int = 0) -> AsyncIterator[Server]:
    """Run a mailbox on the loopback interface for as long as the block lasts; port 0 is any free one.

    Raises:
        PortError: a port is taken.
    """
    mailbox = Mailbox()
    handler = _Receiver(mailbox)

    def connection() -> SMTP:
        return SMTP(
            handler,
            data_size_limit=LARGEST_MESSAGE,
            enable_SMTPUTF8=True,
            hostname="mailbox.localhost",
            timeout=IDLE_SECONDS,
        )

    async with AsyncExitStack() as stack:
        smtp = stack.enter_context(loopback.listener(smtp_port))
        http = stack.enter_context(loopback.listener(http_port))
        mail_server = await asyncio.get_running_loop().create_server(connection, sock=smtp)
        await stack.enter_async_context(mail_server)
        task = await stack.enter_async_context(loopback.answering(make_app(mailbox), http))
        yield Server(f"http://127.0.0.1:{loopback.port_of(http)}", loopback.port_of(smtp), mailbox, (task,))
