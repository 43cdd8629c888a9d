"""The terms of a key: the database refuses invalid ones with the name of the field."""

import secrets
from typing import Any

import pytest

from gateway import BOTH_DOORS, ONE_DOOR
from people import PEPPER, Person, refused
from tollgate.core.errors import BadRequest, Conflict, PermissionDenied
from tollgate.keys import rules, store
from turns import not_at_the_end_of

pytestmark = BOTH_DOORS

MALFORMED = [
    ("name", ""),
    ("name", "x" * 201),
    ("name", "two\nlines"),
    ("name", None),
    ("scopes", None),
    ("scopes", "chat"),
    ("scopes", ["chat", "everything"]),
    ("scopes", ["chat", 7]),
    ("scopes", {"chat": True}),
    ("allowed_models", "*"),
    ("allowed_models", ["two words"]),
    ("allowed_models", [None]),
    ("allowed_models", ["m"] * 101),
    ("ip_allowlist", "10.0.0.0/8"),
    ("ip_allowlist", ["10.0.0.5/8"]),
    ("ip_allowlist", ["2001:db8::1/32"]),
    ("ip_allowlist", ["10.0.0.0/33"]),
    ("ip_allowlist", ["::1/129"]),
    ("ip_allowlist", ["here"]),
    ("ip_allowlist", ["dead"]),
    ("ip_allowlist", [["10.0.0.0/8"]]),
    ("expires_at", "2020-01-01T00:00:00Z"),
    ("expires_at", "2999-02-30T00:00:00Z"),
    ("expires_at", "2999-01-01T00:00:00+99:99"),
    ("expires_at", 32503680000),
    ("budget_nanos", -1),
    ("budget_nanos", 0.5),
    ("budget_nanos", 1e300),
    ("budget_nanos", True),
    ("budget_reset", "hourly"),
    ("budget_reset", 1),
    ("budget_reset", "daily"),  # without a budget
    ("tokens_per_month", -1),
    ("tokens_per_month", 10**16),
    ("tokens_in_all", [1]),
    ("quota_reset_day", 0),
    ("quota_reset_day", 29),
    ("max_concurrent_requests", -1),
    ("max_concurrent_requests", "many"),
    ("limits", 60),
    ("limits", {"requests_per_minute": -1}),
    ("limits", {"requests_per_minute": "many"}),
    ("limits", {"tokens_per_day": 10**12}),
    ("metadata", "team"),
    ("metadata", ["team"]),
    ("metadata", {"team": {"of": "five"}}),
    ("metadata", {"team": None}),
    ("metadata", {"": 1}),
    ("metadata", {"team": "x" * 501}),
    ("metadata", {str(number): number for number in range(17)}),
    ("role", "admin"),
    ("org_id", "org_other"),
    ("budget_spent_nanos", -5),
    ("rotated_from", "key_other"),
]

MALFORMED_IMPRINTS = [
    ("digest", "ab"),
    ("digest", "zz" * 32),
    ("digest", None),
    ("pepper", "x"),
    ("prefix", ""),
    ("prefix", "x" * 17),
    ("last_four", "abc"),
    ("environment", "staging"),
    ("environment", None),
]


def made(**key: Any) -> dict[str, Any]:
    secret = rules.mint("live", secrets.token_bytes(32))
    return rules.imprint(secret, PEPPER) | {"name": "Second", "scopes": ["chat"], **key}


def field_of(error: BadRequest) -> str:
    return str(error.param).split(".")[0]


@ONE_DOOR
@pytest.mark.parametrize(("field", "value"), [*MALFORMED, *MALFORMED_IMPRINTS])
async def test_a_malformed_value_makes_no_key_and_is_refused_by_name(
    person: Any, shared_database: str, sql: Any, field: str, value: Any
) -> None:
    someone = await person()
    error = await refused(store.create_key(someone.at_the_door(), None, made(**{field: value})))
    assert type(error) is BadRequest
    assert field_of(error) == field
    count = "select count(*) from tollgate.api_keys where user_id = $1"
    assert await sql(shared_database, count, someone.user_id) == 1


@ONE_DOOR
@pytest.mark.parametrize(("field", "value"), [*MALFORMED, *(imprint for imprint in MALFORMED_IMPRINTS[:1])])
async def test_a_malformed_change_changes_nothing(
    person: Any, shared_database: str, sql: Any, field: str, value: Any
) -> None:
    someone = await person()
    row = "select to_jsonb(k) - 'last_used_at' from tollgate.api_keys k where id = $1"
    before = await sql(shared_database, row, someone.key_id)
    error = await refused(store.change_key(someone.at_the_door(), someone.key_id, {"name": "New", field: value}))
    assert type(error) is BadRequest
    assert field_of(error) == field
    assert await sql(shared_database, row, someone.key_id) == before


async def test_a_secret_is_one_key(person: Any) -> None:
    someone = await person()
    again = someone.key | {"name": "Again"}
    fields = {name: value for name, value in again.items() if value is not None}
    error = await refused(store.create_key(someone.at_the_door(), None, fields))
    assert isinstance(error, Conflict)
    assert someone.key["digest"] not in str(error.facts)


