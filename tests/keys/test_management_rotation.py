"""Rotation: two valid secrets during the hours of grace, with one shared budget."""

import asyncio
import secrets
from typing import Any

import pytest

from gateway import BOTH_DOORS
from people import PEPPER, Person, refused
from tollgate.audit import store as audit
from tollgate.core.errors import Conflict, InvalidApiKey, KeyExpired, KeyIsFinal, KeyRevoked
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import CallerDoor, console
from turns import not_at_the_end_of

pytestmark = BOTH_DOORS

HOLD = 21_000  # of an item below: 20,000 and 5 %


class Rotated:
    """The result of a rotation: a person's new key, and its door."""

    def __init__(self, door: Door, secret: str, found: dict[str, Any]) -> None:
        self.secret = secret
        self.key_id = found["key"]["id"]
        self.shown = found["key"]
        self.old_valid_until = found["old_valid_until"]
        self.digest = rules.digest(secret, PEPPER)
        self.door = CallerDoor(door, caller_of(self.digest))


def caller_of(digest: str) -> dict[str, Any]:
    return {"digests": [digest], "pepper": rules.fingerprint(PEPPER), "ip": "192.0.2.1"}


async def rotate(someone: Person, grace_hours: int, by: Door | None = None, key_id: str | None = None) -> Rotated:
    struck = {name: rules.mint(name, secrets.token_bytes(32)) for name in rules.PREFIXES}
    imprints = {name: rules.imprint(secret, PEPPER) for name, secret in struck.items()}
    found = await store.rotate_key(by or someone.at_the_door(), key_id or someone.key_id, grace_hours, imprints, "keys")
    return Rotated(someone.door, struck[found["key"]["environment"]], found)


async def bounded(customer: Any, door: Door, **terms: Any) -> Person:
    someone: Person = await customer()
    await store.change_key(console(door, "tests"), someone.key_id, terms)
    return someone


def item(digest: str) -> dict[str, Any]:
    return {
        "id": f"req_{secrets.token_hex(12)}",
        "caller": caller_of(digest),
        "scope": "chat",
        "endpoint": "chat",
        "model": "maker/model",
        "models": ["maker/model"],
        "streamed": False,
        "fixed_nanos": "0",
        "output_nanos": "1000",
        "output_bound": 20,
        "least_output": 16,
        "most_output": 100,
        "choices": 1,
        "prompt_tokens": 10,
        "markup_ppm": 50_000,
        "ttl_seconds": 600,
        "price": {},
    }


async def admit(door: Door, *digests: str) -> list[tuple[str, str]]:
    """The id of each request with `granted` or the code of its refusal."""
    items = [item(digest) for digest in digests]
    answers = await door.call("tollgate_admit", items=items)
    return [
        (one["id"], "granted" if "granted" in answers[one["id"]] else answers[one["id"]]["refusal"]["code"])
        for one in items
    ]


async def settle(door: Door, request_id: str, charge: int, tokens: int = 15) -> None:
    done = {"outcome": "settled", "charge_nanos": charge, "cost_nanos": charge, "prompt_tokens": 10}
    await door.call("tollgate_settle", items=[{"id": request_id, **done, "completion_tokens": tokens - 10}])


async def shown(someone: Person, key_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await store.key(console(someone.door, "tests"), key_id))["key"]
    return found


async def test_the_new_secret_opens_and_the_old_one_for_the_grace(person: Any, shared_database: str, sql: Any) -> None:
    someone = await person()
    new = await rotate(someone, 24)
    assert (await credits.balance(new.door))["org_id"] == someone.org_id
    assert await credits.balance(someone.at_the_door())
    left = """
        select expires_at - now() between interval '23 h 30 min' and interval '24 h'
        from tollgate.api_keys where id = $1
    """
    assert await sql(shared_database, left, someone.key_id) is True
    past = "update tollgate.api_keys set expires_at = now() where id = $1"  # as time does
    await sql(shared_database, past, someone.key_id)
    assert isinstance(await refused(credits.balance(someone.at_the_door())), KeyExpired)
    assert await credits.balance(new.door)


async def test_without_grace_the_secrets_of_earlier_rotations_are_refused_too(person: Any) -> None:
    someone = await person()
    second = await rotate(someone, 24)
    third = await rotate(someone, 0, second.door, second.key_id)
    for old in (someone.at_the_door(), second.door):
        assert isinstance(await refused(credits.balance(old)), KeyExpired)
    assert await credits.balance(third.door)


