"""E-mail through a real SMTP server, from the transaction that causes it to the mailbox."""

import asyncio
import re
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.queue import Kind
from provisioner.emails import Template, write_email
from provisioner.mailer import Correspondence, EmailHandler, MailServer
from provisioner.queue_view import list_items
from provisioner.workqueue import Lease, WorkQueue
from tests.integration.queue_tools import LEASE, Pool, expire_lease, put, run_sql

FROM_US = Correspondence("Berth <hello@berth.example>", "https://api.berth.example/", "ops@berth.example")
DATA = {"title": "MindRoom", "plan": "starter", "url": "http://acme.apps.localhost"}


class Mailbox:
    """Keeps what arrives; `answer` is what it says to each e-mail."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answer = "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's name
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(message_from_bytes(envelope.content, EmailMessage, policy=policy.default))
        return self.answer


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[Mailbox, MailServer]]:
    box = Mailbox()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: SMTP(box, loop=loop), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield box, MailServer("127.0.0.1", port, tls=False, username=None, password=None)


@pytest.fixture
def queue(pool: Pool) -> WorkQueue:
    return WorkQueue(pool, "test", LEASE)


@pytest.fixture(autouse=True)
async def customer(pool: Pool) -> None:
    await run_sql(
        pool, "INSERT INTO customer (id, email, name) VALUES ('c1', 'ann@example.com', 'Ann <b>Bee</b>')"
    )


async def write(pool: Pool, key: str = "instance-ready:i1", data: dict[str, str] | None = None) -> None:
    async with pool.connection() as conn:
        await write_email(conn, key, "c1", Template.INSTANCE_READY, DATA if data is None else data)


async def send_due(pool: Pool, queue: WorkQueue, server: MailServer) -> None:
    handler = EmailHandler(pool, server, FROM_US)
    (item,) = await queue.claim(Kind.EMAIL, 1)
    await handler.handle(item, Lease(queue, item))
    assert await queue.finish(item)


async def sent(pool: Pool) -> list[bool]:
    async with pool.connection() as conn:
        return [
            row[0] async for row in await conn.execute("SELECT sent_at IS NOT NULL FROM outbox ORDER BY id")
        ]


async def test_an_email_arrives_in_text_and_html(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    await write(pool)
    await send_due(pool, queue, server)
    (mail,) = box.mails
    assert mail["To"] == "ann@example.com"
    assert mail["From"] == "Berth <hello@berth.example>"
    assert mail["Subject"] == "MindRoom is ready: http://acme.apps.localhost"
    text, html = (mail.get_body([kind]) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert "http://acme.apps.localhost" in text.get_content()
    assert '<a href="http://acme.apps.localhost">' in html.get_content()
    assert "Ann <b>Bee</b>" in text.get_content()
    assert "Ann &lt;b&gt;Bee&lt;/b&gt;" in html.get_content()
    assert await sent(pool) == [True]


async def test_one_cause_is_one_email_whatever_is_replayed(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    for _ in range(3):
        await write(pool)
    await send_due(pool, queue, server)
    await write(pool)
    assert await queue.claim(Kind.EMAIL, 1) == []
    async with pool.connection() as conn:
        (item,) = await list_items(conn)
    await put(pool, item.key, kind=Kind.EMAIL)
    await send_due(pool, queue, server)
    assert len(box.mails) == 1


async def test_an_email_is_written_only_with_what_causes_it(pool: Pool, queue: WorkQueue) -> None:
    async with pool.connection() as conn:
        await write_email(conn, "k", "c1", Template.INSTANCE_READY, DATA)
        await conn.rollback()
    assert await sent(pool) == []
    assert await queue.claim(Kind.EMAIL, 1) == []


async def test_invariant_9_a_sender_that_lost_its_lease_notes_nothing_and_the_repeat_has_the_same_id(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    await write(pool)
    (item,) = await queue.claim(Kind.EMAIL, 1)
    await expire_lease(pool, item.key)
    handler = EmailHandler(pool, server, FROM_US)
    with pytest.raises(Exception, match="was lost"):
        await handler.handle(item, Lease(queue, item))
    assert await sent(pool) == [False]
    await send_due(pool, queue, server)
    assert len({mail["Message-ID"] for mail in box.mails}) == 1
    assert len(box.mails) == 2


@pytest.mark.parametrize(
    ("answer", "error"), [("451 later", TemporaryError), ("550 no such user", PermanentError)]
)
async def test_the_servers_answer_decides_whether_to_try_again(
    pool: Pool,
    queue: WorkQueue,
    mailbox: tuple[Mailbox, MailServer],
    answer: str,
    error: type[Exception],
) -> None:
    box, server = mailbox
    box.answer = answer
    await write(pool)
    with pytest.raises(error, match=answer[:3]):
        await send_due(pool, queue, server)
    assert await sent(pool) == [False]


async def test_a_mail_server_that_is_away_is_asked_again(pool: Pool, queue: WorkQueue) -> None:
    await write(pool)
    with pytest.raises(TemporaryError, match=re.escape("127.0.0.1:9")):
        await send_due(pool, queue, MailServer("127.0.0.1", 9, tls=False, username=None, password=None))


async def test_data_that_does_not_fit_the_template_names_what_is_missing(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    await write(pool, data={"title": "MindRoom"})
    with pytest.raises(PermanentError, match="'url' is undefined"):
        await send_due(pool, queue, mailbox[1])


async def test_a_line_break_in_a_title_forges_no_header(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    await write(pool, data=DATA | {"title": "x\r\nBcc: eve@example.com"})
    await send_due(pool, queue, server)
    assert box.mails[0]["Bcc"] is None


@pytest.mark.parametrize("template", list(Template))
async def test_every_template_has_its_parts(pool: Pool, template: Template) -> None:
    handler = EmailHandler(pool, MailServer("x", 1, tls=False, username=None, password=None), FROM_US)
    for part in ("subject.txt", "body.txt", "body.html"):
        assert handler._templates.get_template(f"{template}/{part}")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://127.0.0.1:1025", MailServer("127.0.0.1", 1025, tls=False, username=None, password=None)),
        ("smtp://mail", MailServer("mail", 587, tls=False, username=None, password=None)),
        ("smtps://u%40x:p%3A@mail", MailServer("mail", 465, tls=True, username="u@x", password="p:")),
    ],
)
def test_a_mail_servers_address_is_read(url: str, server: MailServer) -> None:
    assert MailServer.from_url(url) == server


@pytest.mark.parametrize(
    "url", ["", "http://mail", "smtp://", "smtp://u:secret@", "mail:25", "smtp://mail:99999"]
)
def test_invariant_6_a_bad_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the message is what is looked at
        MailServer.from_url(url)
    assert "secret" not in str(refused.value)
