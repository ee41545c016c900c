"""E-mail through a real SMTP server, from the transaction that causes it to the mailbox."""

import asyncio
import re
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from hashlib import sha256

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.queue import Kind
from provisioner.emails import WITH_PORTAL_LINK, Template, alert_operator, forget_expired_links, write_email
from provisioner.mailer import Correspondence, EmailHandler, MailServer
from provisioner.queue_view import State, list_items
from provisioner.workqueue import Alarm, Lease, WorkItem, WorkQueue
from tests.integration.queue_tools import LEASE, Pool, expire_lease, one_pass, put, row, run_sql
from tests.integration.shop import open_shop

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


async def test_a_mail_server_that_refuses_us_has_not_refused_the_email(pool: Pool, queue: WorkQueue) -> None:
    def refuse(*_: object) -> AuthResult:
        return AuthResult(success=False, handled=False)

    def accept() -> SMTP:
        return SMTP(Mailbox(), loop=loop, authenticator=refuse, auth_require_tls=False)

    loop = asyncio.get_running_loop()
    await write(pool)
    async with await loop.create_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TemporaryError, match="BERTH_SMTP_URL") as refused:
            await send_due(
                pool, queue, MailServer("127.0.0.1", port, tls=False, username="berth", password="hunter2")
            )
    assert "hunter2" not in str(refused.value)


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


WORDS = DATA | {
    "ends_on": "21 November 2026",
    "amount": "$29.00",
    "suspended_on": "28 November 2026",
    "reason": "a payment is open since 21 November 2026",
    "deleted_on": "28 December 2026",
    "days": "7",
    "what": "subscription sub_1 is parked",
    "sentence": "price_1 is unknown: add it to the catalogue",
    "commands": "berth queue show subscription sub_1",
}


def bodies(mail: EmailMessage) -> tuple[str, str]:
    text, html = (mail.get_body([kind]) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    return text.get_content(), html.get_content()


async def write_to(pool: Pool, template: Template, data: dict[str, str], key: str = "k") -> None:
    customer = None if template is Template.OPERATOR_ALERT else "c1"
    async with pool.connection() as conn:
        await write_email(conn, key, customer, template, data)


@pytest.mark.parametrize("template", list(Template))
async def test_every_email_says_what_is_and_loads_nothing_from_elsewhere(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer], template: Template
) -> None:
    box, server = mailbox
    await write_to(pool, template, WORDS)
    await send_due(pool, queue, server)
    (mail,) = box.mails
    text, html = bodies(mail)
    assert mail["To"] == ("ops@berth.example" if template is Template.OPERATOR_ALERT else "ann@example.com")
    for said in SAYS[template]:
        assert said in text
        assert said in html
    assert "src=" not in html
    assert "\n\n\n" not in text


SAYS = {
    Template.INSTANCE_READY: ("http://acme.apps.localhost",),
    Template.TRIAL_ENDING: ("21 November 2026", "cancel before"),
    Template.PAYMENT_FAILED: ("$29.00", "28 November 2026"),
    Template.SUSPENDED: ("a payment is open since", "28 December 2026"),
    Template.DELETION_SOON: ("in 7 days", "28 December 2026"),
    Template.DELETED: ("28 December 2026",),
    Template.OPERATOR_ALERT: (
        "sub_1 is parked",
        "add it to the catalogue",
        "berth queue show subscription sub_1",
    ),
}


async def test_what_is_not_deleted_and_what_is_deleted_tomorrow_is_said_so(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    await write_to(pool, Template.SUSPENDED, WORDS | {"deleted_on": ""}, "suspended")
    await send_due(pool, queue, server)
    await write_to(pool, Template.DELETION_SOON, WORDS | {"days": "1"}, "soon")
    await send_due(pool, queue, server)
    suspended, soon = box.mails
    assert all("deleted" not in body for body in bodies(suspended))
    assert str(soon["Subject"]).endswith("will be deleted tomorrow")


@pytest.mark.parametrize("template", sorted(WITH_PORTAL_LINK))
async def test_a_billing_email_has_a_link_to_the_portal_that_only_its_reader_knows(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer], template: Template
) -> None:
    box, server = mailbox
    for _ in range(2):
        await write_to(pool, template, WORDS)
    await send_due(pool, queue, server)
    (link,) = {
        found
        for body in bodies(box.mails[0])
        for found in re.findall(r"https://api\.berth\.example/billing/portal/[\w-]+", body)
    }
    async with pool.connection() as conn:
        (kept,) = await (
            await conn.execute(
                "SELECT token_sha256, customer_id, expires_at - created_at = '30 days' FROM portal_link"
            )
        ).fetchall()
        outbox = await (await conn.execute("SELECT data::text FROM outbox")).fetchone()
    token = link.rsplit("/", 1)[1]
    assert kept == (sha256(token.encode()).digest(), "c1", True)
    assert outbox is not None
    assert token not in outbox[0]
    assert "21 November 2026" in outbox[0]


async def test_a_link_is_forgotten_as_long_after_it_expired_as_it_opened(pool: Pool) -> None:
    for key in ("old", "young"):
        await write_to(pool, Template.SUSPENDED, WORDS, key)
    await run_sql(
        pool,
        "UPDATE portal_link SET expires_at = now() - interval '31 days'"
        " WHERE token_sha256 = (SELECT min(token_sha256) FROM portal_link)",
    )
    async with pool.connection() as conn:
        assert await forget_expired_links(conn) == 1
        assert await forget_expired_links(conn) == 0


