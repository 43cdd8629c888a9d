"""Signing in and out, what a session may do, and what ends it."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from journeys.walk import ids_of, operations, whole_document
from operators import EVENTS, bearing
from people import Person
from sessions.browser import browser, code_of, link_for, sign_in
from tollgate.completions import openapi
from tollgate.core.endpoints import ENDPOINTS, MOUNTS
from tollgate.database import Door

People = Callable[..., Awaitable[Person]]
ENDED = (401, "session_ended")
CHAT = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]}


@BOTH_DOORS
async def test_a_key_is_exchanged_for_a_session_until_sign_out(
    client: httpx.AsyncClient, person: People, change: Any
) -> None:
    someone = await person()
    answer = await client.post("/auth/sign-in", json={"key": someone.secret})
    assert answer.json()["session"]["way"] == "key"
    assert (answer.json()["user_id"], answer.json()["key_id"]) == (someone.user_id, someone.key_id)
    assert someone.secret not in answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; HttpOnly; Max-Age=1209600; Path=/; SameSite=strict")
    token = client.cookies["tollgate"]
    assert token not in answer.text

    assert (await client.get("/auth/me")).json() == answer.json()
    assert (await client.get("/user/balance")).json()["user_id"] == someone.user_id
    assert (await client.get("/v1/me/usage")).status_code == 200
    out = await client.post("/auth/sign-out")
    assert (out.json(), out.headers["clear-site-data"]) == ({"ended": 1}, '"cache", "cookies", "storage"')
    assert code_of(await client.get("/auth/me")) == ENDED
    events = await change(EVENTS, answer.json()["session"]["id"])
    assert [event["action"] for event in json.loads(events)] == ["session.started", "session.ended"]


async def test_in_production_the_cookie_is_secure_and_bound_to_the_host(door: Door, person: People) -> None:
    someone = await person("admin")
    async with browser(door, TOLLGATE_ENV="production", DATABASE_URL="postgres://nowhere/x") as client:
        answer = await client.post("/auth/sign-in", json={"key": someone.secret})
        name, _, rest = answer.headers["set-cookie"].partition("=")
        assert name == "__Host-tollgate"
        assert rest.endswith("; HttpOnly; Max-Age=43200; Path=/; SameSite=strict; Secure")
        token = rest.partition(";")[0]
        me = await client.get("/auth/me", headers={"cookie": f"__Host-tollgate={token}"})
        assert me.status_code == 200
        assert code_of(await client.get("/auth/me", headers={"cookie": f"tollgate={token}"}))[1] == "missing_api_key"


async def test_a_wrong_key_starts_no_session(client: httpx.AsyncClient, person: People) -> None:
    stranger = Person((await person()).door)
    for key in (stranger.secret, "tg_live_nonsense"):
        answer = await client.post("/auth/sign-in", json={"key": key})
        assert code_of(answer) == (401, "invalid_api_key")
        assert "set-cookie" not in answer.headers


async def test_a_cookie_is_no_key(client: httpx.AsyncClient, person: People) -> None:
    await sign_in(client, await person())
    paths = sum(len(form.paths) for form in ENDPOINTS.values())
    assert len(openapi.paths()) == (paths + 1) * len(MOUNTS)  # and the batch
    for path in openapi.paths():
        answer = await client.post(path, json=CHAT)
        assert answer.status_code == 401, path
        assert "key" in answer.json()["error"]["message"]
    assert (await client.get("/v1/models")).status_code != 401, "pages list models, which costs nothing"
    assert code_of(await client.get("/metrics")) == (401, "missing_api_key")


async def test_a_session_may_do_no_more_than_its_key(client: httpx.AsyncClient, person: People) -> None:
    await sign_in(client, await person("admin", scopes=["usage"]))
    assert code_of(await client.get("/admin/orgs")) == (403, "permission_denied")
    assert code_of(await client.get("/user/api-keys")) == (403, "permission_denied")
    await sign_in(client, await person("admin", scopes=["keys", "admin", "chat"]))
    for terms, status in (({"scopes": ["chat"]}, 201), ({"scopes": ["usage"]}, 403)):
        answer = await client.post("/user/api-keys", json={"name": "More", **terms})
        assert answer.status_code == status, answer.text


async def test_a_role_that_is_taken_away_is_gone_at_the_next_call(
    client: httpx.AsyncClient, person: People, change: Any
) -> None:
    someone = await person("admin")
    await sign_in(client, someone)
    assert (await client.get("/admin/orgs")).status_code == 200
    await change("update tollgate.users set role = 'member' where id = $1", someone.user_id)
    assert code_of(await client.get("/admin/orgs")) == (403, "permission_denied")


ENDINGS = {
    "the user is disabled": ("patch", "/admin/users/{user_id}", {"status": "disabled"}),
    "the org is suspended": ("patch", "/admin/orgs/{org_id}", {"status": "suspended"}),
    "the key is disabled": ("post", "/admin/keys/{key_id}/disable", None),
    "the key is revoked": ("delete", "/admin/keys/{key_id}", None),
    "the key is rotated, with time left for the old secret": (
        "post", "/admin/keys/{key_id}/rotate", {"grace_hours": 24}),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), ENDINGS.values(), ids=ENDINGS)
async def test_a_session_ends_at_once_when(
    method: str, path: str, body: Any, client: httpx.AsyncClient, person: People
) -> None:
    someone, admin = await person(), await person("admin")
    await sign_in(client, someone)
    assert (await client.get("/auth/me")).status_code == 200
    done = await client.request(method, path.format(**ids_of(someone)), json=body, headers=bearing(admin))
    assert done.is_success, done.text
    assert code_of(await client.get("/auth/me")) == ENDED


async def test_a_session_ends_when_its_key_expires(client: httpx.AsyncClient, person: People, change: Any) -> None:
    someone = await person()
    await sign_in(client, someone)
    await change("update tollgate.api_keys set expires_at = now() where id = $1", someone.key_id)
    assert code_of(await client.get("/auth/me")) == ENDED


@pytest.mark.parametrize(
    ("role", "column", "lives", "ended"),
    [
        ("admin", "created_at", "11:59:00", "12:00:01"),
        ("admin", "last_seen_at", "00:59:00", "01:00:01"),
        ("member", "created_at", "13 days 23:59:00", "14 days 00:00:01"),
        ("member", "last_seen_at", "2 days 23:59:00", "3 days 00:00:01"),
    ],
)
async def test_a_session_expires(
    role: str, column: str, lives: str, ended: str, door: Door, person: People, change: Any
) -> None:
    someone = await person(role)
    async with browser(door) as client:
        session: Any = (await sign_in(client, someone))["session"]
        for age, status in ((lives, 200), (ended, 401)):
            await change(
                f"update tollgate.sessions set {column} = now() - '{age}'::interval where id = $1", session["id"]
            )
            assert (await client.get("/auth/me")).status_code == status, age


CROSS_SITE = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "http://tollgate"},
    {"origin": "http://evil.example"},
    {"origin": "http://tollgate.evil.example"},
    {"origin": "http://tollgate:81"},
    {"origin": "null"},
    {"origin": "http://["},
    {},
]


async def test_another_site_can_neither_sign_in_nor_change_anything(client: httpx.AsyncClient, person: People) -> None:
    someone = await person()
    await sign_in(client, someone)
    del client.headers["sec-fetch-site"]
    for headers in CROSS_SITE:
        for path, body in (("/auth/sign-in", {"key": someone.secret}), ("/user/api-keys", {"name": "x"})):
            answer = await client.post(path, json=body, headers=headers)
            assert code_of(answer) == (403, "cross_site_request"), (path, headers)
        assert code_of(await client.post("/auth/sign-out", headers=headers)) == (403, "cross_site_request")
    same = {"origin": "http://tollgate"}
    assert (await client.post("/user/api-keys", json={"name": "x"}, headers=same)).status_code == 201
    form = {**same, "content-type": "text/plain"}
    assert code_of(await client.post("/user/api-keys", content=b'{"name": "x"}', headers=form))[0] == 400
    assert code_of(await client.post("/auth/sign-in", content=b"{}", headers=form))[0] == 400
    keyed = await client.post("/user/api-keys", json={"name": "x"}, headers=bearing(someone))
    assert keyed.status_code == 201, "a key needs no origin"


async def test_cookies_of_others_open_nothing(client: httpx.AsyncClient, person: People, change: Any) -> None:
    """Forged, expired, cross-site and a member's, on every route."""
    member = await person()
    session: Any = (await sign_in(client, member))["session"]
    good = client.cookies["tollgate"]
    document = whole_document()
    client.cookies.clear()

    async def refused(operation: Any, token: str, site: str) -> tuple[int, Any]:
        headers = {"cookie": f"tollgate={token}", "sec-fetch-site": site}
        at = operation.at(ids_of(member))
        body, query = operation.example(document), operation.query(document)
        answer = await client.request(operation.method, at, json=body, params=query, headers=headers)
        return code_of(answer)

    guarded = [one for one in operations(document) if not one.is_open and one.path != "/metrics"]
    takes_cookies = [one for one in guarded if one.path.startswith(("/user/", "/admin/", "/auth/"))]
    assert len(takes_cookies) > 80
    for operation in guarded:
        for forged in (secrets.token_urlsafe(32), "x", ""):
            status, code = await refused(operation, forged, "same-origin")
            assert status == 401, operation[:2]
            of_agents = ("host_key_invalid", "enrolment_invalid")
            codes = of_agents if operation.is_for_agents else ("session_ended", "missing_api_key", 401)
            assert code in codes, operation[:2]
    for operation in takes_cookies:
        if operation.method != "get":
            assert await refused(operation, good, "cross-site") == (403, "cross_site_request"), operation[:2]
        if operation.is_for_admins:
            assert await refused(operation, good, "same-origin") == (403, "permission_denied"), operation[:2]
    await change("update tollgate.sessions set created_at = now() - interval '15 days' where id = $1", session["id"])
    for operation in takes_cookies:
        assert await refused(operation, good, "same-origin") == ENDED, operation[:2]


