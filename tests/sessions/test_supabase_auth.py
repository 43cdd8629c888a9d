"""Signing in with an access token of Supabase Auth."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from gateway import BOTH_DOORS
from people import Person
from sandbox.serving import serving
from servers.process import free_port
from sessions.browser import browser, code_of
from sessions.supabase_auth import SECRET_KEY, Project
from tollgate.database import Door

People = Callable[..., Awaitable[Person]]
PUBLISHABLE = "sb_publishable_of_the_tests"
FAILED = (401, "sign_in_failed")
UNAVAILABLE = (503, "supabase_unavailable")


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
def address(project: Project) -> Iterator[str]:
    with serving(project.app) as made:
        yield made


@contextlib.asynccontextmanager
async def page(door: Door, url: str) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"SUPABASE_SECRET_KEY": SECRET_KEY, "SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE}
    async with browser(door, SUPABASE_URL=url, **settings) as made:
        yield made


@pytest.fixture
async def client(door: Door, address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with page(door, address) as made:
        yield made


async def sign_in(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/auth/sign-in", json={"supabase_token": token})


@BOTH_DOORS
async def test_a_verified_email_signs_in_with_the_role_of_our_own_table(
    client: httpx.AsyncClient, person: People, project: Project
) -> None:
    someone = await person()
    answer = await sign_in(client, project.signs_in(someone.email.upper()))
    assert answer.status_code == 200, answer.text
    me = answer.json()
    assert (me["user_id"], me["role"], me["key_id"]) == (someone.user_id, "member", None)
    assert me["session"]["way"] == "supabase"
    assert (await client.get("/user/balance")).json()["user_id"] == someone.user_id
    assert code_of(await client.get("/admin/orgs")) == (403, "permission_denied")


async def test_an_email_that_nobody_verified_signs_nobody_in(
    client: httpx.AsyncClient, person: People, project: Project
) -> None:
    admin, other = await person("admin"), await person()
    theirs = project.signs_in(other.email)
    identities = next(iter(project.users.values()))["identities"]
    tokens = [
        project.signs_in(admin.email, proved=False),
        project.signs_in(admin.email, email_confirmed_at=None),
        project.signs_in(admin.email, identities=None),
        project.signs_in(admin.email, identities=identities),
        project.signs_in("", is_anonymous=True),
    ]
    for token in tokens:
        assert code_of(await sign_in(client, token)) == FAILED
    assert (await sign_in(client, theirs)).json()["user_id"] == other.user_id


async def test_an_email_without_an_active_user_signs_nobody_in(
    client: httpx.AsyncClient, person: People, project: Project, change: Any
) -> None:
    someone = await person()
    await change("update tollgate.users set status = 'disabled' where id = $1", someone.user_id)
    for email in (someone.email, "nobody@example.com"):
        assert code_of(await sign_in(client, project.signs_in(email))) == FAILED
    assert not client.cookies


async def test_a_token_that_supabase_refuses_signs_nobody_in(
    client: httpx.AsyncClient, person: People, project: Project
) -> None:
    someone = await person()
    token = project.signs_in(someone.email)
    user_id = next(iter(project.users))
    forged = project.token(user_id, secret="another-secret-that-has-enough-characters")
    for bad in (forged, project.token(user_id, expires_in=-60), project.token("unknown"), token[:-3], "x.y.z", "x"):
        assert code_of(await sign_in(client, bad)) == FAILED
    asked = project.asked
    for malformed in ("", "two words", "line\r\nbreak", "x" * 16_385):
        assert code_of(await sign_in(client, malformed)) == (400, "invalid_request")
    assert project.asked == asked


@pytest.mark.parametrize(
    "broken",
    [
        JSONResponse({"message": "boom"}, 500),
        JSONResponse({"message": "slow down"}, 429),
        Response("bad gateway", 502),
        Response("not JSON"),
        JSONResponse({"id": "x"}),
    ],
)
async def test_a_broken_supabase_is_unavailable(broken: Response, postgres_door: Door) -> None:
    project = Project()
    project.broken = broken
    with serving(project.app) as address:
        async with page(postgres_door, address) as client:
            assert code_of(await sign_in(client, "x.y.z")) == UNAVAILABLE


async def test_an_unreachable_supabase_is_unavailable(postgres_door: Door) -> None:
    async with page(postgres_door, f"http://127.0.0.1:{free_port()}") as client:
        assert code_of(await sign_in(client, "x.y.z")) == UNAVAILABLE


async def test_the_ways_to_sign_in_are_public(client: httpx.AsyncClient, address: str, door: Door) -> None:
    ways = {"key": True, "link": True, "password": True}
    project = {"url": address, "publishable_key": PUBLISHABLE}
    answer = await client.get("/auth/ways")
    assert answer.json() == {**ways, "supabase": project}
    assert SECRET_KEY not in answer.text
    async with browser(door) as plain:
        assert (await plain.get("/auth/ways")).json() == {**ways, "supabase": None}
        assert code_of(await sign_in(plain, "x.y.z")) == FAILED
