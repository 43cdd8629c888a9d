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
async def browser(door: Door, **settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """The whole app, seen from a page of its own host."""
    app = create_app(read({"KEY_PEPPER": PEPPER, **settings}), door=door)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://tollgate", headers=SAME_ORIGIN) as made:
        yield made


async def sign_in(client: httpx.AsyncClient, someone: Person) -> dict[str, object]:
    answer = await client.post("/auth/sign-in", json={"key": someone.secret})
    assert answer.status_code == 200, answer.text
    signed_in: dict[str, object] = answer.json()
    return signed_in


async def link_for(door: Door, someone: Person) -> str:
    """The token of a new sign-in link."""
    token = secrets.token_urlsafe(32)
    await store.create_link(console(door, "tests"), {"user_id": someone.user_id}, digest(token, PEPPER))
    return token


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
