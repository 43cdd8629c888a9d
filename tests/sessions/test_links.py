"""Links that operators create for users, over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any

from operators import bearing
from people import Person
from sessions.browser import browser, code_of, sign_in
from tollgate.database import Door

People = Callable[..., Awaitable[Person]]


async def test_an_operator_creates_a_link_by_which_a_user_signs_in_once(person: People, door: Door) -> None:
    someone, admin = await person(), await person("admin")
    async with browser(door) as operator, browser(door) as client:
        path = f"/admin/users/{someone.user_id}/sign-in-link"
        made = await operator.post(path, headers=bearing(admin))
        assert made.status_code == 201, made.text
        told = made.json()
        assert (told["user_id"], told["email"]) == (someone.user_id, someone.email)
        assert told["link"] == f"http://tollgate/admin#/sign-in/{told['token']}"
        signed_in = await client.post("/auth/sign-in", json={"link": told["token"]})
        assert signed_in.json()["user_id"] == someone.user_id
        assert code_of(await client.post(path)) == (403, "permission_denied")
        again = await client.post("/auth/sign-in", json={"link": told["token"]})
        assert code_of(again) == (401, "invalid_link")


async def test_in_production_a_link_is_secure(person: People, door: Door) -> None:
    someone, admin = await person(), await person("admin")
    async with browser(door, TOLLGATE_ENV="production", DATABASE_URL="postgres://nowhere/x") as client:
        made = await client.post(f"/admin/users/{someone.user_id}/sign-in-link", headers=bearing(admin))
        assert made.json()["link"].startswith("https://tollgate/admin#/sign-in/")


async def test_a_link_needs_a_recent_sign_in_and_an_active_user(person: People, door: Door, change: Any) -> None:
    someone, admin = await person(), await person("admin")
    path = f"/admin/users/{someone.user_id}/sign-in-link"
    async with browser(door) as client:
        await sign_in(client, admin)
        assert (await client.post(path)).status_code == 201
        own = await client.post(f"/admin/users/{admin.user_id}/sign-in-link")
        assert code_of(own) == (403, "permission_denied"), "the session of a key could do more by it"
        old = "update tollgate.sessions set created_at = now() - interval '16 minutes' where user_id = $1"
        await change(old, admin.user_id)
        assert code_of(await client.post(path)) == (403, "sign_in_again")
        assert (await client.post(path, headers=bearing(admin))).status_code == 201
        await change("update tollgate.users set status = 'disabled' where id = $1", someone.user_id)
        assert code_of(await client.post(path, headers=bearing(admin))) == (404, "not_found")
