"""Sends what stands in the outbox, over SMTP."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib
from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError, select_autoescape
from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.emails import PORTAL_LINK_LIFE, PORTAL_TOKEN
from provisioner.workqueue import Lease, WorkItem

# For each exchange with the server, seconds.
SMTP_TIMEOUT = 15.0

# Not this e-mail is refused but whoever sends it: once that is mended, all go out by themselves.
_REFUSING_US = (
    aiosmtplib.SMTPAuthenticationError,
    aiosmtplib.SMTPConnectResponseError,
    aiosmtplib.SMTPHeloError,
)

# Whom it goes to is looked up now: an address may have changed since the e-mail was written.
_LOAD = """
    SELECT o.id, o.dedupe_key, o.template, o.data, o.sent_at, o.customer_id, c.email, c.name
      FROM outbox o LEFT JOIN customer c ON c.id = o.customer_id
     WHERE o.id = %s
"""

_SENT = "UPDATE outbox SET sent_at = now(), data = data - %s::text WHERE id = %s"


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where e-mail goes out. `tls` is implicit TLS; without it STARTTLS is used when the server offers it."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None

    @staticmethod
    def from_url(url: str) -> "MailServer":
        """Parse `smtp[s]://[user:password@]host[:port]`.

        Raises:
            ValueError: it is not such an address; the message does not repeat it, for it may hold a password.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ValueError("must look like smtp://host:port or smtps://user:password@host:port")
        tls = parts.scheme == "smtps"
        return MailServer(
            parts.hostname,
            parts.port or (465 if tls else 587),
            tls,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
        )


@dataclass(frozen=True, slots=True)
class _Letter:
    id: int
    dedupe_key: str
    template: str
    data: Mapping[str, Any]
    sent_at: datetime | None
    customer_id: str | None
    email: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Correspondence:
    """Who writes, and what e-mails refer to.

    Attributes:
        sender: the From header.
        api_url: where customers' browsers reach platform_api; links to the billing portal go there.
        operator: the address of e-mails that are for no customer; None when nobody wants them.
    """

    sender: str
    api_url: str
    operator: str | None = None


class EmailHandler:
    """Handles Kind.EMAIL; the key is the outbox row's id.

    Sent at least once: a crash between the server's answer and our note sends it again, with one Message-ID.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        server: MailServer,
        correspondence: Correspondence,
    ) -> None:
        self._pool = pool
        self._server = server
        self._correspondence = correspondence
        self._templates = Environment(
            loader=PackageLoader("provisioner"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def handle(self, item: WorkItem, lease: Lease) -> datetime | None:
        """Send the e-mail unless it was sent.

        Raises:
            TemporaryError: the server is away or busy.
            PermanentError: the server refused the e-mail, or it cannot be written.
        """
        letter = await self._load(item.key)
        if letter.sent_at is None:
            await self._send(self._render(letter), item.key)
            async with lease.transaction() as conn:
                await conn.execute(_SENT, (PORTAL_TOKEN, int(item.key)))
        return None

    async def _load(self, key: str) -> _Letter:
        async with self._pool.connection() as conn, conn.cursor(row_factory=class_row(_Letter)) as cursor:
            await cursor.execute(_LOAD, (int(key),))
            letter = await cursor.fetchone()
        if letter is None:
            raise PermanentError(
                f"there is no e-mail {key} in the outbox: somebody removed it; nothing to do"
            )
        return letter

    def _render(self, letter: _Letter) -> EmailMessage:
        words: dict[str, object] = {**letter.data, "name": letter.name}
        if PORTAL_TOKEN in letter.data:
            api_url = self._correspondence.api_url.rstrip("/")
            words["portal_days"] = PORTAL_LINK_LIFE.days
            words["portal_url"] = f"{api_url}/billing/portal/{letter.data[PORTAL_TOKEN]}"
        try:
            subject, text, html = (
                self._templates.get_template(f"{letter.template}/{part}").render(words)
                for part in ("subject.txt", "body.txt", "body.html")
            )
        except TemplateError as error:
            raise PermanentError(
                f"the e-mail '{letter.template}' cannot be written ({error}): fix its template or its data"
            ) from error
        message = EmailMessage()
        # A header is one line, whatever a name or a title holds.
        message["Subject"] = " ".join(subject.split())
        message["From"] = self._correspondence.sender
        message["To"] = self._recipient(letter)
        message["Message-ID"] = _message_id(letter.dedupe_key, self._correspondence.sender)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        return message

    def _recipient(self, letter: _Letter) -> str:
        to = letter.email if letter.customer_id else self._correspondence.operator
        if to is None:
            raise PermanentError(
                "the e-mail is for the operator: set BERTH_OPERATOR_EMAIL and restart the provisioner, then"
                f" berth queue retry email {letter.id}"
            )
        if not is_address(to):
            raise PermanentError(
                f"customer {letter.customer_id} has no address that can be written to: correct it, then berth"
                f" queue retry email {letter.id}"
            )
        return to

    async def _send(self, message: EmailMessage, key: str) -> None:
        server = self._server
        try:
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port,
                use_tls=server.tls,
                username=server.username,
                password=server.password,
                timeout=SMTP_TIMEOUT,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = {refused.code for refused in error.recipients}
            raise _refused(max(codes), key) from error
        except _REFUSING_US as error:
            raise TemporaryError(
                f"the mail server {server.host}:{server.port} refuses us ({error.code}): check BERTH_SMTP_URL"
            ) from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refused(error.code, key) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise TemporaryError(
                f"the mail server {server.host}:{server.port} did not answer ({type(error).__name__})"
            ) from error


def is_address(text: str) -> bool:
    """Whether `text` is one bare address, and nothing else that a To header could hold."""
    try:
        return Address(addr_spec=text).addr_spec == text
    except (ValueError, LookupError, MessageError):
        return False


def _refused(code: int, key: str) -> Exception:
    if code >= 500:
        return PermanentError(
            f"the mail server refused the e-mail ({code}): check the customer's address, BERTH_MAIL_FROM and"
            f" BERTH_SMTP_URL, then berth queue retry email {key}"
        )
    return TemporaryError(f"the mail server asked to wait ({code})")


def _message_id(dedupe_key: str, sender: str) -> str:
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    return f"<{hashlib.sha256(dedupe_key.encode()).hexdigest()[:32]}@{domain}>"
