"""No key can create, change or rotate a key so that it may do more than itself."""

import asyncio
import secrets
from fnmatch import fnmatchcase
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway import BOTH_DOORS, ONE_DOOR
from people import PEPPER, Person, refused
from tollgate.core.errors import PermissionDenied
from tollgate.keys import rules, store
from tollgate.keys.authentication import console

pytestmark = BOTH_DOORS

LATER, LATEST = "2900-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"


def made(environment: Any = "live", **key: Any) -> dict[str, Any]:
    secret = rules.mint(environment, secrets.token_bytes(32))
    return rules.imprint(secret, PEPPER) | {"name": "Second", "scopes": ["chat"], **key}


def imprints() -> dict[str, Any]:
    return {name: rules.imprint(rules.mint(name, secrets.token_bytes(32)), PEPPER) for name in rules.PREFIXES}


async def narrow(person: Any, role: str = "member", scopes: Any = rules.MEMBER_SCOPES, **terms: Any) -> Person:
    """A person whose key has these terms, and their door."""
    someone: Person = await person(role, scopes=scopes)
    await store.change_key(console(someone.door, "tests"), someone.key_id, terms)
    return someone


async def denied(work: Any) -> Any:
    """The term in the refusal."""
    error = await refused(work)
    assert type(error) is PermissionDenied, error
    return error.param


@ONE_DOOR
@pytest.mark.parametrize(
    ("maker", "wider", "within"),
    [
        ({"scopes": ["keys", "chat"]}, {"scopes": ["chat", "usage"]}, {"scopes": ["chat"]}),
        ({"allowed_models": ["openai/*"]}, {"allowed_models": ["*"]}, {"allowed_models": ["openai/gpt-*"]}),
        ({"allowed_models": ["openai/*"]}, {}, {"allowed_models": ["openai/*"]}),
        (
            {"allowed_models": ["a/*", "b/c"]},
            {"allowed_models": ["a/x", "b/d"]},
            {"allowed_models": ["b/c", "a/*/z"]},
        ),
        ({"allowed_models": ["a/_"]}, {"allowed_models": ["a/b"]}, {"allowed_models": ["a/_"]}),
        ({"ip_allowlist": ["192.0.0.0/16"]}, {"ip_allowlist": ["192.0.0.0/8"]}, {"ip_allowlist": ["192.0.2.0/24"]}),
        ({"ip_allowlist": ["192.0.0.0/16"]}, {}, {"ip_allowlist": ["192.0.0.0/16"]}),
        (
            {"ip_allowlist": ["192.0.2.0/24", "2001:db8::/32"]},
            {"ip_allowlist": ["::/0"]},
            {"ip_allowlist": ["2001:db8:1::/48", "192.0.2.9/32"]},
        ),
        ({"expires_at": LATER}, {"expires_at": LATEST}, {"expires_at": LATER}),
        ({"expires_at": LATER}, {}, {"expires_at": "2800-01-01T00:00:00.000Z"}),
    ],
)
async def test_a_key_makes_only_keys_within_its_own_terms(
    person: Any, shared_database: str, sql: Any, maker: Any, wider: Any, within: Any
) -> None:
    someone = await narrow(person, **maker)
    (term,) = maker
    assert await denied(store.create_key(someone.at_the_door(), None, made(**wider))) == term
    count = "select count(*) from tollgate.api_keys where user_id = $1"
    assert await sql(shared_database, count, someone.user_id) == 1
    assert (await store.create_key(someone.at_the_door(), None, made(**within)))["user_id"] == someone.user_id


async def test_a_test_key_makes_test_keys_only(person: Any) -> None:
    someone = await person(environment="test")
    assert await denied(store.create_key(someone.at_the_door(), None, made())) == "environment"
    shown = (await store.create_key(someone.at_the_door(), None, made("test")))["key"]
    assert shown["environment"] == "test"
    live = await person()
    assert (await store.create_key(live.at_the_door(), None, made("test")))["id"]


@pytest.mark.parametrize(
    ("terms", "term"),
    [
        ({"budget_nanos": 100}, "budget_nanos"),
        ({"tokens_per_month": 100}, "tokens_per_month"),
        ({"tokens_in_all": 100}, "tokens_in_all"),
        ({"max_concurrent_requests": 3}, "max_concurrent_requests"),
        ({"limits": {"requests_per_day": 100}}, "limits"),
    ],
)
async def test_what_is_used_up_cannot_be_multiplied_by_making_keys(person: Any, terms: Any, term: str) -> None:
    """Otherwise a key could create ten keys with a tenth of its budget each, again and again."""
    someone = await narrow(person, **terms)
    tenth = {"budget_nanos": 10, "tokens_per_month": 10, "tokens_in_all": 10, "limits": {"requests_per_day": 10}}
    for wanted in ({}, terms, tenth):
        assert await denied(store.create_key(someone.at_the_door(), None, made(**wanted))) == term


