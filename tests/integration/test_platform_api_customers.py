import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from tests.integration.platform_api_support import Api, make_settings, running_api


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running_api(make_settings(database_url)) as running:
        yield running


async def test_a_customer_signs_up_and_is_recognised(api: Api) -> None:
    answer = await api.client.post("/v1/customers", json={"email": " ada@example.com ", "name": "Ada"})
    assert answer.status_code == 201
    assert answer.json()["token"].startswith("berth_")
    me = await api.client.get("/v1/me", headers={"Authorization": f"bearer {answer.json()['token']}"})
    assert me.status_code == 200
    assert {key: me.json()[key] for key in ("id", "email", "name")} == {
        "id": answer.json()["id"],
        "email": "ada@example.com",
        "name": "Ada",
    }


async def test_only_the_hash_of_a_token_is_kept(api: Api) -> None:
    answer = await api.client.post("/v1/customers", json={"email": "ada@example.com", "name": "Ada"})
    token = answer.json()["token"]
    assert await api.rows("SELECT token_sha256 FROM api_token") == [
        (hashlib.sha256(token.encode()).digest(),)
    ]


async def test_an_address_is_registered_once_whatever_its_case_and_however_fast(api: Api) -> None:
    answers = await asyncio.gather(
        *(
            api.client.post("/v1/customers", json={"email": email, "name": "Ada"})
            for email in ("ada@example.com", "ADA@example.com", "Ada@Example.com", "ada@example.COM")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["type"] == "urn:berth:problem:email-taken"
    assert await api.rows("SELECT count(*) FROM api_token") == [(1,)]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"email": "ada", "name": "Ada"}, "body/email"),
        ({"email": "a@b@c", "name": "Ada"}, "body/email"),
        ({"email": "@example.com", "name": "Ada"}, "body/email"),
        ({"email": "ada@", "name": "Ada"}, "body/email"),
        ({"email": "ada @example.com", "name": "Ada"}, "body/email"),
        ({"email": "ada@example.com\nBcc: all@example.com", "name": "Ada"}, "body/email"),
        ({"email": "a" * 250 + "@example.com", "name": "Ada"}, "body/email"),
        ({"email": "ada@example.com", "name": ""}, "body/name"),
        ({"email": "ada@example.com", "name": "   "}, "body/name"),
        ({"email": "ada@example.com", "name": "A\x00"}, "body/name"),
        ({"email": "ada@example.com", "name": "x" * 101}, "body/name"),
        ({"email": "ada@example.com", "name": ["Ada"]}, "body/name"),
        ({"email": "ada@example.com", "name": "Ada", "id": "cust1"}, "body/id"),
        ({"name": "Ada"}, "body/email"),
        ([], "body"),
    ],
)
async def test_what_is_wrong_with_a_sign_up_is_named_and_not_repeated(
    api: Api, body: object, pointer: str
) -> None:
    answer = await api.client.post("/v1/customers", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "Bcc" not in answer.text
    assert await api.rows("SELECT count(*) FROM customer") == [(0,)]


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer berth_",
        "Bearer berth_" + "A" * 43,
        "Basic berth_" + "A" * 43,
        "Bearer " + "A" * 5000,
        "Bearer berth_" + "é" * 43,
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/me", "/v1/instances", "/v1/instances/abcd", "/v1/instances/abcd/events"]
)
async def test_without_a_good_token_there_is_nothing(api: Api, path: str, authorization: str) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")}
    answer = await api.client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:berth:problem:unauthenticated"
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_revoked_token_is_no_token(api: Api) -> None:
    customer, headers = await api.sign_up()
    await api.rows("UPDATE api_token SET revoked_at = now() WHERE customer_id = %s", customer)
    assert (await api.client.get("/v1/me", headers=headers)).status_code == 401
