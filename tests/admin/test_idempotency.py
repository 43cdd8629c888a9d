"""What is created with an Idempotency-Key is created once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from operators import operating, word
from tollgate.database import Door


@pytest.fixture
async def operator(door: Door, person: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with operating(door, await person("admin")) as made:
        yield made


def bodies(word: str) -> dict[str, dict[str, Any]]:
    return {
        "/admin/orgs": {"name": word},
        "/admin/users": {"email": f"{word}@example.com"},
        "/admin/plans": {"id": f"p{word}", "name": word},
    }


@pytest.mark.parametrize("path", bodies(""))
async def test_a_repetition_gets_the_first_answer(operator: httpx.AsyncClient, path: str) -> None:
    body, headers = bodies(word())[path], {"idempotency-key": word()}
    first = await operator.post(path, json=body, headers=headers)
    again = await operator.post(path, json=body, headers=headers)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_another_request_under_the_same_key_is_refused(operator: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": word()}
    for path, body in bodies(word()).items():
        answer = await operator.post(path, json=body, headers=headers)
        assert answer.status_code == (201 if path == "/admin/orgs" else 422)
    answer = await operator.post("/admin/orgs", json={"name": "Another"}, headers=headers)
    assert answer.json()["error"]["code"] == "idempotency_key_reused"


async def test_a_refused_creation_may_be_tried_again(operator: httpx.AsyncClient) -> None:
    email, headers = f"{word()}@example.com", {"idempotency-key": word()}
    refused = await operator.post("/admin/users", json={"email": email, "org_id": "org_none"}, headers=headers)
    assert refused.status_code == 404
    assert (await operator.post("/admin/users", json={"email": email}, headers=headers)).status_code == 201


@BOTH_DOORS
async def test_of_many_at_once_one_creates(operator: httpx.AsyncClient) -> None:
    name, headers = word(), {"idempotency-key": word()}
    answers = await asyncio.gather(
        *(operator.post("/admin/orgs", json={"name": name}, headers=headers) for _ in range(8))
    )
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await operator.get("/admin/orgs", params={"q": name})).json()["total"] == 1


async def test_a_secret_is_not_shown_again(operator: httpx.AsyncClient, person: Any) -> None:
    body = {"user_id": (await person()).user_id, "name": word()}
    headers = {"idempotency-key": word()}
    first = (await operator.post("/admin/keys", json=body, headers=headers)).json()
    again = await operator.post("/admin/keys", json=body, headers=headers)
    assert first["key"] not in again.text
    error = again.json()["error"]
    assert (again.status_code, error["code"], error["key_id"]) == (409, "secret_shown_once", first["id"])
    assert (await operator.get("/admin/keys", params={"user_id": body["user_id"]})).json()["total"] == 2


async def test_the_keys_of_operators_are_separate(operator: httpx.AsyncClient, door: Door, person: Any) -> None:
    name, headers = word(), {"idempotency-key": word()}
    first = await operator.post("/admin/orgs", json={"name": name}, headers=headers)
    async with operating(door, await person("admin")) as other:
        second = await other.post("/admin/orgs", json={"name": name}, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


async def test_a_member_has_keys_of_its_own(door: Door, person: Any) -> None:
    async with operating(door, await person(scopes=["keys"])) as member:
        headers = {"idempotency-key": word()}
        body = {"name": "Laptop", "scopes": ["keys"]}
        assert (await member.post("/user/api-keys", json=body, headers=headers)).status_code == 201
        assert (await member.post("/user/api-keys", json=body, headers=headers)).status_code == 409
        assert (await member.post("/admin/orgs", json={"name": "x"}, headers=headers)).status_code == 403