async def test_without_grace_the_old_secret_is_refused_at_once(person: Any) -> None:
    someone = await person()
    new = await rotate(someone, 0)
    assert isinstance(await refused(credits.balance(someone.at_the_door())), KeyExpired)
    assert (await admit(someone.door, someone.key["digest"]))[0][1] == "key_expired"
    assert await credits.balance(new.door)


async def test_the_new_key_has_all_that_the_old_one_may(person: Any) -> None:
    someone = await person(expires_at="2999-01-01T00:00:00.000Z", ip_allowlist=["192.0.2.0/24"])
    terms = {"allowed_models": ["a/*"], "budget_nanos": 7, "budget_reset": "daily", "tokens_in_all": 9}
    await store.change_key(
        someone.at_the_door(), someone.key_id, {**terms, "limits": {"tokens_per_day": 8}, "metadata": {"a": 1}}
    )
    before = await shown(someone, someone.key_id)
    new = await rotate(someone, 1)
    same = set(before) - {"id", "prefix", "last_four", "created_at", "updated_at", "last_used_at", "rotated_from"}
    assert {name: new.shown[name] for name in same} == {name: before[name] for name in same}
    assert new.shown["rotated_from"] == someone.key_id
    assert (await shown(someone, someone.key_id))["rotated_to"] == new.key_id
    assert new.secret.startswith(new.shown["prefix"])
    assert new.secret.endswith(new.shown["last_four"])


async def test_a_test_key_stays_one(person: Any) -> None:
    new = await rotate(await person(environment="test"), 1)
    assert new.secret.startswith("tg_test_")
    assert new.shown["environment"] == "test"


async def test_grace_does_not_outlast_the_key(person: Any, shared_database: str, sql: Any) -> None:
    someone = await person()
    soon = "update tollgate.api_keys set expires_at = now() + interval '1 hour' where id = $1"
    await sql(shared_database, soon, someone.key_id)
    new = await rotate(someone, 24)
    assert new.old_valid_until == new.shown["expires_at"]


async def test_both_sides_are_audited_without_a_secret(person: Any) -> None:
    someone = await person()
    new = await rotate(someone, 3)
    teller = console(someone.door, "tests")
    old = (await audit.events(teller, {"target_id": someone.key_id}, 10))["data"]
    assert [event["action"] for event in old] == ["key.rotated", "key.created"]
    assert old[0]["details"] == {"rotated_to": new.key_id, "grace_hours": 3, "valid_until": new.old_valid_until}
    (made,) = (await audit.events(teller, {"target_id": new.key_id}, 10))["data"]
    assert (made["action"], made["details"]["rotated_from"]) == ("key.created", someone.key_id)
    assert made["actor"] == {"kind": "key", "key_id": someone.key_id, "user_id": someone.user_id}
    for hidden in (new.secret, new.digest, someone.secret, someone.key["digest"]):
        assert hidden not in str([*old, made])


async def test_a_key_is_rotated_once(person: Any) -> None:
    someone = await person()
    done = await asyncio.gather(*(rotate(someone, 24) for _ in range(6)), return_exceptions=True)
    (new,) = [one for one in done if isinstance(one, Rotated)]
    for error in done:
        assert error is new or (isinstance(error, Conflict) and error.facts["rotated_to"] == new.key_id)
    error = await refused(store.change_key(new.door, someone.key_id, {"name": "Else"}))
    assert (type(error), error.facts["rotated_to"]) == (Conflict, new.key_id)


async def test_an_ended_key_is_not_rotated(person: Any, shared_database: str, sql: Any) -> None:
    someone, teller = await person(), await person()
    by = console(teller.door, "tests")
    await sql(shared_database, "update tollgate.api_keys set expires_at = now() where id = $1", someone.key_id)
    assert "expired_at" in (await refused(rotate(someone, 1, by))).facts
    await store.set_key_state(by, someone.key_id, "revoked")
    assert isinstance(await refused(rotate(someone, 1, by)), KeyIsFinal)


async def test_a_disabled_key_is_not_enabled_by_rotating_it(person: Any) -> None:
    someone = await person()
    by = console(someone.door, "tests")
    await store.set_key_state(by, someone.key_id, "disabled")
    new = await rotate(someone, 1, by)
    assert new.shown["status"] == "disabled"
    await store.set_key_state(by, new.key_id, "active")
    assert await credits.balance(new.door)
    assert await credits.balance(someone.at_the_door())  # its grace runs, and what befalls the one befalls the other


