"""/admin/plans and /admin/assign-plan over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from operators import EVENTS, NO_LIMITS, admitted, bearing, operating, pages, word
from tollgate.database import Door

Sql = Callable[..., Any]

ROW = "select to_jsonb(p)::text from tollgate.plans p where id = $1"


@pytest.fixture
async def operator(door: Door, person: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with operating(door, await person("admin")) as made:
        yield made


@pytest.fixture
def made(operator: httpx.AsyncClient) -> Callable[..., Any]:
    """Creates plans: `await made(limits={…})` returns the id."""

    async def make(**more: Any) -> str:
        plan_id = f"p{word()}"
        answer = await operator.post("/admin/plans", json={"id": plan_id, "name": "Team", **more})
        assert answer.status_code == 201, answer.text
        return plan_id

    return make


async def assign(operator: httpx.AsyncClient, plan: str, **subject: str) -> httpx.Response:
    return await operator.post("/admin/assign-plan", json={"plan": plan, **subject})


@BOTH_DOORS
async def test_a_plan_is_made_and_shown(operator: httpx.AsyncClient, shared_database: str, sql: Sql) -> None:
    plan_id = f"p{word()}"
    said = {
        "id": plan_id,
        "name": "Team",
        "description": "For\nsome.",
        "markup": 0.1,
        "byok_fee_nanos": 500_000,
        "limits": {"tokens_per_day": 10**11},
        "max_concurrent_requests": 50,
    }
    answer = await operator.post("/admin/plans", json=said)
    assert answer.status_code == 201
    plan = answer.json()
    assert plan == said | {
        "byok_fee_credits": "0.0005",
        "limits": NO_LIMITS | {"tokens_per_day": 10**11},
        "orgs": 0,
        "created_at": plan["created_at"],
        "updated_at": plan["updated_at"],
    }
    assert (await operator.get(f"/admin/plans/{plan_id}")).json() == plan
    (event,) = json.loads(await sql(shared_database, EVENTS, plan_id))
    assert (event["action"], event["org"], event["details"]["markup_ppm"]) == ("plan.created", None, 100_000)


async def test_an_id_names_one_plan_even_when_two_are_made_at_once(
    operator: httpx.AsyncClient, shared_database: str, sql: Sql
) -> None:
    plan_id = f"p{word()}"
    answers = await asyncio.gather(
        *(operator.post("/admin/plans", json={"id": plan_id, "name": str(turn)}) for turn in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    refusals = [answer.json()["error"] for answer in answers if answer.status_code == 409]
    assert {(error["code"], error["param"], error["reason"]) for error in refusals} == {("conflict", "id", "id_taken")}
    assert len(json.loads(await sql(shared_database, EVENTS, plan_id))) == 1


async def test_a_body_that_makes_no_sense_makes_and_changes_nothing(
    operator: httpx.AsyncClient, made: Any, shared_database: str, sql: Sql
) -> None:
    plan_id = await made()
    before = await sql(shared_database, ROW, plan_id)
    name = word()
    for extra in (
        {"created_at": "2020-01-01T00:00:00Z"},
        {"orgs": 5},
        {"requests_per_minute": 5},
        {"price_per_month": 0},
        {"is_admin": True},
        {"markup_ppm": 5},
        {"markup": -1},
        {"markup": 25},
        {"byok_fee_nanos": -1},
        {"byok_fee_nanos": 10**12 + 1},
        {"limits": {"requests_per_minute": -1}},
        {"limits": {"requests_per_minute": 10**11 + 1}},
        {"limits": {"requests_per_minute": 1.5}},
        {"limits": {"requests_per_minute": True}},
        {"limits": {"requests_per_month": 1}},
        {"description": "a\0b"},
        {"name": ""},
    ):
        body = {"name": name, **extra}
        assert (await operator.patch(f"/admin/plans/{plan_id}", json=body)).status_code == 400, extra
        assert (await operator.post("/admin/plans", json={"id": f"p{word()}", **body})).status_code == 400, extra
    for bad in ("", "Team", "1st", "a b", "x" * 64, "a\nb"):
        refused = await operator.post("/admin/plans", json={"id": bad, "name": name})
        assert refused.status_code == 400, bad
    assert (await operator.patch(f"/admin/plans/{plan_id}", json={"id": "other"})).status_code == 400
    assert await sql(shared_database, ROW, plan_id) == before


async def test_a_change_shows_and_is_traced_once(
    operator: httpx.AsyncClient, made: Any, shared_database: str, sql: Sql
) -> None:
    for change, trail in (
        ({"name": "Other"}, {"name": {"was": "Team", "is": "Other"}}),
        ({"description": "Long"}, {"description": {"was": "", "is": "Long"}}),
        ({"byok_fee_nanos": 0}, {"byok_fee_nanos": {"was": None, "is": 0}}),
        ({"markup": 0.5}, {"markup_ppm": {"was": None, "is": 500_000}}),
        ({"limits": {"tokens_per_hour": None}}, {"tokens_per_hour": {"was": 7, "is": None}}),
        ({"limits": {"requests_per_day": 3}}, {"requests_per_day": {"was": None, "is": 3}}),
    ):
        plan_id = await made(limits={"tokens_per_hour": 7})
        before = (await operator.get(f"/admin/plans/{plan_id}")).json()
        now = (await operator.patch(f"/admin/plans/{plan_id}", json=change)).json()
        limits = before["limits"] | change.get("limits", {})
        fee = {"byok_fee_credits": "0.00"} if "byok_fee_nanos" in change else {}
        assert now == before | change | fee | {"limits": limits, "updated_at": now["updated_at"]}
        for same in (change, {}, {"name": None, "description": None, "limits": None}):
            assert (await operator.patch(f"/admin/plans/{plan_id}", json=same)).json() == now
        assert json.loads(await sql(shared_database, EVENTS, plan_id))[1:] == [
            {"action": "plan.updated", "org": None, "details": trail}
        ]


async def test_the_plans_that_come_with_tollgate_may_be_edited_but_not_deleted(
    operator: httpx.AsyncClient,
) -> None:
    before = (await operator.get("/admin/plans/pro")).json()
    assert (await operator.patch("/admin/plans/pro", json={"description": word()})).status_code == 200
    await operator.patch("/admin/plans/pro", json={"description": before["description"]})
    assert (await operator.get("/admin/plans/pro")).json()["description"] == before["description"]
    for plan_id in ("free", "pro", "enterprise"):
        answer = await operator.delete(f"/admin/plans/{plan_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


async def test_a_plan_in_use_is_not_deleted(
    operator: httpx.AsyncClient, made: Any, person: Any, shared_database: str, sql: Sql
) -> None:
    plan_id, someone = await made(), await person()
    await assign(operator, plan_id, org_id=someone.org_id)
    error = (await operator.delete(f"/admin/plans/{plan_id}")).json()["error"]
    assert (error["code"], error["reason"], error["orgs"]) == ("conflict", "in_use", 1)
    await assign(operator, "free", org_id=someone.org_id)
    answer = await operator.delete(f"/admin/plans/{plan_id}")
    assert (answer.status_code, answer.json()) == (200, {"id": plan_id, "deleted": True})
    assert json.loads(await sql(shared_database, EVENTS, plan_id))[-1]["action"] == "plan.deleted"
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        again = await operator.request(method, f"/admin/plans/{plan_id}", json=body)
        assert (again.status_code, again.json()["error"]["kind"]) == (404, "plan")


@BOTH_DOORS
async def test_a_deletion_and_an_org_that_wants_the_plan_at_once_agree(
    operator: httpx.AsyncClient, made: Any, person: Any
) -> None:
    someone = await person()
    for turn in range(8):
        plan_id = await made()
        wanting = (
            operator.post("/admin/orgs", json={"name": "Acme", "plan": plan_id})
            if turn % 2
            else assign(operator, plan_id, org_id=someone.org_id)
        )
        deleted, wanted = await asyncio.gather(operator.delete(f"/admin/plans/{plan_id}"), wanting)
        assert (deleted.status_code, wanted.status_code) in {(200, 404), (409, 201), (409, 200)}


async def test_a_plan_is_assigned_to_an_org_or_to_the_org_of_a_user(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"markup": 0.2})
    for plan, subject in (("pro", {"org_id": someone.org_id}), ("enterprise", {"user_id": someone.user_id})):
        for _ in range(2):  # the second time changes and records nothing
            answer = await assign(operator, plan, **subject)
            assert answer.status_code == 200
            org = answer.json()
            assert (org["id"], org["plan"], org["markup"]) == (someone.org_id, plan, 0.2)
    trail = [event["details"] for event in json.loads(await sql(shared_database, EVENTS, someone.org_id))[2:]]
    assert trail == [
        {"plan_id": {"was": "free", "is": "pro"}},
        {"plan_id": {"was": "pro", "is": "enterprise"}},
    ]


async def test_a_plan_is_assigned_to_exactly_one_who_is_there(operator: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    both = {"org_id": someone.org_id, "user_id": someone.user_id}
    for subject in ({}, both, {"org_id": None}, {"email": "a@b"}, {**both, "user_id": None, "duration_months": "1"}):
        answer = await operator.post("/admin/assign-plan", json={"plan": "pro", **subject})
        assert answer.status_code == 400, subject
    for kind, subject, plan in (
        ("org", {"org_id": "org_missing"}, "pro"),
        ("user", {"user_id": "usr_missing"}, "pro"),
        ("plan", {"org_id": someone.org_id}, "platinum"),
    ):
        answer = await assign(operator, plan, **subject)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, kind)
    assert (await operator.get(f"/admin/orgs/{someone.org_id}")).json()["plan"] == "free"


@BOTH_DOORS
async def test_a_plan_s_limits_and_markup_bind_the_next_admission(
    operator: httpx.AsyncClient, door: Door, made: Any, customer: Any
) -> None:
    plan_id, someone = await made(markup=0.5), await customer()
    await assign(operator, plan_id, org_id=someone.org_id)
    granted = (await admitted(door, someone))["granted"]
    assert (granted["markup_ppm"], granted["limits"]) == (500_000, None)
    await operator.patch(f"/admin/plans/{plan_id}", json={"limits": {"requests_per_minute": 1}, "markup": None})
    refusal = (await admitted(door, someone))["refusal"]
    assert (refusal["code"], refusal["facts"]["of"], refusal["facts"]["limit"]) == ("rate_limit_exceeded", "org", 1)
    await operator.patch(f"/admin/plans/{plan_id}", json={"limits": {"requests_per_minute": 9}})
    granted = (await admitted(door, someone))["granted"]
    assert (granted["markup_ppm"], granted["limits"]["requests"]["limit"]) == (0, 9)


async def test_an_org_with_some_limits_of_its_own_follows_its_plan_in_the_others(
    operator: httpx.AsyncClient, door: Door, made: Any, customer: Any
) -> None:
    plan_id, someone = await made(limits={"requests_per_minute": 50, "tokens_per_minute": 5000}), await customer()
    await assign(operator, plan_id, org_id=someone.org_id)
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"limits": {"requests_per_minute": 100}})

    async def held_to() -> tuple[int, int | None]:
        limits = (await admitted(door, someone))["granted"]["limits"]
        return limits["requests"]["limit"], (limits["tokens"] or {}).get("limit")

    assert await held_to() == (100, 5000)
    await operator.patch(
        f"/admin/plans/{plan_id}", json={"limits": {"requests_per_minute": 7, "tokens_per_minute": 6000}}
    )
    assert await held_to() == (100, 6000)
    await assign(operator, "enterprise", org_id=someone.org_id)
    assert await held_to() == (100, None)
    await assign(operator, plan_id, org_id=someone.org_id)
    assert await held_to() == (100, 6000)
    await operator.patch(f"/admin/orgs/{someone.org_id}", json={"limits": None})
    assert await held_to() == (7, 6000)


@BOTH_DOORS
async def test_a_list_is_filtered_and_paged_in_any_order(operator: httpx.AsyncClient, made: Any) -> None:
    mark = word()
    plans = [await made(name=f"{name} {mark}") for name in ("b", "a", "B")]
    for field in ("id", "name", "created_at"):
        for direction in ("asc", "desc"):
            query = {"q": mark.upper(), "sort": f"{field}:{direction}"}
            (whole,) = await pages(operator, "/admin/plans", **query)
            keys = [(plan[field].lower(), plan["id"]) for plan in whole["data"]]
            assert sorted(plan["id"] for plan in whole["data"]) == sorted(plans)
            assert keys == sorted(keys, reverse=direction == "desc")
            by_ones = await pages(operator, "/admin/plans", limit=1, **query)
            assert [page["data"] for page in by_ones] == [[plan] for plan in whole["data"]]
            assert {page["total"] for page in by_ones} == {3}
    (one,) = await pages(operator, "/admin/plans", q=plans[0])
    assert [plan["id"] for plan in one["data"]] == [plans[0]]
    for query in ({"sort": "orgs:asc"}, {"limit": 0}, {"cursor": "unknown"}, {"q": "\0"}, {"is_active": "1"}):
        answer = await operator.get("/admin/plans", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query))), query


async def test_members_do_nothing_here(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    before = await sql(shared_database, ROW, "free")
    for method, path, body in (
        ("GET", "/admin/plans", None),
        ("POST", "/admin/plans", {"id": f"p{word()}", "name": "x"}),
        ("GET", "/admin/plans/free", None),
        ("PATCH", "/admin/plans/free", {"limits": {"requests_per_minute": None}}),
        ("DELETE", "/admin/plans/free", None),
        ("POST", "/admin/assign-plan", {"org_id": someone.org_id, "plan": "enterprise"}),
    ):
        answer = await operator.request(method, path, json=body, headers=bearing(someone))
        assert (answer.status_code, answer.json()["error"]["scope"]) == (403, "admin")
        assert (await operator.request(method, path, json=body, headers={"authorization": ""})).status_code == 401
    assert await sql(shared_database, ROW, "free") == before
    assert (await operator.get(f"/admin/orgs/{someone.org_id}")).json()["plan"] == "free"
