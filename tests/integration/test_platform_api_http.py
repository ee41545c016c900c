import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest
import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from platform_api.request_bounds import BodyLimit, ConcurrencyLimit
from tests.integration.platform_api_support import (
    Api,
    deliver,
    event,
    make_settings,
    running_api,
    serving,
)


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running_api(make_settings(database_url)) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/here", 404),
        ("GET", "/v1/me/", 404),
        ("DELETE", "/v1/me", 405),
        ("POST", "/v1/customers", 422),
        ("GET", "/v1/me", 401),
        ("GET", "/webhooks/stripe", 405),
        ("BREW", "/healthz", 405),
    ],
)
async def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int) -> None:
    answer = await api.client.request(method, path)
    problem = answer.json()
    assert answer.status_code == status == problem["status"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["instance"] == f"urn:berth:request:{answer.headers['x-request-id']}"
    assert problem["title"]
    assert problem["detail"]


async def test_a_wrong_method_is_told_the_right_ones(api: Api) -> None:
    assert (await api.client.delete("/v1/me")).headers["allow"] == "GET"


async def test_what_breaks_inside_stays_inside(api: Api) -> None:
    await api.rows("ALTER TABLE customer RENAME COLUMN name TO a_secret_column")
    body = {"email": "ada@example.com", "name": "Ada"}
    with structlog.testing.capture_logs() as logs:
        answer = await api.client.post("/v1/customers", json=body)
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "urn:berth:problem:internal-error",
        "title": "Something went wrong on our side",
        "status": 500,
        "detail": "It has been recorded; try again, or tell support.",
        "instance": answer.json()["instance"],
    }
    [failure] = [entry for entry in logs if entry["event"] == "request failed"]
    assert failure["sqlstate"] == "42703"


@pytest.mark.parametrize("body", ["{", "\xff", "[" * 100_000, '{"email": "\\ud800"}'])
async def test_a_body_that_cannot_be_read_is_a_problem(api: Api, body: str) -> None:
    answer = await api.client.post(
        "/v1/customers", content=body.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_request_id_is_taken_over_if_it_is_harmless(api: Api) -> None:
    answer = await api.client.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    answer = await api.client.get("/healthz", headers={"X-Request-Id": 'a"b\tc'})
    assert answer.headers["x-request-id"].isalnum()


async def test_logs_name_requests_and_hold_no_secrets(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    caught: list[str] = []
    with structlog.testing.capture_logs() as logs:
        _, headers = await api.sign_up("Ada-who-is-not-logged")
        await api.client.get("/v1/me?token=in-the-query", headers=headers)
        await deliver(api.client, event(obj={"id": "sub_x", "card": "in-the-body"}))
        await api.client.post(
            "/webhooks/stripe", content="in-the-body", headers={"Stripe-Signature": "in-it"}
        )
    caught.append(json.dumps(logs, default=str))
    caught.append("".join(capsys.readouterr()))
    for secret in (
        headers["Authorization"][7:],
        "in-the-query",
        "in-the-body",
        "in-it",
        "not-logged",
        "whsec",
    ):
        assert not [text for text in caught if secret in text]
    requests = [(e["method"], e["route"], e["status"]) for e in logs if e["event"] == "request"]
    assert requests == [
        ("POST", "/v1/customers", 201),
        ("GET", "/v1/me", 200),
        ("POST", "/webhooks/stripe", 400),  # what is stored, the inbox tells
    ]


async def test_requests_are_counted_by_route_not_by_path(api: Api) -> None:
    _, headers = await api.sign_up()
    for instance in ("iaaaaaaaaaaaaaaa", "ibbbbbbbbbbbbbbb"):
        await api.client.get(f"/v1/instances/{instance}", headers=headers)
    await api.client.get("/no/such/thing")
    value = api.metrics.registry.get_sample_value
    route = {"method": "GET", "route": "/v1/instances/{instance_id}"}
    assert value("berth_api_requests_total", route | {"status": "404"}) == 2
    assert value("berth_api_request_seconds_count", route) == 2
    unmatched = {"method": "GET", "route": "unmatched"}
    assert value("berth_api_requests_total", unmatched | {"status": "404"}) == 1


async def test_only_trusted_hosts_are_answered(database_url: str) -> None:
    settings = make_settings(database_url, trusted_hosts="api.example.com, [::1] 127.0.0.1")
    async with running_api(settings) as api:
        for host, status in (
            ("api.example.com", 200),
            ("API.example.com:8080", 200),
            ("127.0.0.1:1", 200),
            ("evil.example.com", 400),
            ("api.example.com.evil.com", 400),
            ("", 400),
        ):
            answer = await api.client.get("/healthz", headers={"Host": host})
            assert (host, answer.status_code) == (host, status)


async def test_the_documents_are_served(api: Api) -> None:
    page = (await api.client.get("/docs")).text
    used = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(path.endswith(".js") for path in used)
    for path in used:
        assert path.startswith("/"), "the page works without the internet"
        assert (await api.client.get(path)).status_code == 200
    document = (await api.client.get("/openapi.json")).json()
    assert "/v1/billing/checkout" in document["paths"]
    assert (await api.client.get("/openapi.yaml")).text.startswith("openapi:")


async def test_healthy_does_not_depend_on_the_database_and_ready_does() -> None:
    settings = make_settings("postgresql://berth@127.0.0.1:9/berth?connect_timeout=1")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    async with running_api(settings) as api:
        assert (await api.client.get("/healthz")).status_code == 200
        ready = await api.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["type"] == "urn:berth:problem:database-unavailable"
        assert ready.headers["retry-after"] == "5"


async def test_ready_when_the_database_answers(api: Api) -> None:
    assert (await api.client.get("/readyz")).json() == {"status": "ok"}


async def send_raw(url: str, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(api: Api) -> None:
    request = b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n"
    async with serving(api.app) as url:
        answer = await send_raw(url, request)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer


async def test_a_chunked_body_is_refused_where_it_becomes_too_large(api: Api) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    async with serving(api.app) as url:
        answer = await send_raw(url, head + b"Content-Type: application/json\r\n\r\n" + chunk * 17)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


class Named:
    """Gives requests the name that the outermost layer gives them in the whole app."""

    def __init__(self, app: object) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"request_id": "req1"}
        await cast("BodyLimit", self._app)(scope, receive, send)


async def test_a_body_that_pauses_is_cut_off(api: Api) -> None:
    # The whole app again, under a shorter limit than its own.
    app = Named(BodyLimit(api.app, read_timeout=0.2))
    head = b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with serving(app) as url:
        answer = await send_raw(url, head + b'Content-Length: 100\r\n\r\n{"email": ')
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer


async def test_requests_beyond_the_bound_are_turned_away_and_room_comes_back() -> None:
    release = asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await release.wait()
        start: Message = {"type": "http.response.start", "status": 204, "headers": []}
        MutableHeaders(scope=start)["content-length"] = "0"
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=Named(ConcurrencyLimit(slow, limit=1)))
    async with httpx.AsyncClient(transport=transport, base_url="http://berth.test") as client:
        first, second = asyncio.create_task(client.get("/")), asyncio.create_task(client.get("/"))
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert [task.result().status_code for task in done] == [503]
        assert next(iter(done)).result().headers["retry-after"] == "1"
        release.set()
        assert sorted([(await first).status_code, (await second).status_code]) == [204, 503]
        assert (await client.get("/")).status_code == 204