async def test_a_link_signs_in_once(client: httpx.AsyncClient, person: People, door: Door, change: Any) -> None:
    someone = await person("admin", scopes=[])
    link = await link_for(door, someone)
    answers = await asyncio.gather(*(client.post("/auth/sign-in", json={"link": link}) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    assert {code_of(one) for one in answers if one.is_error} == {(401, "invalid_link")}
    me = (await client.get("/auth/me")).json()
    assert (me["user_id"], me["key_id"], me["session"]["way"]) == (someone.user_id, None, "link")
    assert "admin" in me["scopes"], "without a key, the session has all that its user may do"

    late = await link_for(door, someone)
    await change("update tollgate.sign_in_links set expires_at = now() where user_id = $1", someone.user_id)
    other = await person()
    disabled = await link_for(door, other)
    await change("update tollgate.users set status = 'disabled' where id = $1", other.user_id)
    for link in (late, disabled, "unknown"):
        assert code_of(await client.post("/auth/sign-in", json={"link": link})) == (401, "invalid_link")


@BOTH_DOORS
async def test_every_page_of_an_account_answers_a_session_without_a_key(
    client: httpx.AsyncClient, person: People, door: Door
) -> None:
    someone = await person("admin")
    await client.post("/auth/sign-in", json={"link": await link_for(door, someone)})
    document = whole_document()
    for operation in operations(document):
        if operation.method == "get" and operation.path.startswith(("/user/", "/auth/", "/admin/")):
            answer = await client.get(operation.at(ids_of(someone)), params=operation.query(document))
            ours = answer.status_code < 500 or answer.json()["error"]["code"] == "catalog_unavailable"
            assert ours, (operation.path, answer.text)
            assert answer.status_code not in (401, 403), (operation.path, answer.text)
    assert (await client.get("/user/balance")).json()["masked_key"] is None
    made = await client.post("/user/api-keys", json={"name": "Mine", "scopes": ["chat", "admin"]})
    assert made.status_code == 201, made.text


@BOTH_DOORS
async def test_sessions_are_listed_and_ended(client: httpx.AsyncClient, person: People, door: Door) -> None:
    someone, other, admin = await person(), await person(), await person("admin")
    async with browser(door) as phone, browser(door) as stranger, browser(door) as operator:
        first: Any = (await sign_in(phone, someone))["session"]
        second: Any = (await sign_in(client, someone))["session"]
        listed = (await client.get("/auth/sessions", params={"everyone": True})).json()["data"]
        assert [one["id"] for one in listed] == [second["id"], first["id"]]

        await sign_in(stranger, other)
        assert code_of(await stranger.delete(f"/auth/sessions/{first['id']}")) == (404, "not_found")
        assert (await client.delete(f"/auth/sessions/{first['id']}")).json() == {"ended": 1}
        assert code_of(await phone.get("/user/balance")) == ENDED

        await sign_in(operator, admin)
        everyone = (await operator.get("/auth/sessions", params={"everyone": True, "limit": 1000})).json()["data"]
        assert second["id"] in {one["id"] for one in everyone}
        one_user = await operator.get("/auth/sessions", params={"everyone": True, "user_id": someone.user_id})
        assert [one["id"] for one in one_user.json()["data"]] == [second["id"]]
        others = await client.get("/auth/sessions", params={"everyone": True, "user_id": admin.user_id})
        assert [one["id"] for one in others.json()["data"]] == [second["id"]]
        assert (await operator.delete(f"/auth/sessions/{second['id']}")).json() == {"ended": 1}
        assert code_of(await client.get("/auth/me")) == ENDED

        for each in (phone, client):
            await sign_in(each, someone)
        assert (await client.delete("/auth/sessions")).json() == {"ended": 2}
        assert code_of(await phone.get("/auth/me")) == code_of(await client.get("/auth/me")) == ENDED


async def test_signing_in_again_replaces_the_session(client: httpx.AsyncClient, person: People) -> None:
    someone = await person()
    await sign_in(client, someone)
    old = client.cookies["tollgate"]
    await sign_in(client, someone)
    assert (await client.get("/auth/me")).status_code == 200
    assert len((await client.get("/auth/sessions")).json()["data"]) == 1
    client.cookies.set("tollgate", old, domain="tollgate.local")
    assert code_of(await client.get("/auth/me", headers={"cookie": f"tollgate={old}"})) == ENDED


async def test_credits_move_only_soon_after_a_sign_in(client: httpx.AsyncClient, person: People, change: Any) -> None:
    admin = await person("admin")
    session: Any = (await sign_in(client, admin))["session"]
    grant = {"org_id": admin.org_id, "credits": 1, "reason": "To test"}

    async def granted(**headers: str) -> httpx.Response:
        headers = {"idempotency-key": secrets.token_hex(8), **headers}
        return await client.post("/admin/credits/grant", json=grant, headers=headers)

    assert (await granted()).status_code == 200
    await change("update tollgate.sessions set created_at = now() - interval '16 minutes' where id = $1", session["id"])
    assert code_of(await granted()) == (403, "sign_in_again")
    assert (await granted(**bearing(admin))).status_code == 200
    await sign_in(client, admin)
    assert (await granted()).status_code == 200