async def test_ending_the_new_key_ends_the_grace_and_ending_the_old_one_alone_does_not_end_the_new(person: Any) -> None:
    someone = await person()
    second = await rotate(someone, 24)
    third = await rotate(someone, 24, second.door, second.key_id)
    await store.set_key_state(third.door, someone.key_id, "revoked")
    assert isinstance(await refused(credits.balance(someone.at_the_door())), KeyRevoked)
    assert await credits.balance(second.door)
    await store.set_key_state(third.door, third.key_id, "revoked")
    for door in (second.door, third.door):
        assert isinstance(await refused(credits.balance(door)), KeyRevoked)
    for key_id in (second.key_id, third.key_id):
        events = (await audit.events(console(someone.door, "tests"), {"target_id": key_id}, 10))["data"]
        assert events[0]["action"] == "key.revoked"


async def test_a_narrowed_key_narrows_its_grace(person: Any) -> None:
    someone = await person()
    new = await rotate(someone, 24)
    await store.change_key(new.door, new.key_id, {"scopes": ["keys"], "expires_at": "2999-01-01T00:00:00Z"})
    old = await shown(someone, someone.key_id)
    assert old["scopes"] == ["keys"]
    assert old["expires_at"] == new.old_valid_until


async def test_a_budget_is_spent_once_whichever_secret_spends_it(customer: Any, door: Door) -> None:
    someone = await bounded(customer, door, budget_nanos=5 * HOLD)
    await admit(door, someone.key["digest"])
    new = await rotate(someone, 24)
    answers = await admit(door, *([someone.key["digest"], new.digest] * 4))
    assert sorted(code for _, code in answers) == ["granted"] * 4 + ["key_budget_exhausted"] * 4
    for key_id in (someone.key_id, new.key_id):
        assert (await shown(someone, key_id))["budget_spent_nanos"] == 5 * HOLD


async def test_both_secrets_at_once_from_many_clients_share_one_purse(customer: Any, door: Door) -> None:
    someone = await bounded(customer, door, budget_nanos=7 * HOLD, tokens_in_all=10_000)
    new = await rotate(someone, 24)
    answers = await asyncio.gather(*(admit(door, digest) for digest in [someone.key["digest"], new.digest] * 10))
    assert sum(code == "granted" for ((_, code),) in answers) == 7
    await asyncio.gather(*(settle(door, one, 1_000) for ((one, code),) in answers if code == "granted"))
    for key_id in (someone.key_id, new.key_id):
        found = await shown(someone, key_id)
        assert (found["budget_spent_nanos"], found["tokens_used_in_all"]) == (7_000, 7 * 15)


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"tokens_per_month": 90}, "quota_exhausted"),
        ({"tokens_in_all": 90}, "quota_exhausted"),
        ({"limits": {"requests_per_hour": 3}}, "rate_limit_exceeded"),
        ({"limits": {"tokens_per_day": 90}}, "rate_limit_exceeded"),
    ],
)
async def test_quotas_and_limits_are_used_up_together(customer: Any, door: Door, terms: Any, code: str) -> None:
    await not_at_the_end_of("day")
    someone = await bounded(customer, door, **terms)
    await admit(door, someone.key["digest"])
    new = await rotate(someone, 24)
    answers = await admit(door, new.digest, someone.key["digest"], new.digest, someone.key["digest"])
    assert sorted(answer for _, answer in answers) == sorted(["granted"] * 2 + [code] * 2)


@pytest.mark.parametrize("grace", [0, 24])
async def test_a_request_that_ran_while_its_key_was_rotated_gives_back_what_it_did_not_cost(
    customer: Any, door: Door, grace: int
) -> None:
    someone = await bounded(customer, door, budget_nanos=2 * HOLD, limits={"tokens_per_day": 100})
    ((running, _),) = await admit(door, someone.key["digest"])
    new = await rotate(someone, grace)
    assert (await shown(someone, new.key_id))["budget_spent_nanos"] == HOLD
    await settle(door, running, 500)
    found = await shown(someone, new.key_id)
    assert (found["budget_spent_nanos"], found["tokens_used_in_all"]) == (500, 15)
    assert (await admit(door, new.digest))[0][1] == "granted"


