"""Passwords: setting and removing them, signing in with them, and guessing them."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import argon2
import httpx
import pytest

from gateway import BOTH_DOORS
from operators import EVENTS, bearing
from people import Person, refused
from sessions.browser import browser, code_of, link_for, new_address, set_password, sign_in, sign_in_with_password
from tollgate.audit.rules import address_of
from tollgate.core.errors import ServerBusy, SignInFailed, TollgateError, WeakPassword
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.sessions import passwords, rules, store
from tollgate.sessions.passwords import Passwords

People = Callable[..., Awaitable[Person]]
RIGHT = "  correct horse battery staple "
OTHER = "seventeen purple bicycles"
FAILED = (401, "sign_in_failed")
THROTTLED = (429, "too_many_sign_ins")


async def actions(change: Any, target: str) -> list[str]:
    return [event["action"] for event in json.loads(await change(EVENTS, target))]


@BOTH_DOORS
async def test_a_password_is_set_after_a_link_and_signs_in(
    client: httpx.AsyncClient, person: People, door: Door, change: Any
) -> None:
    someone, admin = await person("admin", scopes=[]), await person("admin")
    await client.post("/auth/sign-in", json={"link": await link_for(door, someone)})
    assert (await client.get("/auth/me")).json()["has_password"] is False
    assert (await client.post("/auth/password", json={"password": RIGHT})).json() == {"ended": 0}
    await client.post("/auth/sign-out")

    named = {"email": someone.email.upper(), "password": RIGHT}
    me = (await client.post("/auth/sign-in", json=named)).json()
    assert (me["user_id"], me["key_id"], me["session"]["way"]) == (someone.user_id, None, "password")
    assert me["has_password"]
    assert "admin" in me["scopes"]
    assert (await client.get("/admin/orgs")).status_code == 200
    user = await client.get(f"/admin/users/{someone.user_id}", headers=bearing(admin))
    assert user.json()["has_password"]
    assert (await actions(change, someone.user_id))[-2:] == ["sign_in_link.created", "password.set"]
    stored = await change("select hash from tollgate.passwords where user_id = $1", someone.user_id)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_only_the_whole_password_of_its_own_user_is_right(
    client: httpx.AsyncClient, person: People, door: Door, change: Any
) -> None:
    someone, other = await person(), await person()
    await set_password(client, door, someone, RIGHT)
    client.cookies.clear()
    for password in (RIGHT.strip(), RIGHT + "x", RIGHT.upper(), "x"):
        assert code_of(await sign_in_with_password(client, someone, password)) == FAILED
    assert code_of(await sign_in_with_password(client, other, RIGHT)) == FAILED
    nobody = {"email": "nobody@example.com", "password": RIGHT}
    assert code_of(await client.post("/auth/sign-in", json=nobody)) == FAILED
    assert not client.cookies
    await change("update tollgate.users set status = 'disabled' where id = $1", someone.user_id)
    assert code_of(await sign_in_with_password(client, someone, RIGHT)) == FAILED


def test_an_unknown_email_costs_the_same_hash() -> None:
    theirs = argon2.extract_parameters(argon2.PasswordHasher(2, 19 * 1024, 1).hash("x"))
    assert argon2.extract_parameters(passwords.OF_NOBODY) == theirs


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "ada@example.com"},
        {"password": RIGHT},
        {"key": "tg_live_x", "email": "ada@example.com", "password": RIGHT},
        {"key": "tg_live_x", "password": RIGHT},
        {"link": "x", "email": "ada@example.com", "password": RIGHT},
        {"email": "ada\x00@example.com", "password": RIGHT},
        {"email": "ada\ud800@example.com", "password": RIGHT},
        {"email": "ada@example.com", "password": "\ud800" * 12},
        {"email": "ada@example.com", "password": "x" * 1025},
        {"email": "ada@example.com", "password": ""},
    ],
)
async def test_a_sign_in_names_one_way(body: dict[str, str], client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/auth/sign-in", content=json.dumps(body), headers=headers)
    assert code_of(answer) == (400, "invalid_request"), answer.text
    assert RIGHT not in answer.text


@BOTH_DOORS
async def test_a_new_password_ends_all_other_sessions_and_links(
    client: httpx.AsyncClient, person: People, door: Door
) -> None:
    someone = await person()
    await set_password(client, door, someone, RIGHT)
    async with browser(door) as phone, browser(door) as keyed:
        await sign_in_with_password(phone, someone, RIGHT)
        await sign_in(keyed, someone)
        link = await link_for(door, someone)
        new = {"password": OTHER, "current": RIGHT}
        assert (await phone.post("/auth/password", json=new)).json() == {"ended": 2}
        assert (await phone.get("/auth/me")).status_code == 200
        for each in (client, keyed):
            assert code_of(await each.get("/auth/me")) == (401, "session_ended")
        assert code_of(await client.post("/auth/sign-in", json={"link": link})) == (401, "invalid_link")
        assert code_of(await sign_in_with_password(client, someone, RIGHT)) == FAILED
        assert (await sign_in_with_password(client, someone, OTHER)).status_code == 200


async def test_a_password_is_changed_only_with_the_current_one_or_soon_after_a_link(
    client: httpx.AsyncClient, person: People, door: Door, change: Any
) -> None:
    someone = await person()
    new = {"password": OTHER}
    await sign_in(client, someone)
    assert code_of(await client.post("/auth/password", json=new)) == (403, "sign_in_again")
    await client.post("/auth/sign-in", json={"link": await link_for(door, someone)})
    await change(
        "update tollgate.sessions set created_at = now() - interval '16 minutes' where user_id = $1", someone.user_id
    )
    assert code_of(await client.post("/auth/password", json=new)) == (403, "sign_in_again")

    await set_password(client, door, someone, RIGHT)
    await sign_in_with_password(client, someone, RIGHT)
    missing = await client.post("/auth/password", json=new)
    assert (code_of(missing), missing.json()["error"]["param"]) == ((400, "invalid_request"), "current")
    assert code_of(await client.post("/auth/password", json={**new, "current": OTHER})) == FAILED
    assert (await client.post("/auth/password", json={**new, "current": RIGHT})).status_code == 200
    assert (await sign_in_with_password(client, someone, OTHER)).status_code == 200


async def test_a_session_cannot_guess_the_current_password(
    client: httpx.AsyncClient, person: People, door: Door
) -> None:
    someone = await person()
    await set_password(client, door, someone, RIGHT)
    await sign_in(client, someone)
    wrong = {"password": OTHER, "current": "a wrong password"}
    weak = await client.post("/auth/password", json={"password": "password1234", "current": RIGHT})
    assert code_of(weak) == (400, "weak_password")
    for _ in range(10):
        assert code_of(await client.post("/auth/password", json=wrong)) == FAILED
    right = {"password": OTHER, "current": RIGHT}
    assert code_of(await client.post("/auth/password", json=right)) == THROTTLED


async def test_a_password_that_changes_during_a_sign_in_does_not_sign_in(person: People, door: Door) -> None:
    someone, anybody = await person(), console(door, "tests")
    async with browser(door) as client:
        await set_password(client, door, someone, RIGHT)
        checked = await store.begin_password_sign_in(anybody, someone.email, "192.0.2.200")
        await set_password(client, door, someone, OTHER)
        started = store.sign_in_with_password(anybody, someone.email, checked, "192.0.2.200", secrets.token_hex(32))
        assert isinstance(await refused(started), SignInFailed)


WEAK = {
    "elevenchars": "too_short",
    "x" * 1025: "too_long",
    "\ufdfa" * 1024: "too_long",
    "ada.lovelace": "easy_to_guess",
    "Lovelace1234": "easy_to_guess",
    "lovelace.ada@": "easy_to_guess",
    "engines.example": "easy_to_guess",
    "password1234": "easy_to_guess",
    "P@ssw0rd12345": "easy_to_guess",
    "123456789012": "easy_to_guess",
    "qwertyuiop123": "easy_to_guess",
    "aaaaaaaaaaaaaaaa": "easy_to_guess",
    "abababababababab": "easy_to_guess",
    "Tollgate-Admin!": "easy_to_guess",
}


@pytest.mark.parametrize(("password", "reason"), WEAK.items(), ids=range(len(WEAK)))
def test_a_weak_password_is_refused(password: str, reason: str) -> None:
    with pytest.raises(WeakPassword) as caught:
        rules.check_password(rules.normal(password), "ada.lovelace@engines.example", "Ada Lovelace")
    assert caught.value.facts == {"reason": reason}


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "            blank start",
        "zwölf Zeichen!",
        "密码密码短语不容易猜到的一句话",
        "x7#kfQ2mvP0z",
    ],
)
def test_a_password_needs_no_kinds_of_characters(password: str) -> None:
    rules.check_password(rules.normal(password), "ada.lovelace@engines.example", "Ada Lovelace")


async def test_a_weak_password_is_not_set(client: httpx.AsyncClient, person: People, door: Door) -> None:
    someone = await person()
    await client.post("/auth/sign-in", json={"link": await link_for(door, someone)})
    answer = await client.post("/auth/password", json={"password": f"{someone.email}!"})
    assert code_of(answer) == (400, "weak_password")
    assert answer.json()["error"]["reason"] == "easy_to_guess"
    assert (await client.get("/auth/me")).json()["has_password"] is False


@BOTH_DOORS
async def test_an_operator_removes_a_password_and_all_sessions(
    client: httpx.AsyncClient, person: People, door: Door, change: Any
) -> None:
    someone, admin = await person(), await person("admin")
    await set_password(client, door, someone, RIGHT)
    link = await link_for(door, someone)
    path = f"/admin/users/{someone.user_id}/password"
    assert code_of(await client.delete(path)) == (403, "permission_denied")
    removed = await client.delete(path, headers=bearing(admin))
    assert removed.json() == {"user_id": someone.user_id, "removed": True, "ended": 1}
    assert code_of(await client.get("/auth/me")) == (401, "session_ended")
    assert code_of(await sign_in_with_password(client, someone, RIGHT)) == FAILED
    assert code_of(await client.post("/auth/sign-in", json={"link": link})) == (401, "invalid_link")
    again = await client.delete(path, headers=bearing(admin))
    assert again.json() == {"user_id": someone.user_id, "removed": False, "ended": 0}
    assert (await actions(change, someone.user_id))[-2:] == ["sign_in_link.created", "password.removed"]
    missing = await client.delete("/admin/users/usr_nobody/password", headers=bearing(admin))
    assert code_of(missing) == (404, "not_found")


async def test_a_deleted_user_has_no_password(
    client: httpx.AsyncClient, person: People, door: Door, change: Any
) -> None:
    someone, admin = await person(), await person("admin")
    await set_password(client, door, someone, RIGHT)
    await client.delete(f"/admin/users/{someone.user_id}", headers=bearing(admin))
    assert await change("select count(*) from tollgate.passwords where user_id = $1", someone.user_id) == 0


async def test_wrong_passwords_lock_the_guesser_and_not_the_owner(person: People, door: Door, change: Any) -> None:
    someone, guesser_at = await person(), new_address()
    async with browser(door) as owner, browser(door, guesser_at) as guesser:
        await set_password(owner, door, someone, RIGHT)
        tries = await asyncio.gather(*(sign_in_with_password(guesser, someone, OTHER) for _ in range(14)))
        assert sorted(code_of(one) for one in tries) == [FAILED] * 10 + [THROTTLED] * 4
        locked = await sign_in_with_password(guesser, someone, RIGHT)
        assert code_of(locked) == THROTTLED
        wait = locked.json()["error"]["retry_after_seconds"]
        assert 0 < wait <= 900
        assert locked.headers["retry-after"] == str(wait)

        assert (await sign_in_with_password(owner, someone, RIGHT)).status_code == 200
        assert (await guesser.post("/auth/sign-in", json={"key": someone.secret})).status_code == 200
        await change(
            "update tollgate.password_failures set since = now() - interval '15 minutes' where address = $1",
            address_of(guesser_at),
        )
        assert (await sign_in_with_password(guesser, someone, RIGHT)).status_code == 200


async def test_a_right_password_takes_back_its_failures(person: People, door: Door) -> None:
    someone = await person()
    async with browser(door) as client:
        await set_password(client, door, someone, RIGHT)
        for _ in range(9):
            assert code_of(await sign_in_with_password(client, someone, OTHER)) == FAILED
        assert (await sign_in_with_password(client, someone, RIGHT)).status_code == 200
        for _ in range(10):
            assert code_of(await sign_in_with_password(client, someone, OTHER)) == FAILED
        assert code_of(await sign_in_with_password(client, someone, OTHER)) == THROTTLED


async def test_tries_at_the_same_time_do_not_block_each_other(person: People, door: Door) -> None:
    someone, other, anybody = await person(), await person(), console(door, "tests")
    addresses = [new_address() for _ in range(3)]

    async def tried(account: str, address: str) -> str:
        try:
            await store.begin_password_sign_in(anybody, account, address)
        except TollgateError as refusal:
            return refusal.code
        return "counted"

    tries = [tried(account, address) for address in addresses for account in (someone.email, other.email) * 12]
    outcomes = await asyncio.gather(*tries)
    assert sorted(outcomes) == ["counted"] * 60 + ["too_many_sign_ins"] * 12


async def test_one_address_cannot_try_many_accounts(person: People, door: Door, change: Any) -> None:
    someone, address = await person(), new_address()
    async with browser(door, address) as client:
        for number in range(9):
            body = {"email": f"{number}@unknown.example", "password": RIGHT}
            assert code_of(await client.post("/auth/sign-in", json=body)) == FAILED
        await change(
            "update tollgate.password_failures set failures = 30 where account = '' and address = $1",
            address_of(address),
        )
        assert code_of(await sign_in_with_password(client, someone, RIGHT)) == THROTTLED


async def test_many_addresses_cannot_guess_one_account_nor_lock_its_owner_out(
    person: People, door: Door, change: Any
) -> None:
    someone, admin = await person(), await person("admin")
    async with browser(door) as owner, browser(door) as one, browser(door) as other:
        await set_password(owner, door, someone, RIGHT)
        await sign_in_with_password(owner, someone, RIGHT)
        await sign_in_with_password(one, someone, OTHER)
        await change(
            "update tollgate.password_failures set failures = 99 where account = tollgate.account_of($1)"
            " and address = ''",
            someone.email,
        )
        assert code_of(await sign_in_with_password(one, someone, OTHER)) == FAILED
        assert code_of(await sign_in_with_password(other, someone, OTHER)) == THROTTLED
        assert (await sign_in_with_password(owner, someone, RIGHT)).status_code == 200
        events = await owner.get(
            "/admin/security-events", params={"kind": "many_failures", "limit": 1000}, headers=bearing(admin)
        )
        subjects = [event["subject"] for event in events.json()["data"]]
        assert {"kind": "user", "id": someone.user_id} in subjects


async def test_failed_sign_ins_of_an_address_are_one_event(person: People, door: Door) -> None:
    someone, admin, address = await person(), await person("admin"), new_address()
    async with browser(door, address) as client:
        for _ in range(12):
            await sign_in_with_password(client, someone, OTHER)
    async with browser(door) as operator:
        seen = {"kind": "authentication_failed", "limit": 1000}
        events = await operator.get("/admin/security-events", params=seen, headers=bearing(admin))
        subject = {"kind": "address", "id": address_of(address)}
        (event,) = [one for one in events.json()["data"] if one["subject"] == subject]
        assert (event["count"], event["details"]["code"]) == (12, "too_many_sign_ins")


async def test_counts_that_are_over_are_deleted(client: httpx.AsyncClient, person: People, change: Any) -> None:
    someone = await person()
    await sign_in_with_password(client, someone, OTHER)
    old = "update tollgate.password_failures set since = now() - interval '16 minutes' where account = $1"
    account = await change("select tollgate.account_of($1)", someone.email)
    await change(old, account)
    await sign_in_with_password(client, await person(), OTHER)
    assert await change("select count(*) from tollgate.password_failures where account = $1", account) == 0


async def test_the_first_net_holds_all_but_keys(client: httpx.AsyncClient, person: People) -> None:
    for _ in range(30):
        assert code_of(await client.post("/auth/sign-in", json={"link": "wrong"})) == (401, "invalid_link")
    held = await client.post("/auth/sign-in", json={"link": "wrong"})
    assert code_of(held) == THROTTLED
    assert 0 < int(held.headers["retry-after"]) <= 60
    assert (await client.post("/auth/sign-in", json={"key": (await person()).secret})).status_code == 200


async def test_more_hashes_than_can_wait_are_refused() -> None:
    busy = Passwords()
    done = await asyncio.gather(*(busy.is_right("x", None) for _ in range(103)), return_exceptions=True)
    assert [type(one) for one in done if one is not False] == [ServerBusy] * 3
