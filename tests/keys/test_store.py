"""Keys in the database, through both doors."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from gateway import BOTH_DOORS
from people import OLD_PEPPER, PEPPER, Person, refused
from tollgate.audit import store as audit
from tollgate.core.errors import (
    BadRequest,
    InvalidApiKey,
    IpNotAllowed,
    KeyDisabled,
    KeyExpired,
    KeyIsFinal,
    KeyRevoked,
    NotFound,
    PermissionDenied,
)
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import console

pytestmark = BOTH_DOORS


def stored(**key: Any) -> dict[str, Any]:
    """A new key as the database takes it."""
    secret = rules.mint("live", secrets.token_bytes(32))
    return rules.stored(secret, PEPPER, **{"name": "Second", "scopes": ["chat"], **key})


async def events_about(door: Door, target_id: str) -> list[dict[str, Any]]:
    found = await audit.events(console(door, "tests"), {"target_id": target_id}, 100)
    events: list[dict[str, Any]] = found["data"]
    return events


async def test_a_key_opens_its_org_s_balance(person: Any) -> None:
    someone = await person()
    balance = await credits.balance(someone.at_the_door())
    assert balance == {
        "org_id": someone.org_id,
        "user_id": someone.user_id,
        "prefix": someone.secret[:12],
        "last_four": someone.secret[-4:],
        "environment": "live",
        "balance_nanos": 0,
        "held_nanos": 0,
        "plan": "free",
        "status": "active",
    }


async def test_seeding_again_changes_nothing(person: Any) -> None:
    someone = await person()
    again = await someone.seed()
    assert again["created"] is False
    assert len(await events_about(someone.door, someone.key_id)) == 1


async def test_seeding_at_once_makes_one_key(door: Door) -> None:
    someone = Person(door)
    seeded = await asyncio.gather(*(someone.seed() for _ in range(8)))
    assert sorted(one["created"] for one in seeded) == [False] * 7 + [True]
    assert len({one["id"] for one in seeded}) == 1


async def test_an_unknown_key_is_invalid(door: Door) -> None:
    assert isinstance(await refused(credits.balance(Person(door).at_the_door())), InvalidApiKey)


async def test_a_disabled_key_is_refused_until_it_is_enabled(door: Door, person: Any) -> None:
    someone = await person()
    await store.set_key_state(console(door, "tests"), someone.key_id, "disabled")
    error = await refused(credits.balance(someone.at_the_door()))
    assert isinstance(error, KeyDisabled)
    assert error.facts == {"key_id": someone.key_id, "disabled": "key"}
    await store.set_key_state(console(door, "tests"), someone.key_id, "active")
    assert await credits.balance(someone.at_the_door())


async def test_a_revoked_key_stays_revoked(door: Door, person: Any) -> None:
    someone = await person()
    await store.set_key_state(console(door, "tests"), someone.key_id, "revoked")
    error = await refused(credits.balance(someone.at_the_door()))
    assert isinstance(error, KeyRevoked)
    assert error.facts["revoked_at"].endswith("Z")
    for state in ("active", "disabled"):
        assert isinstance(await refused(store.set_key_state(console(door, "tests"), someone.key_id, state)), KeyIsFinal)


async def test_an_expired_key_is_refused_and_one_that_expires_later_is_not(person: Any) -> None:
    expired = await person(expires_at="2020-01-01T00:00:00Z")
    error = await refused(credits.balance(expired.at_the_door()))
    assert isinstance(error, KeyExpired)
    assert error.facts["expired_at"] == "2020-01-01T00:00:00.000Z"
    later = await person(expires_at="2999-01-01T00:00:00Z")
    assert await credits.balance(later.at_the_door())


@pytest.mark.parametrize(
    ("allowed", "ip", "opens"),
    [
        (["192.0.2.0/24"], "192.0.2.77", True),
        (["192.0.2.0/24"], "192.0.3.1", False),
        (["203.0.113.9/32", "2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["0.0.0.0/0"], "198.51.100.1", True),
        (["0.0.0.0/0"], None, False),
        ([], "198.51.100.1", False),
    ],
)
async def test_a_key_opens_only_from_its_networks(person: Any, allowed: list[str], ip: str | None, opens: bool) -> None:
    someone = await person(ip_allowlist=allowed)
    if opens:
        assert await credits.balance(someone.at_the_door(ip=ip))
    else:
        assert isinstance(await refused(credits.balance(someone.at_the_door(ip=ip))), IpNotAllowed)


async def test_a_member_s_key_does_not_open_what_is_an_admin_s(person: Any) -> None:
    member = await person()
    error = await refused(audit.events(member.at_the_door(), {}, 10))
    assert isinstance(error, PermissionDenied)
    assert error.facts == {"key_id": member.key_id, "scope": "admin"}


async def test_the_admin_scope_alone_does_not_make_an_admin(person: Any) -> None:
    member = await person(scopes=rules.ADMIN_SCOPES)
    assert isinstance(await refused(audit.events(member.at_the_door(), {}, 10)), PermissionDenied)


async def test_an_admin_s_key_without_the_scope_is_no_admin_s_key(person: Any) -> None:
    admin = await person("admin", scopes=rules.MEMBER_SCOPES)
    assert isinstance(await refused(audit.events(admin.at_the_door(), {}, 10)), PermissionDenied)


async def test_a_key_under_the_previous_pepper_still_opens_and_moves_to_the_new_one(person: Any) -> None:
    someone = await person(pepper=OLD_PEPPER)
    assert isinstance(await refused(credits.balance(someone.at_the_door())), InvalidApiKey)
    assert await credits.balance(someone.at_the_door(peppers=(PEPPER, OLD_PEPPER)))
    assert await credits.balance(someone.at_the_door(peppers=(PEPPER,)))


async def test_a_made_key_works_and_is_audited_with_who_made_it_and_no_secret(person: Any) -> None:
    someone = await person()
    second = Person(someone.door, scopes=["chat"], ip_allowlist=["10.0.0.0/8"])
    made = await store.create_key(someone.at_the_door(), someone.user_id, second.key)
    assert (await credits.balance(second.at_the_door(ip="10.1.1.1")))["org_id"] == someone.org_id
    (event,) = await events_about(someone.door, made["id"])
    assert (event["action"], event["outcome"], event["org_id"]) == ("key.created", "success", someone.org_id)
    assert event["actor"] == {"kind": "key", "key_id": someone.key_id, "user_id": someone.user_id}
    assert (event["ip"], event["user_agent"]) == ("192.0.2.1", "tests/1.0")
    assert event["request_id"] == f"req_{someone.number}"
    assert event["details"]["scopes"] == ["chat"]
    assert second.secret not in str(event)
    assert second.key["digest"] not in str(event)


async def test_a_key_never_gets_a_scope_that_its_maker_lacks(person: Any) -> None:
    maker = await person(scopes=["keys", "chat"])
    error = await refused(store.create_key(maker.at_the_door(), maker.user_id, stored(scopes=["chat", "usage"])))
    assert isinstance(error, PermissionDenied)
    assert error.facts["scopes"] == ["keys", "chat"]


async def test_a_member_makes_and_ends_keys_only_for_themself(person: Any) -> None:
    one, other = await person(), await person()
    assert isinstance(await refused(store.create_key(one.at_the_door(), other.user_id, stored())), NotFound)
    assert isinstance(await refused(store.set_key_state(one.at_the_door(), other.key_id, "revoked")), NotFound)
    assert await credits.balance(other.at_the_door())


async def test_an_admin_makes_and_ends_keys_for_anyone(person: Any) -> None:
    admin, other = await person("admin"), await person()
    assert (await store.create_key(admin.at_the_door(), other.user_id, stored()))["org_id"] == other.org_id
    await store.set_key_state(admin.at_the_door(), other.key_id, "revoked")
    assert isinstance(await refused(credits.balance(other.at_the_door())), KeyRevoked)


async def test_every_change_of_state_is_one_event_and_a_repetition_none(door: Door, person: Any) -> None:
    someone = await person()
    for state in ("disabled", "disabled", "active", "active", "revoked", "revoked"):
        await store.set_key_state(console(door, "tests"), someone.key_id, state)
    actions = [event["action"] for event in await events_about(door, someone.key_id)]
    assert actions == ["key.revoked", "key.enabled", "key.disabled", "key.created"]


async def test_a_change_that_is_refused_leaves_no_event(person: Any) -> None:
    someone = await person()
    assert isinstance(await refused(store.set_key_state(someone.at_the_door(), someone.key_id, "gone")), BadRequest)
    assert len(await events_about(someone.door, someone.key_id)) == 1


async def test_a_suspended_org_and_a_disabled_user_close_their_keys(
    person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await person()
    await sql(shared_database, "update tollgate.users set status = 'disabled' where id = $1", someone.user_id)
    assert (await refused(credits.balance(someone.at_the_door()))).facts["disabled"] == "user"
    await sql(shared_database, "update tollgate.users set status = 'active' where id = $1", someone.user_id)
    await sql(shared_database, "update tollgate.orgs set status = 'suspended' where id = $1", someone.org_id)
    assert (await refused(credits.balance(someone.at_the_door()))).facts["disabled"] == "org"


async def test_the_use_of_a_key_is_noted(person: Any, shared_database: str, sql: Callable[..., Any]) -> None:
    someone = await person()
    noted = "select last_used_at from tollgate.api_keys where id = $1"
    assert await sql(shared_database, noted, someone.key_id) is None
    await credits.balance(someone.at_the_door())
    first = await sql(shared_database, noted, someone.key_id)
    assert first is not None
    await credits.balance(someone.at_the_door())
    assert await sql(shared_database, noted, someone.key_id) == first


async def test_a_key_that_another_transaction_holds_still_opens(person: Any, shared_database: str) -> None:
    """Recording the use of a key must not make its next request wait."""
    someone = await person()
    holder = await asyncpg.connect(shared_database)
    async with holder.transaction():
        await holder.execute("select 1 from tollgate.api_keys where id = $1 for update", someone.key_id)
        assert await credits.balance(someone.at_the_door())
    await holder.close()