async def test_a_key_that_ended_long_ago_does_not_turn_back_the_purse(
    customer: Any, door: Door, shared_database: str, sql: Any
) -> None:
    someone = await bounded(customer, door, budget_nanos=9 * HOLD)
    ((running, _),) = await admit(door, someone.key["digest"])
    new = await rotate(someone, 0)
    long_ago = "update tollgate.api_keys set expires_at = now() - interval '2 days' where id = $1"
    await sql(shared_database, long_ago, someone.key_id)
    await admit(door, new.digest, new.digest)
    await settle(door, running, 500)
    assert (await shown(someone, new.key_id))["budget_spent_nanos"] == 3 * HOLD


async def test_a_line_of_three_is_one_purse_too(customer: Any, door: Door) -> None:
    someone = await bounded(customer, door, budget_nanos=4 * HOLD)
    second = await rotate(someone, 100)
    third = await rotate(someone, 100, second.door, second.key_id)
    answers = await admit(door, *([someone.key["digest"], second.digest, third.digest] * 2))
    assert sum(code == "granted" for _, code in answers) == 4


async def test_a_line_has_ten_secrets_at_most(person: Any) -> None:
    someone = await person()
    last = await rotate(someone, 24)
    for _ in range(8):
        last = await rotate(someone, 24, last.door, last.key_id)
    error = await refused(rotate(someone, 24, last.door, last.key_id))
    assert (type(error), error.facts["secrets"]) == (Conflict, 10)
    assert await credits.balance(last.door)


async def test_a_budget_that_comes_while_requests_run_counts_them(customer: Any, door: Door) -> None:
    """Otherwise settling them would return credits that were never taken, and the budget could be exceeded."""
    someone = await customer()
    ((running, _),) = await admit(door, someone.key["digest"])
    by = console(door, "tests")
    await store.change_key(by, someone.key_id, {"budget_nanos": 2 * HOLD, "limits": {"tokens_per_day": 60}})
    answers = await admit(door, *[someone.key["digest"]] * 2)
    assert sorted(code for _, code in answers) == ["granted", "key_budget_exhausted"]
    await settle(door, running, 500)
    found = await shown(someone, someone.key_id)
    assert (found["budget_spent_nanos"], found["tokens_used_in_all"]) == (HOLD + 500, 45)
    assert (await admit(door, someone.key["digest"]))[0][1] == "key_budget_exhausted"


async def test_a_changed_reset_begins_a_new_period_with_what_is_running(customer: Any, door: Door) -> None:
    await not_at_the_end_of("day")
    someone = await bounded(customer, door, budget_nanos=5 * HOLD, budget_reset="monthly")
    (done, _), _ = await admit(door, *[someone.key["digest"]] * 2)
    await settle(door, done, 500)
    by = console(door, "tests")
    found = (await store.change_key(by, someone.key_id, {"budget_reset": "daily"}))["key"]
    assert found["budget_spent_nanos"] == HOLD
    found = (await store.change_key(by, someone.key_id, {"budget_nanos": 6 * HOLD}))["key"]
    assert found["budget_spent_nanos"] == HOLD


async def test_an_old_secret_cannot_prolong_itself(person: Any) -> None:
    someone = await person()
    await rotate(someone, 24)
    for work in (
        store.change_key(someone.at_the_door(), someone.key_id, {"expires_at": None}),
        rotate(someone, 168),
        store.create_key(someone.at_the_door(), None, rules.stored("x" * 20, PEPPER, name="x", scopes=["chat"])),
    ):
        assert (await refused(work)).code in ("conflict", "permission_denied")


async def test_changes_and_requests_of_one_line_never_wait_in_a_circle(customer: Any, door: Door) -> None:
    someone = await bounded(customer, door, budget_nanos=1000 * HOLD)
    new = await rotate(someone, 24)

    async def spend(digest: str) -> None:
        for _ in range(6):
            ((request_id, code),) = await admit(door, digest)
            assert code == "granted"
            await settle(door, request_id, 100)

    async def change() -> None:
        for turn in range(6):
            await store.change_key(new.door, new.key_id, {"name": f"Turn {turn}"})
            await store.set_key_state(console(door, "tests"), new.key_id, "active")

    await asyncio.gather(spend(someone.key["digest"]), spend(new.digest), spend(new.digest), change(), change())
    assert (await shown(someone, someone.key_id))["budget_spent_nanos"] == 18 * 100


async def test_an_unknown_secret_stays_unknown(person: Any) -> None:
    someone = await person()
    new = await rotate(someone, 24)
    stranger = CallerDoor(someone.door, caller_of(rules.digest(f"{new.secret}x", PEPPER)))
    assert isinstance(await refused(credits.balance(stranger)), InvalidApiKey)
