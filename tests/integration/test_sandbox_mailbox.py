"""The mailbox: real SMTP in, pages and JSON out."""

import asyncio
import smtplib
import sys
from collections.abc import AsyncIterator
from email.message import EmailMessage

import aiosmtplib
import httpx
import pytest

from sandbox.loopback import PortError
from sandbox.mailbox import messages
from sandbox.mailbox.app import LARGEST_MESSAGE, Server, serve

HOST = "127.0.0.1"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as lent:
        yield lent


def mail(to: str, subject: str = "Your instance is ready", html: str | None = None) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "berth@example.com", to, subject
    made.set_content("Grüße: open http://acme.apps.localhost\n")
    if html is not None:
        made.add_alternative(html, subtype="html")
    return made


async def send(server: Server, message: EmailMessage, recipients: list[str] | None = None) -> None:
    await aiosmtplib.send(
        message, hostname=HOST, port=server.smtp_port, recipients=recipients, start_tls=False, timeout=10
    )


async def test_what_is_sent_is_found_by_recipient(server: Server, http: httpx.AsyncClient) -> None:
    await send(server, mail("Ada@example.com", html="<p>ready</p>"))
    await send(server, mail("bob@example.com", "Ünïcode"), ["bob@example.com", "hidden@example.com"])

    every = (await http.get("/api/messages")).json()["data"]
    adas = (await http.get("/api/messages", params={"to": "ada@EXAMPLE.com"})).json()["data"]
    hidden = (await http.get("/api/messages", params={"to": "hidden@example.com"})).json()["data"]

    assert [one["subject"] for one in every] == ["Ünïcode", "Your instance is ready"]
    (found,) = adas
    assert (found["from"], found["to"]) == ("berth@example.com", ["Ada@example.com"])
    assert found["text"] == "Grüße: open http://acme.apps.localhost\n"
    assert found["html"].strip() == "<p>ready</p>"
    assert (hidden[0]["subject"], hidden[0]["html"]) == ("Ünïcode", None)


async def test_the_standard_librarys_client_gets_through(server: Server, http: httpx.AsyncClient) -> None:
    def deliver() -> None:
        with smtplib.SMTP(HOST, server.smtp_port, timeout=10) as client:
            client.send_message(mail("ada@example.com"))

    await asyncio.to_thread(deliver)

    assert len((await http.get("/api/messages")).json()["data"]) == 1


async def test_the_pages_show_mail_without_running_it(server: Server, http: httpx.AsyncClient) -> None:
    evil = "<script>alert(1)</script><p>hello</p>"
    await send(server, mail("ada@example.com", subject="<script>alert(2)</script>", html=evil))

    listed = await http.get("/")
    shown = await http.get("/messages/1")
    inner = await http.get("/messages/1/html")

    for page in (listed, shown):
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "&lt;script&gt;alert(2)" in page.text
        assert "script-src" not in page.headers["content-security-policy"]
    assert '<iframe sandbox="allow-popups allow-popups-to-escape-sandbox"' in shown.text
    policy = inner.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-popups")
    assert "allow-scripts" not in policy
    assert "default-src 'none'" in policy
    assert "<p>hello</p>" in inner.text


async def test_a_page_shows_one_recipients_mail_and_leads_to_it(
    server: Server, http: httpx.AsyncClient
) -> None:
    await send(server, mail("ada+1@example.com", subject="First"))
    await send(server, mail("bob@example.com", subject="Second"))

    every = (await http.get("/")).text
    adas = (await http.get("/?to=ada%2B1%40example.com")).text

    assert every.index("Second") < every.index("First"), "newest first"
    assert 'href="/?to=ada%2B1%40example.com"' in every
    assert "First" in adas
    assert "Second" not in adas


async def test_what_is_not_there_is_not_found(server: Server, http: httpx.AsyncClient) -> None:
    await send(server, mail("ada@example.com"))

    assert (await http.get("/messages/2")).status_code == 404
    assert (await http.get("/messages/1/html")).status_code == 404


async def test_a_mail_that_is_too_large_is_refused(server: Server, http: httpx.AsyncClient) -> None:
    message = mail("ada@example.com")
    message.add_attachment(b"x" * LARGEST_MESSAGE, maintype="application", subtype="octet-stream")

    with pytest.raises(aiosmtplib.SMTPResponseException) as caught:
        await send(server, message)

    assert caught.value.code == 552
    assert (await http.get("/api/messages")).json()["data"] == []


async def test_a_cleared_mailbox_is_empty(server: Server, http: httpx.AsyncClient) -> None:
    await send(server, mail("ada@example.com"))

    assert (await http.delete("/api/messages")).status_code == 204

    assert (await http.get("/api/messages")).json()["data"] == []


def test_only_the_latest_are_kept() -> None:
    mailbox = messages.Mailbox(most_messages=3, most_bytes=1000)
    for _ in range(4):
        mailbox.add("a@example.com", ("b@example.com",), b"")

    assert [one.id for one in mailbox.listed()] == [4, 3, 2]
    assert mailbox.find(1) is None
    mailbox.add("a@example.com", ("b@example.com",), b"\n" * 999)
    mailbox.add("a@example.com", ("b@example.com",), b"\n" * 2)
    assert [one.size for one in mailbox.listed()] == [2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00garbage",
        b"Content-Type: text/plain; charset=nonsense\n\nhello",
        b"Content-Type: multipart/mixed\n\nno boundary",
        b"Subject: =?utf-8?b?!!!?=\nContent-Transfer-Encoding: base64\n\n%%%",
    ],
)
def test_a_malformed_mail_is_kept_all_the_same(content: bytes) -> None:
    mailbox = messages.Mailbox()

    mailbox.add("a@example.com", ("b@example.com",), content)

    assert len(mailbox.listed("b@example.com")) == 1


async def test_it_runs_as_a_process_and_says_where() -> None:
    command = ["-m", "sandbox.mailbox", "--smtp-port", "0", "--http-port", "0"]
    running = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    try:
        async with asyncio.timeout(15):
            line = (await running.stdout.readline()).decode()
        url = line.split()[3]
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{url}/api/messages")).json() == {"data": []}
        running.terminate()
        assert await running.wait() == 0
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def test_a_taken_port_is_named(server: Server) -> None:
    with pytest.raises(PortError, match=f"Port {server.smtp_port} cannot be had"):
        async with serve(smtp_port=server.smtp_port):
            pass
