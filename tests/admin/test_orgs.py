"""/admin/orgs over HTTP."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import BOTH_DOORS
from operators import CREDIT, EVENTS, NO_LIMITS, admitted, bearing, operating, pages, settled, word
from people import Person, refused
from tollgate.core.errors import KeyDisabled
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.people.rules import as_stored
from tollgate.process import logs

Sql = Callable[..., Any]

ROW = "select to_jsonb(o)::text from tollgate.orgs o where id = $1"


@pytest.fixture
async def operator(door: Door, person: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with operating(door, await person("admin")) as made:
        yield made


@pytest.fixture
def made(operator: httpx.AsyncClient) -> Callable[..., Any]:
    """Creates orgs: `await made(name, plan="pro")` returns the id."""

    async def make(name: str = "Acme", **more: Any) -> str:
        answer = await operator.post("/admin/orgs", json={"name": name, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return make


async def grant(door: Door, org_id: str, nanos: int = CREDIT) -> Any:
    return await credits.grant(console(door, "tests"), org_id, nanos, source="funding", reason="", reference=word())


async def test_another_org_of_the_same_name_is_told(operator: httpx.AsyncClient, made: Any) -> None:
    name = word()
    first = await made(name)
    second = (await operator.post("/admin/orgs", json={"name": name.upper()})).json()
    assert second["same_name"] == [first]


async def test_an_org_may_be_made_with_a_markup(operator: httpx.AsyncClient) -> None:
    answer = await operator.post("/admin/orgs", json={"name": word(), "markup": 0.125})
    assert (answer.status_code, answer.json()["markup"]) == (201, 0.125)
    for wrong in (-1, 0.1234567, "much"):
        refusal = await operator.post("/admin/orgs", json={"name": word(), "markup": wrong})
        assert (refusal.status_code, refusal.json()["error"]["param"]) == (400, "markup")


@BOTH_DOORS
async def test_a_suspension_by_an_operator_is_logged(operator: httpx.AsyncClient, made: Any) -> None:
    org_id, lines = await made(), io.StringIO()
    logs.configure("info", [], lines)
    for change in ({"paid_calls": "suspended"}, {"paid_calls": "active"}, {"name": "Other"}):
        await operator.patch(f"/admin/orgs/{org_id}", json=change)
    (line,) = [line for line in lines.getvalue().splitlines() if "paid_calls_suspended" in line]
    told = json.loads(line)
    assert (told["org_id"], told["reason"], told["level"]) == (org_id, "operator", "warning")


async def test_an_org_is_made_and_shown(operator: httpx.AsyncClient, shared_database: str, sql: Sql) -> None:
    name = word()
    answer = await operator.post("/admin/orgs", json={"name": f" {name} ", "plan": "pro"})
    assert answer.status_code == 201
    org = answer.json()
    assert org.pop("same_name") == []
    assert org == {
        "id": org["id"],
        "name": name,
        "plan": "pro",
        "status": "active",
        "markup": None,
        "byok_fee_nanos": None,
        "byok_fee_credits": None,
        "limits": NO_LIMITS,
        "max_concurrent_requests": None,
        "open_requests": 0,
        "allowed_models": None,
        "default_model": None,
        "cache": False,
        "paid_calls": "active",
        "paid_suspended_at": None,
        "paid_suspended_reason": None,
        "credits": "0.00",
        "credits_nanos": 0,
        "held_nanos": 0,
        "held_credits": "0.00",
        "available_credits": "0.00",
        "available_nanos": 0,
        "users": 0,
        "created_at": org["created_at"],
        "updated_at": org["updated_at"],
    }
    assert org["id"].startswith("org_")
    assert org["created_at"].endswith("Z")
    assert (await operator.get(f"/admin/orgs/{org['id']}")).json() == org
    assert json.loads(await sql(shared_database, EVENTS, org["id"])) == [
        {"action": "org.created", "org": org["id"], "details": {"name": name, "plan": "pro"}}
    ]


async def test_an_org_shows_its_credits(operator: httpx.AsyncClient, door: Door, customer: Any) -> None:
    someone = await customer(5 * CREDIT + 1)
    await admitted(door, someone)
    org = (await operator.get(f"/admin/orgs/{someone.org_id}")).json()
    assert (org["credits"], org["credits_nanos"], org["users"]) == ("5.000000001", 5 * CREDIT + 1, 1)
    assert (org["held_nanos"], org["available_nanos"]) == (105_000, 5 * CREDIT + 1 - 105_000)


async def test_an_operator_binds_what_an_org_runs_at_once(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone = await customer()
    path = f"/admin/orgs/{someone.org_id}"
    shown = (await operator.patch(path, json={"max_concurrent_requests": 1})).json()
    assert (shown["max_concurrent_requests"], shown["open_requests"]) == (1, 0)
    assert "granted" in await admitted(door, someone)
    assert (await admitted(door, someone))["refusal"]["code"] == "too_many_in_flight"
    assert (await operator.get(path)).json()["open_requests"] == 1
    assert (await operator.patch(path, json={"name": "Acme"})).json()["max_concurrent_requests"] == 1
    assert (await operator.patch(path, json={"max_concurrent_requests": None})).json()[
        "max_concurrent_requests"
    ] is None
    assert "granted" in await admitted(door, someone)
    for nonsense in (-1, 1.5, "many", 10**12):
        assert (await operator.patch(path, json={"max_concurrent_requests": nonsense})).status_code == 400


async def test_an_operator_ends_a_suspension_of_paid_calls_and_begins_one(
    operator: httpx.AsyncClient, door: Door, customer: Any, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    path = f"/admin/orgs/{someone.org_id}"

    async def quarantine() -> None:
        granted = (await admitted(door, someone))["granted"]
        ending = {
            "id": granted["id"],
            "outcome": "settled",
            "charge_nanos": 105_000,
            "cost_nanos": 1,
            "quarantined": True,
        }
        await door.call("tollgate_settle", items=[ending])

    await quarantine()
    await quarantine()
    shown = (await operator.get(path)).json()
    assert (shown["paid_calls"], shown["paid_suspended_reason"]) == ("suspended", "quarantined_usage")
    assert shown["paid_suspended_at"].endswith("Z")
    assert (await operator.patch(path, json={"paid_calls": "suspended"})).json() == shown
    shown = (await operator.patch(path, json={"paid_calls": "active"})).json()
    assert (shown["paid_calls"], shown["paid_suspended_at"], shown["paid_suspended_reason"]) == ("active", None, None)
    await quarantine()  # the first since the operator looked
    assert "granted" in await admitted(door, someone)
    shown = (await operator.patch(path, json={"paid_calls": "suspended"})).json()
    assert (shown["paid_calls"], shown["paid_suspended_reason"]) == ("suspended", "operator")
    assert (await admitted(door, someone))["refusal"]["code"] == "paid_calls_suspended"
    events = json.loads(await sql(shared_database, EVENTS, someone.org_id))
    assert [event["action"] for event in events][-3:] == ["org.paid_suspended", "org.updated", "org.updated"]
    assert events[-1]["details"]["paid_suspended_reason"] == {"was": None, "is": "operator"}


async def test_an_org_without_a_plan_is_on_free_and_one_on_no_plan_is_not_made(
    operator: httpx.AsyncClient, made: Any, shared_database: str, sql: Sql
) -> None:
    assert (await operator.get(f"/admin/orgs/{await made()}")).json()["plan"] == "free"
    name = word()
    answer = await operator.post("/admin/orgs", json={"name": name, "plan": "platinum"})
    assert answer.status_code == 404
    assert (answer.json()["error"]["kind"], answer.json()["error"]["id"]) == ("plan", "platinum")
    assert await sql(shared_database, "select count(*) from tollgate.orgs where name = $1", name) == 0


SMUGGLED: list[dict[str, Any]] = [
    {"balance_nanos": 10**15},
    {"credits": 1000},
    {"credits_nanos": 10**15},
    {"held_nanos": -5},
    {"id": "org_mine"},
    {"org_id": "org_mine"},
    {"role": "admin"},
    {"is_admin": True},
    {"cost": 0},
    {"markup_ppm": 0},
    {"limits_set": {}},
    {"counters": None},
    {"limits": {"requests_per_second": 1}},
]


async def test_fields_that_are_not_asked_for_change_nothing(
    operator: httpx.AsyncClient, made: Any, shared_database: str, sql: Sql
) -> None:
    org_id, name = await made(), word()
    before = await sql(shared_database, ROW, org_id)
    for extra in SMUGGLED:
        for answer in (
            await operator.post("/admin/orgs", json={"name": name, "plan": "free", **extra}),
            await operator.patch(f"/admin/orgs/{org_id}", json={"name": name, **extra}),
        ):
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["code"] == "invalid_request"
    assert await sql(shared_database, ROW, org_id) == before
    assert await sql(shared_database, "select count(*) from tollgate.orgs where name = $1", name) == 0


CHANGES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"name": "Other"}, {"name": "Other"}, {"name": {"was": "Acme", "is": "Other"}}),
    ({"plan": "pro"}, {"plan": "pro"}, {"plan_id": {"was": "free", "is": "pro"}}),
    ({"status": "suspended"}, {"status": "suspended"}, {"status": {"was": "active", "is": "suspended"}}),
    ({"markup": 0.05}, {"markup": 0.05}, {"markup_ppm": {"was": None, "is": 50_000}}),
    (
        {"byok_fee_nanos": 7},
        {"byok_fee_nanos": 7, "byok_fee_credits": "0.000000007"},
        {"byok_fee_nanos": {"was": None, "is": 7}},
    ),
    ({"markup": 0}, {"markup": 0.0}, {"markup_ppm": {"was": None, "is": 0}}),
    ({"markup": 0.000001}, {"markup": 0.000001}, {"markup_ppm": {"was": None, "is": 1}}),
    (
        {"limits": {"tokens_per_day": 5}},
        {"limits": NO_LIMITS | {"tokens_per_day": 5}},
        {"limits_set": {"was": None, "is": NO_LIMITS | {"tokens_per_day": 5}}},
    ),
]


async def test_a_change_shows_is_traced_and_touches_only_that_org(
    operator: httpx.AsyncClient, made: Any, shared_database: str, sql: Sql
) -> None:
    bystander = await made()
    others = await sql(shared_database, ROW, bystander)
    for change, shown, trail in CHANGES:
        org_id = await made()
        before = (await operator.get(f"/admin/orgs/{org_id}")).json()
        changed = await operator.patch(f"/admin/orgs/{org_id}", json=change)
        assert changed.status_code == 200, changed.text
        now = changed.json()
        assert now == before | shown | {"updated_at": now["updated_at"]}
        assert (await operator.patch(f"/admin/orgs/{org_id}", json=change)).json() == now  # again: nothing
        assert (await operator.get(f"/admin/orgs/{org_id}")).json() == now
        assert json.loads(await sql(shared_database, EVENTS, org_id))[1:] == [
            {"action": "org.updated", "org": org_id, "details": trail}
        ]
    assert await sql(shared_database, ROW, bystander) == others


async def test_what_a_change_leaves_out_or_null_stays(operator: httpx.AsyncClient, made: Any) -> None:
    org_id = await made(plan="pro")
    limits = {"requests_per_minute": 5, "tokens_per_day": 9}
    own = {
        "markup": 0.1,
        "byok_fee_nanos": 7,
        "max_concurrent_requests": 3,
        "allowed_models": ["a/*"],
        "default_model": "a/b",
    }
    await operator.patch(f"/admin/orgs/{org_id}", json=own | {"limits": limits})
    before = (await operator.get(f"/admin/orgs/{org_id}")).json()
    for change in ({}, {"name": None, "plan": None, "status": None}):
        assert (await operator.patch(f"/admin/orgs/{org_id}", json=change)).json() == before
    one_less = (await operator.patch(f"/admin/orgs/{org_id}", json={"limits": {"tokens_per_day": None}})).json()
    assert one_less["limits"] == NO_LIMITS | {"requests_per_minute": 5}
    no_more = dict.fromkeys((*own, "limits"))
    all_less = (await operator.patch(f"/admin/orgs/{org_id}", json=no_more)).json()
    assert {name: all_less[name] for name in no_more} == no_more | {"limits": NO_LIMITS}


async def test_a_markup_binds_the_next_admission(operator: httpx.AsyncClient, door: Door, customer: Any) -> None:
    someone = await customer()
    assert (await admitted(door, someone))["granted"]["markup_ppm"] == 0
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"markup": 0.25})
    assert (await admitted(door, someone))["granted"]["markup_ppm"] == 250_000
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"markup": None})
    assert (await admitted(door, someone))["granted"]["markup_ppm"] == 0


@given(st.integers(0, 10_000_000))
def test_a_markup_is_told_exactly(ppm: int) -> None:
    markup = Decimal(ppm) / 1_000_000
    assert as_stored({"markup": str(markup)}) == as_stored({"markup": str(float(markup))}) == {"markup_ppm": ppm}


async def test_a_name_or_markup_that_makes_no_sense_is_refused(operator: httpx.AsyncClient, made: Any) -> None:
    org_id, headers = await made(), {"content-type": "application/json"}
    for name in ("", "  ", "x" * 201, "a\0b", "two\nlines", "\ud800", 5, None):
        body = json.dumps({"name": name, "plan": "free"}).encode()
        answer = await operator.post("/admin/orgs", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name"), name
    for markup in (-0.01, 10.01, 25, 0.0000001, "much", [1], True, "NaN", float("nan"), 10**400):
        body = json.dumps({"markup": markup}).encode()
        answer = await operator.patch(f"/admin/orgs/{org_id}", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "markup"), markup


async def test_suspending_an_org_stops_its_keys_at_once(operator: httpx.AsyncClient, door: Door, customer: Any) -> None:
    someone = await customer()
    running = await admitted(door, someone)
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"status": "suspended"})
    stopped = await refused(credits.balance(someone.at_the_door()))
    assert isinstance(stopped, KeyDisabled)
    assert stopped.facts["disabled"] == "org"
    assert (await admitted(door, someone))["refusal"]["code"] == "key_disabled"
    await settled(door, running, 7)  # what ran before is ended as usual
    assert (await operator.get(f"/admin/orgs/{someone.org_id}")).json()["credits_nanos"] == CREDIT - 7
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"status": "active"})
    assert "granted" in await admitted(door, someone)


@BOTH_DOORS
async def test_an_empty_org_is_deleted_and_its_history_stays(
    operator: httpx.AsyncClient, door: Door, customer: Any, shared_database: str, sql: Sql
) -> None:
    someone = await customer(1000)
    await settled(door, await admitted(door, someone, fixed_nanos="1000", output_nanos="0"), 1000)
    assert (await operator.delete(f"/admin/users/{someone.user_id}")).status_code == 200
    answer = await operator.delete(f"/admin/orgs/{someone.org_id}")
    assert (answer.status_code, answer.json()) == (200, {"id": someone.org_id, "deleted": True})
    for table, rows in (("requests", 1), ("transfers", 2), ("orgs", 0), ("users", 0), ("api_keys", 0)):
        column = "id" if table == "orgs" else "org_id"
        counted = f"select count(*) from tollgate.{table} where {column} = $1"
        assert await sql(shared_database, counted, someone.org_id) == rows, table
    assert [event["action"] for event in json.loads(await sql(shared_database, EVENTS, someone.org_id))] == [
        "org.created",
        "org.deleted",
    ]
    for again in (
        await operator.delete(f"/admin/orgs/{someone.org_id}"),
        await operator.get(f"/admin/orgs/{someone.org_id}"),
    ):
        assert again.status_code == 404


async def test_an_org_with_credits_or_debt_is_not_deleted(
    operator: httpx.AsyncClient, door: Door, made: Any, customer: Any
) -> None:
    rich = await made()
    await grant(door, rich)
    someone = await customer(200_000)
    await settled(door, await admitted(door, someone), 300_000)
    await operator.delete(f"/admin/users/{someone.user_id}")
    for org_id, balance in ((rich, CREDIT), (someone.org_id, -100_000)):
        answer = await operator.delete(f"/admin/orgs/{org_id}")
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert (error["code"], error["reason"], error["balance_nanos"]) == ("conflict", "not_empty", balance)
        assert (await operator.get(f"/admin/orgs/{org_id}")).status_code == 200


async def test_an_org_with_open_holds_or_users_is_not_deleted(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone = await customer(0)
    granted = await admitted(
        door, someone, fixed_nanos="0", output_nanos="0"
    )  # costs nothing, and is open all the same
    error = (await operator.delete(f"/admin/orgs/{someone.org_id}")).json()["error"]
    assert (error["users"], error["open_holds"], error["held_nanos"]) == (1, 1, 0)
    await operator.delete(f"/admin/users/{someone.user_id}")
    error = (await operator.delete(f"/admin/orgs/{someone.org_id}")).json()["error"]
    assert (error["users"], error["open_holds"]) == (0, 1)
    await settled(door, granted, 0)
    assert (await operator.delete(f"/admin/orgs/{someone.org_id}")).status_code == 200


async def test_a_grant_and_a_deletion_at_once_orphan_no_money(
    operator: httpx.AsyncClient, door: Door, made: Any, shared_database: str, sql: Sql
) -> None:
    orgs = [await made() for _ in range(12)]

    async def both(org_id: str) -> tuple[httpx.Response, Any]:
        deletion, granted = operator.delete(f"/admin/orgs/{org_id}"), grant(door, org_id, 7)
        first, second = await asyncio.gather(deletion, granted, return_exceptions=True)
        assert isinstance(first, httpx.Response)
        return first, second

    for org_id, (deletion, granted) in zip(orgs, await asyncio.gather(*map(both, orgs)), strict=True):
        moved = await sql(shared_database, "select count(*) from tollgate.transfers where org_id = $1", org_id)
        if deletion.status_code == 200:
            assert type(granted).__name__ == "NotFound"
            assert moved == 0
        else:
            assert (deletion.status_code, granted["balance_nanos"], moved) == (409, 7, 1)
            assert (await operator.get(f"/admin/orgs/{org_id}")).json()["credits_nanos"] == 7


async def test_a_new_user_and_a_deletion_at_once_leave_no_user_without_org(
    operator: httpx.AsyncClient, made: Any
) -> None:
    for _ in range(8):
        org_id, email = await made(), f"{word()}@example.com"
        deletion, joining = await asyncio.gather(
            operator.delete(f"/admin/orgs/{org_id}"),
            operator.post("/admin/users", json={"email": email, "org_id": org_id}),
        )
        assert (deletion.status_code, joining.status_code) in {(200, 404), (409, 201)}


SORTS = {
    "created_at:desc": lambda org: org["created_at"],
    "created_at:asc": lambda org: org["created_at"],
    "name:asc": lambda org: org["name"].lower(),
    "name:desc": lambda org: org["name"].lower(),
    "credits:asc": lambda org: org["credits_nanos"],
    "credits:desc": lambda org: org["credits_nanos"],
}


async def test_a_list_is_paged_in_any_order_without_gap_or_repetition(
    operator: httpx.AsyncClient, door: Door, made: Any
) -> None:
    mark = word()
    orgs = [await made(f"{name} {mark}") for name in ("b", "A", "b", "c", "a")]  # equal names: the id breaks the tie
    await grant(door, orgs[1], 5)
    await grant(door, orgs[3], 2)
    for sort, place in SORTS.items():
        (whole,) = await pages(operator, "/admin/orgs", q=mark, sort=sort)
        assert whole["data"] == sorted(
            whole["data"], key=lambda org: (place(org), org["id"]), reverse=sort.endswith("desc")
        )
        assert {org["id"] for org in whole["data"]} == set(orgs)
        by_twos = await pages(operator, "/admin/orgs", q=mark, sort=sort, limit=2)
        assert [len(page["data"]) for page in by_twos] == [2, 2, 1]
        assert [org for page in by_twos for org in page["data"]] == whole["data"]
        assert {page["total"] for page in [whole, *by_twos]} == {5}


async def test_a_page_that_is_just_full_is_the_last(operator: httpx.AsyncClient, made: Any) -> None:
    mark = word()
    for _ in range(2):
        await made(mark)
    (page,) = await pages(operator, "/admin/orgs", q=mark, limit=2)
    assert (len(page["data"]), page["total"]) == (2, 2)


async def test_a_total_counts_beyond_what_a_page_can_hold(
    operator: httpx.AsyncClient, shared_database: str, sql: Sql
) -> None:
    mark = word()
    many = "insert into tollgate.orgs (name, status) select $1 || n, 'suspended' from generate_series(1, 1003) n"
    await sql(shared_database, many, mark)
    first, second = await pages(operator, "/admin/orgs", q=mark, limit=1000)
    assert (len(first["data"]), len(second["data"]), first["total"]) == (1000, 3, 1003)
    assert len({org["id"] for page in (first, second) for org in page["data"]}) == 1003


async def test_filters_narrow_the_list(operator: httpx.AsyncClient, made: Any) -> None:
    mark = word()
    free, pro = await made(f"{mark} 100%_"), await made(f"{mark} b", plan="pro")
    await operator.patch(f"/admin/orgs/{pro}", json={"status": "suspended"})
    for query, expected in [
        ({"plan": "pro"}, [pro]),
        ({"plan": "free"}, [free]),
        ({"status": "active"}, [free]),
        ({"status": "suspended", "plan": "free"}, []),
        ({"q": mark.upper()}, [free, pro]),
        ({"q": f"{mark} 100%_"}, [free]),
        ({"q": f"{mark}%"}, []),
        ({"q": pro}, [pro]),
    ]:
        (page,) = await pages(operator, "/admin/orgs", **{"q": mark, "sort": "created_at:asc", **query})
        assert [org["id"] for org in page["data"]] == expected, query
        assert page["total"] == len(expected)


ANYWHERE: list[dict[str, Any]] = [{"limit": 0}, {"limit": 1001}, {"q": "x" * 201}, {"q": "a\0b"}, {"owner": "x"}]
IN_THE_LIST: list[dict[str, Any]] = [
    {"sort": "balance_nanos"},
    {"sort": "name"},
    {"sort": "name:up"},
    {"sort": "id; drop table tollgate.orgs"},
    {"status": "gone"},
    {"cursor": "org_unknown"},
    {"cursor": "usr_1' or true --"},
]


async def test_a_question_that_makes_no_sense_is_refused_by_name(operator: httpx.AsyncClient) -> None:
    questions = [("/admin/orgs", query) for query in ANYWHERE + IN_THE_LIST]
    questions += [("/admin/orgs/lookup", query) for query in ANYWHERE]
    for path, query in questions:
        answer = await operator.get(path, params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query))), query


async def test_a_lookup_gives_ids_and_names_for_a_picker(operator: httpx.AsyncClient, made: Any) -> None:
    mark = word()
    last, first = await made(f"z {mark}"), await made(f"a {mark}")
    answer = await operator.get("/admin/orgs/lookup", params={"q": mark})
    assert answer.json() == {"data": [{"id": first, "name": f"a {mark}"}, {"id": last, "name": f"z {mark}"}]}
    assert len((await operator.get("/admin/orgs/lookup", params={"q": mark, "limit": 1})).json()["data"]) == 1


CALLS = [
    ("GET", "/admin/orgs"),
    ("GET", "/admin/orgs/lookup"),
    ("POST", "/admin/orgs"),
    ("GET", "/admin/orgs/{id}"),
    ("PATCH", "/admin/orgs/{id}"),
    ("DELETE", "/admin/orgs/{id}"),
]


async def test_members_do_nothing_here_even_to_their_own_org(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    before = await sql(shared_database, ROW, someone.org_id)
    for method, path in CALLS:
        body = {"name": word()} if method in ("POST", "PATCH") else None
        its = path.format(id=someone.org_id)
        answer = await operator.request(method, its, json=body, headers=bearing(someone))
        assert (answer.status_code, answer.json()["error"]["scope"]) == (403, "admin")
        assert (await operator.request(method, its, json=body, headers={"authorization": ""})).status_code == 401
    assert await sql(shared_database, ROW, someone.org_id) == before


async def test_an_id_that_is_nobody_s_is_not_found(operator: httpx.AsyncClient) -> None:
    for unknown in ("org_0123456789abcdef", "usr_1", "%F0%9F%90%A6", "x"):
        for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
            answer = await operator.request(method, f"/admin/orgs/{unknown}", json=body)
            assert answer.status_code == 404
            assert (answer.json()["error"]["code"], answer.json()["error"]["kind"]) == ("not_found", "org")


async def test_an_id_that_no_id_can_be_is_refused(operator: httpx.AsyncClient) -> None:
    for bad in ("a%00b", "x" * 201):
        assert (await operator.get(f"/admin/orgs/{bad}")).status_code == 400


async def test_an_admin_s_key_may_end_itself_unless_it_is_the_last(own_database: str) -> None:
    door = PostgresDoor(own_database, pool_size=4, deadline_seconds=30.0)
    admins = [Person(door, "admin") for _ in range(3)]
    for one in admins:
        await one.seed()
    *others, last = admins
    steps = [
        ("POST", "/disable", {}, 200), ("DELETE", "", {}, 200), ("POST", "/disable", {}, 409),
        ("DELETE", "", {}, 409), ("PATCH", "", {"scopes": ["chat"]}, 409), ("PATCH", "", {"name": "x"}, 200),
    ]  # fmt: skip
    try:
        async with operating(door, last) as http:
            for one, (method, path, body, status) in zip([*others, *[last] * 4], steps, strict=True):
                its = f"/admin/keys/{one.key_id}{path}"
                answer = await http.request(method, its, json=body or None, headers=bearing(one))
                assert answer.status_code == status, answer.text
                assert status == 200 or answer.json()["error"]["reason"] == "last_admin"
            assert (await http.get(f"/admin/keys/{last.key_id}")).json()["status"] == "active"
    finally:
        await door.close()


async def test_the_org_of_the_last_admin_is_not_suspended(own_database: str) -> None:
    door = PostgresDoor(own_database, pool_size=4, deadline_seconds=30.0)
    admin = Person(door, "admin")
    await admin.seed()
    async with operating(door, admin) as operator:
        answer = await operator.patch(f"/admin/orgs/{admin.org_id}", json={"status": "suspended", "name": "Never"})
        assert answer.status_code == 409
        assert (answer.json()["error"]["code"], answer.json()["error"]["reason"]) == ("conflict", "last_admin")
        assert (await operator.get(f"/admin/orgs/{admin.org_id}")).json()["name"] == "Org"
    await door.close()