async def test_it_goes_to_the_address_the_customer_has_when_it_is_sent(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    await write(pool)
    await run_sql(pool, "UPDATE customer SET email = 'ann@new.example'")
    await send_due(pool, queue, server)
    assert box.mails[0]["To"] == "ann@new.example"


EVIL = "x\r\nBcc: eve@example.com\n\n<script>"


@pytest.mark.parametrize("template", list(Template))
async def test_no_name_and_no_title_forges_a_header_or_a_tag(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer], template: Template
) -> None:
    box, server = mailbox
    await run_sql(pool, "UPDATE customer SET name = %s", EVIL)
    await write_to(pool, template, dict.fromkeys(WORDS, EVIL), EVIL)
    await send_due(pool, queue, server)
    (mail,) = box.mails
    assert sorted(mail.keys()) == [
        *("Auto-Submitted", "Content-Type", "From", "MIME-Version", "Message-ID", "Subject", "To")
    ]
    assert "<script>" not in bodies(mail)[1]


@pytest.mark.parametrize(
    "address", ["ann@example.com, eve@example.com", "ann@x\r\nBcc: eve@example.com", "ann"]
)
async def test_what_is_not_one_address_is_not_written_to(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer], address: str
) -> None:
    box, server = mailbox
    await write(pool)
    await run_sql(pool, "UPDATE customer SET email = %s", address)
    with pytest.raises(PermanentError, match=r"customer c1 .* correct it"):
        await send_due(pool, queue, server)
    assert box.mails == []


async def park(pool: Pool, kind: Kind, key: str, sentence: str, alarm: Alarm | None = alert_operator) -> None:
    """Let a worker's pass over the item end as a PermanentError ends it."""

    async def refuse(_item: WorkItem, _lease: Lease) -> None:
        raise PermanentError(sentence)

    await put(pool, key, kind=kind)
    await one_pass(WorkQueue(pool, "test", LEASE, alarm), kind, refuse)
    assert (await row(pool, key, kind)).state == State.PARKED


async def test_what_is_parked_is_written_to_the_operator_once_for_each_sentence(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    for sentence in (
        "price_1 is unknown: add it",
        "price_1 is unknown: add it",
        "price_2 is unknown: add it",
    ):
        await park(pool, Kind.SUBSCRIPTION, "sub_1", sentence)
    for _ in range(2):
        await send_due(pool, queue, server)
    assert [mail["To"] for mail in box.mails] == ["ops@berth.example"] * 2
    assert [mail["Subject"] for mail in box.mails] == ["Berth needs you: subscription sub_1 is parked"] * 2
    text, html = bodies(box.mails[0])
    for said in ("price_1 is unknown: add it", "berth queue retry subscription sub_1"):
        assert said in text
        assert said in html
    assert await queue.claim(Kind.EMAIL, 1) == []


async def test_an_unknown_price_is_told_to_the_operator_with_its_id_and_the_remedy(
    pool: Pool, queue: WorkQueue, mailbox: tuple[Mailbox, MailServer]
) -> None:
    box, server = mailbox
    async with open_shop(pool) as shop:
        subscription = await shop.pay(await shop.buyer(), "a_price_nobody_named")
        await shop.ring(subscription)
        await one_pass(
            WorkQueue(pool, "test", LEASE, alert_operator), Kind.SUBSCRIPTION, shop.handler().handle
        )
        price = await shop.price("a_price_nobody_named")
    await send_due(pool, queue, server)
    (mail,) = box.mails
    assert subscription in mail["Subject"]
    for said in (price, "catalogue/<product>.yaml", f"berth queue retry subscription {subscription}"):
        assert said in " ".join(bodies(mail)[0].split())


async def test_an_alert_that_is_parked_begets_no_alert_but_a_customers_email_does(
    pool: Pool, queue: WorkQueue
) -> None:
    await write(pool)
    (item,) = await queue.claim(Kind.EMAIL, 1)
    await queue.hand_back(item)
    await park(pool, Kind.EMAIL, item.key, "550: correct the address")
    (alert,) = await queue.claim(Kind.EMAIL, 2)
    await queue.hand_back(alert)
    await park(pool, Kind.EMAIL, alert.key, "550: correct BERTH_OPERATOR_EMAIL")
    assert await queue.claim(Kind.EMAIL, 1) == []
    assert len(await sent(pool)) == 2


async def test_without_an_operators_address_nothing_is_written_to_one(pool: Pool) -> None:
    await park(pool, Kind.SUBSCRIPTION, "sub_1", "price_1 is unknown: add it", alarm=None)
    assert await sent(pool) == []


async def test_an_alert_is_written_only_if_the_item_is_parked(pool: Pool) -> None:
    async def refuse(_item: WorkItem, _lease: Lease) -> None:
        await put(pool, "sub_1", kind=Kind.SUBSCRIPTION)
        raise PermanentError("price_1 is unknown: add it")

    await put(pool, "sub_1", kind=Kind.SUBSCRIPTION)
    await one_pass(WorkQueue(pool, "test", LEASE, alert_operator), Kind.SUBSCRIPTION, refuse)
    assert (await row(pool, "sub_1", Kind.SUBSCRIPTION)).parked_at is None
    assert await sent(pool) == []


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