CHANGES = [
    ({"scopes": ["keys", "chat"]}, {"scopes": ["keys", "chat", "usage"]}, {"scopes": ["keys"]}),
    ({"allowed_models": ["a/*"]}, {"allowed_models": None}, {"allowed_models": ["a/b"]}),
    ({"ip_allowlist": ["192.0.2.0/24"]}, {"ip_allowlist": None}, {"ip_allowlist": ["192.0.2.1/32"]}),
    ({"expires_at": LATER}, {"expires_at": None}, {"expires_at": "2800-01-01T00:00:00.000Z"}),
    ({"budget_nanos": 100}, {"budget_nanos": 101}, {"budget_nanos": 99}),
    ({"budget_nanos": 100}, {"budget_nanos": None}, {"budget_nanos": 0}),
    ({"budget_nanos": 100}, {"budget_reset": "daily"}, {"budget_nanos": 100}),
    ({"tokens_per_month": 100}, {"tokens_per_month": 101}, {"tokens_per_month": 99}),
    ({"tokens_in_all": 100}, {"tokens_in_all": None}, {"tokens_in_all": 99}),
    ({"max_concurrent_requests": 3}, {"max_concurrent_requests": None}, {"max_concurrent_requests": 2}),
    (
        {"limits": {"requests_per_day": 9}},
        {"limits": {"requests_per_day": 10}},
        {"limits": {"requests_per_day": 8, "tokens_per_day": 5}},
    ),
    ({"limits": {"requests_per_day": 9}}, {"limits": None}, {"name": "Else"}),
]


@ONE_DOOR
@pytest.mark.parametrize(("terms", "wider", "narrower"), CHANGES)
async def test_no_key_widens_itself_and_every_key_may_narrow_itself(
    person: Any, terms: Any, wider: Any, narrower: Any
) -> None:
    someone = await narrow(person, **terms)
    (term,) = terms
    assert await denied(store.change_key(someone.at_the_door(), someone.key_id, wider)) == term
    shown = (await store.change_key(someone.at_the_door(), someone.key_id, narrower))["key"]
    assert {name: shown[name] for name in narrower if name != "limits"} == {
        name: value for name, value in narrower.items() if name != "limits"
    }


@ONE_DOOR
@pytest.mark.parametrize(("terms", "wider", "narrower"), CHANGES)
async def test_no_key_widens_another_beyond_itself(person: Any, terms: Any, wider: Any, narrower: Any) -> None:
    someone = await narrow(person, **terms)
    (term,) = terms
    other = await store.create_key(
        console(someone.door, "tests"), someone.user_id, made(**{"scopes": ["keys"], **terms})
    )
    assert await denied(store.change_key(someone.at_the_door(), other["id"], wider)) == term
    assert (await store.change_key(someone.at_the_door(), other["id"], narrower))["key"]["id"] == other["id"]


async def test_a_key_with_a_budget_cannot_raise_a_smaller_one_to_its_own(person: Any) -> None:
    someone = await narrow(person, budget_nanos=100)
    small = await store.create_key(console(someone.door, "tests"), someone.user_id, made(budget_nanos=10))
    assert await denied(store.change_key(someone.at_the_door(), small["id"], {"budget_nanos": 20})) == "budget_nanos"


async def test_a_key_may_rename_and_narrow_one_that_is_wider(person: Any) -> None:
    someone = await narrow(person, scopes=["keys"], allowed_models=["a/*"])
    wide = await store.create_key(console(someone.door, "tests"), someone.user_id, made(scopes=["chat", "usage"]))
    changed = await store.change_key(someone.at_the_door(), wide["id"], {"name": "Renamed", "scopes": ["usage"]})
    assert changed["key"]["scopes"] == ["usage"]


@pytest.mark.parametrize(
    ("terms", "term"),
    [
        ({"scopes": ["keys"]}, "scopes"),
        ({"allowed_models": ["a/*"]}, "allowed_models"),
        ({"ip_allowlist": ["192.0.2.0/24"]}, "ip_allowlist"),
        ({"expires_at": LATER}, "expires_at"),
        ({"budget_nanos": 100}, "budget_nanos"),
    ],
)
async def test_no_key_gets_the_secret_of_a_wider_one_by_rotating_it(person: Any, terms: Any, term: str) -> None:
    someone = await narrow(person, **terms)
    wide = await store.create_key(console(someone.door, "tests"), someone.user_id, made())
    assert await denied(store.rotate_key(someone.at_the_door(), wide["id"], 0, imprints())) == term
    own = await store.rotate_key(someone.at_the_door(), someone.key_id, 0, imprints())
    assert own["key"]["rotated_from"] == someone.key_id