async def test_all_terms_are_kept_and_shown(person: Any) -> None:
    someone = await person()
    terms = {
        "name": "Büro 7",
        "scopes": ["usage", "chat"],
        "allowed_models": ["openai/*", "sandbox/echo"],
        "ip_allowlist": ["192.0.2.7/32", "2001:db8::/32"],
        "expires_at": "2999-01-01T00:00:00.000Z",
        "budget_nanos": 5,
        "budget_reset": "weekly",
        "tokens_per_month": 1000,
        "tokens_in_all": 5000,
        "quota_reset_day": 28,
        "metadata": {"team": "five", "size": 5, "on": True, "share": 0.5},
    }
    limits = {"requests_per_minute": 0, "tokens_per_day": 10**11}
    shown = (await store.create_key(someone.at_the_door(), None, made(**terms, limits=limits)))["key"]
    assert {name: shown[name] for name in terms} == terms
    assert {name: value for name, value in shown["limits"].items() if value is not None} == limits
    assert not {"digest", "pepper"} & set(shown)


async def test_what_is_left_out_stays_and_null_clears(person: Any) -> None:
    someone = await person()
    door = someone.at_the_door()
    terms = {"allowed_models": ["a/*"], "budget_nanos": 5, "limits": {"requests_per_day": 3, "tokens_per_day": 4}}
    key_id = (await store.create_key(door, None, made(**terms, metadata={"a": 1, "b": 2})))["id"]

    async def change(**changes: Any) -> dict[str, Any]:
        found: dict[str, Any] = (await store.change_key(door, key_id, changes))["key"]
        return found

    shown = await change(name="Renamed", limits={"tokens_per_day": None}, metadata={"c": 3})
    assert (shown["name"], shown["allowed_models"], shown["budget_nanos"]) == ("Renamed", ["a/*"], 5)
    assert (shown["limits"]["requests_per_day"], shown["limits"]["tokens_per_day"]) == (3, None)
    assert shown["metadata"] == {"c": 3}
    assert (await change(budget_reset="daily"))["budget_nanos"] == 5
    assert (await change(budget_reset=None))["budget_reset"] == "never"
    shown = await change(limits={"requests_per_day": None}, budget_nanos=None, allowed_models=None, metadata=None)
    cleared = ("limits", "budget_nanos", "budget_reset", "allowed_models")
    assert [shown[name] for name in cleared] == [None] * 4
    assert shown["metadata"] == {}


async def test_the_admin_scope_is_for_admins(person: Any) -> None:
    operator, someone = await person("admin"), await person()
    wanted = made(scopes=["chat", "admin"])
    assert field_of(await refused(store.create_key(operator.at_the_door(), someone.user_id, wanted))) == "scopes"
    change = store.change_key(operator.at_the_door(), someone.key_id, {"scopes": ["admin"]})
    assert field_of(await refused(change)) == "scopes"
    assert (await store.create_key(operator.at_the_door(), None, made(scopes=["admin"])))["user_id"] == operator.user_id


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:db8::1/128", "2001:db8::1/128"),
    ],
)
def test_a_network_is_written_in_one_way(written: str, kept: str) -> None:
    assert rules.network(written) == kept


@pytest.mark.parametrize(
    "text", ["10.0.0.5/8", "2001:db8::1/32", "fe80::1%eth0", "", "10.0.0/8", "a" * 40, "1", "::/0/0"]
)
def test_what_is_no_network_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(rules.NoNetwork) as caught:
        rules.network(text)
    assert not text or len(text) < 5 or text not in str(caught.value)


async def test_a_person_of_the_tests_is_no_operator(person: Any) -> None:
    """An admin whose key lacks the scope acts as a member does."""
    admin, someone = await person("admin", scopes=rules.MEMBER_SCOPES), await person()
    wide: Person = admin
    error = await refused(store.create_key(wide.at_the_door(), someone.user_id, made()))
    assert error.code == "not_found"
    assert (await refused(store.set_key_state(wide.at_the_door(), someone.key_id, "revoked"))).code == "not_found"


@pytest.mark.parametrize(
    ("day", "moment", "began"),
    [
        (1, "2026-02-28T23:59:59.999Z", "2026-02-01"),
        (1, "2026-03-01T00:00:00Z", "2026-03-01"),
        (2, "2026-05-31T23:00:00-02:00", "2026-05-02"),
        (15, "2024-02-29T12:00:00Z", "2024-02-15"),
        (28, "2026-02-27T23:59:59.999Z", "2026-01-28"),
        (28, "2026-02-28T00:00:00Z", "2026-02-28"),
        (28, "2026-03-27T23:59:59.999Z", "2026-02-28"),
        (28, "2027-01-01T00:00:00Z", "2026-12-28"),
        (28, "2024-03-31T00:00:00Z", "2024-03-28"),
    ],
)
async def test_a_quota_s_month_begins_on_its_day(
    shared_database: str, sql: Any, day: int, moment: str, began: str
) -> None:
    month = "select tollgate.quota_month($1, $2::text::timestamptz)::text"
    assert await sql(shared_database, month, day, moment) == began


async def test_another_reset_day_gives_no_quota_back(person: Any, shared_database: str, sql: Any) -> None:
    await not_at_the_end_of("day")
    someone, admin = await person(), await person("admin")
    terms = {"tokens_per_month": 100, "quota_reset_day": 10}
    await store.change_key(admin.at_the_door(), someone.key_id, terms, "admin")
    await sql(shared_database, "update tollgate.api_keys set tokens_used_in_month = 60 where id = $1", someone.key_id)
    for day in (28, 1, 11):
        changed = await store.change_key(admin.at_the_door(), someone.key_id, {"quota_reset_day": day}, "admin")
        shown = changed["key"]
        assert (shown["quota_reset_day"], shown["tokens_used_in_month"]) == (day, 60)
        assert int(shown["quota_resets_at"][8:10]) == day
    error = await refused(store.change_key(someone.at_the_door(), someone.key_id, {"quota_reset_day": 2}))
    assert (type(error), error.param) == (PermissionDenied, "quota_reset_day")
