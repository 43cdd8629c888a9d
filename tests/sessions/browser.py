"""A browser as the API sees it: cookies, and the headers that tell where a request comes from."""

import contextlib
import secrets
from collections.abc import AsyncIterator

import httpx

from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.keys.rules import digest
from tollgate.sessions import store
from tollgate.settings import read

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@contextlib.asynccontextmanager
async def browser(door: Door, address: str | None = None, **settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """The whole app, seen from a page of its own host, at an address that no other test has."""
    app = create_app(read({"KEY_PEPPER": PEPPER, "AGENT_KEY": "a" * 32, **settings}), door=door)
    transport = httpx.ASGITransport(app, client=(address or new_address(), 1234))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://tollgate", headers=SAME_ORIGIN) as made,
    ):
        yield made


async def sign_in(client: httpx.AsyncClient, someone: Person) -> dict[str, object]:
    answer = await client.post("/auth/sign-in", json={"key": someone.secret})
    assert answer.status_code == 200, answer.text
    signed_in: dict[str, object] = answer.json()
    return signed_in


def new_address() -> str:
    return f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"


async def set_password(client: httpx.AsyncClient, door: Door, someone: Person, password: str) -> None:
    """By a sign-in link, as people do the first time."""
    await client.post("/auth/sign-in", json={"link": await link_for(door, someone)})
    answer = await client.post("/auth/password", json={"password": password})
    assert answer.status_code == 200, answer.text


async def sign_in_with_password(client: httpx.AsyncClient, someone: Person, password: str) -> httpx.Response:
    return await client.post("/auth/sign-in", json={"email": someone.email, "password": password})


async def link_for(door: Door, someone: Person) -> str:
    """The token of a new sign-in link."""
    token = secrets.token_urlsafe(32)
    await store.create_link(console(door, "tests"), {"user_id": someone.user_id}, digest(token, PEPPER))
    return token


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