async def test_a_member_manages_own_keys_only_not_even_a_colleague_s(
    person: Any, shared_database: str, sql: Any
) -> None:
    one, other = await person(), await person()
    await sql(shared_database, "update tollgate.users set org_id = $1 where id = $2", one.org_id, other.user_id)
    door = one.at_the_door()
    random = "key_0000000000000000000000000000"
    for key_id in (other.key_id, random):
        for work in (
            store.key(door, key_id),
            store.change_key(door, key_id, {"name": "Mine"}),
            store.rotate_key(door, key_id, 0, imprints()),
            store.set_key_state(door, key_id, "revoked"),
        ):
            error = await refused(work)
            assert (error.code, error.facts) == ("not_found", {"kind": "key", "id": key_id})
    assert (await store.key(other.at_the_door(), other.key_id))["key"]["org_id"] == one.org_id


async def test_an_operator_grants_others_anything_but_not_themself(person: Any) -> None:
    operator = await narrow(person, "admin", ["keys", "admin"], ip_allowlist=["192.0.2.0/24"], budget_nanos=1)
    someone = await person()
    door = operator.at_the_door()
    others = await store.create_key(door, someone.user_id, made(scopes=["chat", "usage"]), "admin")
    assert (await store.change_key(door, others["id"], {"budget_nanos": 50}, "admin"))["key"]["budget_nanos"] == 50
    assert (await store.rotate_key(door, others["id"], 0, imprints(), "admin"))["key"]["rotated_from"] == others["id"]
    assert await denied(store.create_key(door, None, made(scopes=["keys"]), "admin")) == "ip_allowlist"
    assert await denied(store.change_key(door, operator.key_id, {"ip_allowlist": None}, "admin")) == "ip_allowlist"


async def test_at_the_operators_desk_only_operators_are_served(person: Any) -> None:
    someone, disarmed = await person(), await person("admin", scopes=rules.MEMBER_SCOPES)
    for caller in (someone, disarmed):
        door = caller.at_the_door()
        for work in (
            store.keys(door, {}, 10, "admin"),
            store.key(door, caller.key_id, "admin"),
            store.create_key(door, None, made(), "admin"),
            store.change_key(door, caller.key_id, {"name": "Mine"}, "admin"),
            store.rotate_key(door, caller.key_id, 0, imprints(), "admin"),
            store.set_key_state(door, caller.key_id, "disabled", "admin"),
        ):
            error = await refused(work)
            assert (error.code, error.facts["scope"]) == ("permission_denied", "admin")


async def test_managing_takes_the_scope_keys(person: Any) -> None:
    someone = await person(scopes=["chat"])
    door = someone.at_the_door()
    for work in (
        store.keys(door, {}, 10),
        store.key(door, someone.key_id),
        store.create_key(door, None, made()),
        store.change_key(door, someone.key_id, {"name": "Mine"}),
        store.rotate_key(door, someone.key_id, 0, imprints()),
        store.set_key_state(door, someone.key_id, "disabled"),
        store.key_events(door, {}, 10),
    ):
        error = await refused(work)
        assert (error.code, error.facts["scope"]) == ("permission_denied", "keys")


Letters = some.text("ab/_%\\*", max_size=6)


@given(inner=Letters, outer=Letters, fillings=some.lists(some.text("ab/_%\\", max_size=3), min_size=7, max_size=7))
@settings(max_examples=150)
def test_what_a_pattern_within_another_fits_the_other_fits_too(
    shared_database: str, inner: str, outer: str, fillings: list[str]
) -> None:
    async def ask() -> tuple[bool, bool]:
        connection = await asyncpg.connect(shared_database)
        within = await connection.fetchval("select tollgate.models_within($1, $2)", [inner], [outer])
        parts = inner.split("*")
        model = parts[0] + "".join(fill + part for fill, part in zip(fillings, parts[1:], strict=False))
        fits = await connection.fetchval("select tollgate.model_allowed($1, $2)", [outer], model)
        await connection.close()
        return within, fits

    within, fits = asyncio.run(ask())
    assert fits or not within
    if "*" not in inner:
        literal = outer.replace("\\", "[\\]")
        assert within == fits == fnmatchcase(inner, literal)
