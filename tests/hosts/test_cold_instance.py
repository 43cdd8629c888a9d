"""A cold instance: its first requests come before, or without, any lifespan, and all at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from completions.paid import Auditor, database
from gateway import BOTH_DOORS, CHAT, Upstream
from people import PEPPER, Person
from sandbox.serving import PATIENCE_SECONDS, a_chat
from servers.relay import Relay
from tollgate import settings
from tollgate.app import create_app

pytestmark = BOTH_DOORS

Customer = Callable[..., Awaitable[Person]]
AT_ONCE = 20


@pytest.fixture
async def cold(wire: Relay, shared_database: str, sandbox: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """An app that nobody has told to start. Its lifespan runs afterwards, and only to close what it has opened."""
    given = {
        "KEY_PEPPER": PEPPER,
        "OPENROUTER_BASE_URL": sandbox.url,
        "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
        "LOG_LEVEL": "warning",
        "VERCEL": "1",
        **database(wire, shared_database),
    }
    app = create_app(settings.read(given), environ=given)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://cold.test", timeout=PATIENCE_SECONDS) as http:
        yield http
    async with app.router.lifespan_context(app):
        pass


def of(someone: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {someone.secret}"}


Ask = Callable[[httpx.AsyncClient, Person, Person], Awaitable[httpx.Response]]
FIRST: dict[str, Ask] = {
    "health": lambda http, member, admin: http.get("/health"),
    "a completion": lambda http, member, admin: http.post(CHAT, json=a_chat(), headers=of(member)),
    "a stream": lambda http, member, admin: http.post(CHAT, json=a_chat(stream=True), headers=of(member)),
    "a balance": lambda http, member, admin: http.get("/user/balance", headers=of(member)),
    "the models": lambda http, member, admin: http.get("/v1/models", headers=of(member)),
    "an operator's page": lambda http, member, admin: http.get("/admin/users", headers=of(admin)),
}


def is_whole(name: str, answer: httpx.Response) -> bool:
    ends = "data: [DONE]\n\n" if name == "a stream" else "}"
    return answer.status_code == 200 and answer.text.rstrip(" ").endswith(ends)


@pytest.mark.parametrize("name", FIRST)
async def test_whatever_comes_first_is_answered(
    cold: httpx.AsyncClient, customer: Customer, person: Any, shared_database: str, name: str
) -> None:
    member, admin = await customer(), await person("admin")
    answer = await FIRST[name](cold, member, admin)
    assert is_whole(name, answer), answer.text
    await Auditor(shared_database).agree(member)
    assert (answer.headers.get("x-tollgate-charge-nanos", "0") != "0") == (name == "a completion")


async def test_whatever_comes_at_once_is_answered(
    cold: httpx.AsyncClient, customer: Customer, person: Any, sandbox: Upstream, shared_database: str
) -> None:
    member, admin = await customer(), await person("admin")
    names = [*FIRST] * (AT_ONCE // len(FIRST) + 1)
    answers = await asyncio.gather(*(FIRST[name](cold, member, admin) for name in names))
    assert [answer.text for name, answer in zip(names, answers, strict=True) if not is_whole(name, answer)] == []
    await Auditor(shared_database).agree(member, spent=sandbox.owed_nanos)
