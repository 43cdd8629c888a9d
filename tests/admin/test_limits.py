"""/admin/limit over HTTP: a limit applies to the next admission."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from completions.paid import an_item
from gateway import BOTH_DOORS
from operators import EVENTS, NO_LIMITS, SIX, admitted, bearing, operating, settled, word
from people import PEPPER, Person
from tollgate.database import Door
from tollgate.keys import rules

Sql = Callable[..., Any]

FREE = dict(zip(SIX, (20, 200, 1000, 40_000, 400_000, 2_000_000), strict=True))
ROWS = """
select to_jsonb(o)::text || to_jsonb(k)::text
from tollgate.orgs o join tollgate.api_keys k on k.org_id = o.id where o.id = $1
"""


@pytest.fixture
async def operator(door: Door, person: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with operating(door, await person("admin")) as made:
        yield made


async def put(operator: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await operator.post("/admin/limit", json=body)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def binding(shown: dict[str, Any]) -> dict[str, tuple[int | None, str | None]]:
    return {name: (held["limit"], held["set_by"]) for name, held in shown["in_effect"].items()}


async def refusal(door: Door, someone: Person, **more: Any) -> dict[str, Any]:
    answer = await admitted(door, someone, **more)
    assert answer["refusal"]["code"] == "rate_limit_exceeded", answer
    facts: dict[str, Any] = answer["refusal"]["facts"]
    return facts


async def test_what_is_set_for_an_org_is_answered_and_binds_the_very_next_admission(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    for name in SIX:
        someone = await customer()
        assert "granted" in await admitted(door, someone)  # 110 tokens and one request
        shown = await put(operator, org_id=someone.org_id, **{name: 1})
        assert shown["limits"] == NO_LIMITS | {name: 1}
        assert binding(shown) == dict.fromkeys(SIX, (None, None)) | {name: (1, "org")}
        facts = await refusal(door, someone)
        assert (f"{facts['measure']}_per_{facts['window']}", facts["limit"], facts["of"]) == (name, 1, "org")


async def second_key(operator: httpx.AsyncClient, someone: Person) -> Person:
    """The same user with another key."""
    made = (await operator.post("/admin/keys", json={"user_id": someone.user_id, "name": "Second"})).json()
    other = copy.copy(someone)
    other.secret, other.key_id = made["key"], made["id"]
    other.key = someone.key | {"digest": rules.digest(made["key"], PEPPER)}
    return other


async def test_limits_of_a_user_bind_all_keys_of_the_user_together_and_nobody_else(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone, colleague = await customer(plan="free"), await customer()
    await operator.patch(f"/admin/users/{colleague.user_id}", json={"org_id": someone.org_id})
    shown = await put(operator, user_id=someone.user_id, requests_per_minute=3, tokens_per_day=10**11)
    assert (shown["org_id"], shown["user_id"], shown["key_id"]) == (someone.org_id, someone.user_id, None)
    assert binding(shown) == {name: (limit, "plan") for name, limit in FREE.items()} | {
        "requests_per_minute": (3, "user")
    }
    of_key = (await operator.get("/admin/limit", params={"key_id": someone.key_id})).json()
    assert binding(of_key) == binding(shown)

    keys = [someone, await second_key(operator, someone)]
    batch = [an_item(key, markup_ppm=0) for key in keys * 3]
    answers = await door.call("tollgate_admit", items=batch)
    assert sum("granted" in answer for answer in answers.values()) == 3
    for key in keys:
        facts = await refusal(door, key)
        assert (facts["of"], facts["user_id"], facts["limit"]) == ("user", someone.user_id, 3)
        own = (await operator.get("/user/limit", headers=bearing(key))).json()
        assert (own["user"]["requests"]["minute"]["used"], own["key"]) == (3, None)
    assert "granted" in await admitted(door, colleague)
    own = (await operator.get("/user/limit", headers=bearing(colleague))).json()
    assert (own["user"], own["org"]["requests"]["minute"]["used"]) == (None, 4)


async def test_limits_of_a_user_hold_however_many_come_at_once_and_tokens_are_corrected(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone = await customer()
    running = await admitted(door, someone)  # before there are limits: counted all the same
    await put(operator, user_id=someone.user_id, requests_per_hour=12, tokens_per_day=10**9)
    keys = [someone, await second_key(operator, someone)]
    answers = await asyncio.gather(*(admitted(door, key) for key in keys * 15))
    granted = [running, *(answer for answer in answers if "granted" in answer)]
    assert len(granted) == 12
    await asyncio.gather(*(settled(door, answer, 5) for answer in granted))
    own = (await operator.get("/user/limit", headers=bearing(someone))).json()["user"]
    assert (own["requests"]["hour"]["used"], own["tokens"]["day"]["used"]) == (12, 12 * 30)


async def test_a_user_without_limits_of_its_own_has_those_of_its_role(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    first, exception, newcomer = await customer(), await customer(), await customer()
    for someone in (first, exception):
        await operator.patch(f"/admin/users/{someone.user_id}", json={"role": "admin"})
    await put(operator, user_id=exception.user_id, tokens_per_minute=10**9)
    try:
        shown = await put(operator, role="admin", tokens_per_minute=10**10, tokens_per_day=10**10)
        assert (shown["role"], shown["org_id"], shown["limits"]["tokens_per_day"]) == ("admin", None, 10**10)
        await operator.patch(f"/admin/users/{newcomer.user_id}", json={"role": "admin"})
        for someone, minute in ((first, (10**10, "role")), (newcomer, (10**10, "role")), (exception, (10**9, "user"))):
            found = binding((await operator.get("/admin/limit", params={"user_id": someone.user_id})).json())
            assert (found["tokens_per_minute"], found["tokens_per_day"]) == (minute, (10**10, "role"))
            own = (await operator.get("/user/limit", headers=bearing(someone))).json()["user"]["tokens"]
            assert (own["minute"]["limit"], own["day"]["limit"]) == (minute[0], 10**10)
        facts = await refusal(door, newcomer, prompt_tokens=10**10)
        assert (facts["of"], facts["limit"]) == ("user", 10**10)
    finally:
        answer = await operator.delete("/admin/limit", params={"role": "admin"})
    assert answer.json()["limits"] == NO_LIMITS
    assert (await operator.get("/user/limit", headers=bearing(first))).json()["user"] is None
    assert (await operator.get("/user/limit", headers=bearing(exception))).json()["user"]["tokens"]["day"][
        "limit"
    ] is None


async def test_what_is_set_for_a_key_binds_that_key_alone(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone, other = await customer(plan="free"), await customer()
    await operator.patch(f"/admin/users/{other.user_id}", json={"org_id": someone.org_id})
    await put(operator, org_id=someone.org_id, requests_per_hour=100)
    shown = await put(
        operator, key_id=someone.key_id, requests_per_minute=1, requests_per_hour=101, tokens_per_day=10**11
    )
    assert (shown["org_id"], shown["key_id"]) == (someone.org_id, someone.key_id)
    assert shown["limits"] == NO_LIMITS | {
        "requests_per_minute": 1,
        "requests_per_hour": 101,
        "tokens_per_day": 10**11,
    }
    assert binding(shown) == {name: (limit, "plan") for name, limit in FREE.items()} | {
        "requests_per_minute": (1, "key"),
        "requests_per_hour": (100, "org"),
    }
    assert (await operator.get("/admin/limit", params={"key_id": someone.key_id})).json() == shown
    assert "granted" in await admitted(door, someone)
    facts = await refusal(door, someone)
    assert (facts["of"], facts["key_id"], facts["limit"]) == ("key", someone.key_id, 1)
    assert "granted" in await admitted(door, other)


async def test_setting_sets_all_six_and_what_is_left_out_follows(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone = await customer(plan="free")
    for subject in ({"org_id": someone.org_id}, {"key_id": someone.key_id}):
        await put(operator, **subject, requests_per_minute=5, tokens_per_day=7)
        shown = await put(operator, **subject, requests_per_day=6, tokens_per_day=None)
        assert shown["limits"] == NO_LIMITS | {"requests_per_day": 6}
    assert binding(shown) == {name: (limit, "plan") for name, limit in FREE.items()} | {"requests_per_day": (6, "key")}
    assert "granted" in await admitted(door, someone)
    assert (await put(operator, key_id=someone.key_id))["limits"] == NO_LIMITS


async def test_a_change_is_traced_and_a_repetition_is_not(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    for subject, target, action, field in (
        ({"org_id": someone.org_id}, someone.org_id, "org.updated", "limits_set"),
        ({"user_id": someone.user_id}, someone.user_id, "user.updated", "limits_set"),
        ({"key_id": someone.key_id}, someone.key_id, "key.updated", "limits"),
    ):
        for _ in range(2):
            await put(operator, **subject, requests_per_minute=5)
        for _ in range(2):
            answer = await operator.request("DELETE", "/admin/limit", params=subject)
            assert answer.status_code == 200
        trail = json.loads(await sql(shared_database, EVENTS, target))[1:]
        assert [(event["action"], event["org"]) for event in trail] == [(action, someone.org_id)] * 2
        five = NO_LIMITS | {"requests_per_minute": 5}
        assert [event["details"] for event in trail] == [
            {field: {"was": None, "is": five}},
            {field: {"was": five, "is": None}},
        ]


async def test_a_reset_takes_the_limits_away_and_the_counters_when_asked(
    operator: httpx.AsyncClient, door: Door, customer: Any, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    for subject, target in (
        ({"org_id": someone.org_id}, someone.org_id),
        ({"user_id": someone.user_id}, someone.user_id),
        ({"key_id": someone.key_id}, someone.key_id),
    ):
        await put(operator, **subject, requests_per_hour=1)
        await settled(door, await admitted(door, someone), 5)
        await refusal(door, someone)
        answer = await operator.delete("/admin/limit", params=subject)
        assert answer.json()["limits"] == NO_LIMITS
        await settled(door, await admitted(door, someone), 5)

        for _ in range(2):
            await operator.delete("/admin/limit", params={**subject, "counters": "true"})
        await put(operator, **subject, requests_per_hour=1)
        await settled(door, await admitted(door, someone), 5)
        await refusal(door, someone)
        actions = [event["action"] for event in json.loads(await sql(shared_database, EVENTS, target))]
        assert actions.count("limits.reset") == 1
        await operator.delete("/admin/limit", params={**subject, "counters": "true"})


@BOTH_DOORS
async def test_what_was_counted_counts_for_limits_set_later_and_a_reset_is_not_undone_by_what_ran(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone = await customer()
    running = await admitted(door, someone)
    org = {"org_id": someone.org_id}
    await put(operator, **org, requests_per_hour=1)
    await refusal(door, someone)
    await operator.delete("/admin/limit", params={**org, "counters": "true"})
    await settled(door, running, 5)  # of before: it gives nothing back to the new windows
    await put(operator, **org, requests_per_hour=1, tokens_per_hour=110)
    assert "granted" in await admitted(door, someone)
    await refusal(door, someone)


async def test_changes_of_plan_and_limits_at_once_leave_what_both_come_to(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    plan_id, someone = f"p{word()}", await person()
    await operator.post("/admin/plans", json={"id": plan_id, "name": "Team"})
    for turn in range(1, 7):
        answers = await asyncio.gather(
            operator.patch(f"/admin/plans/{plan_id}", json={"limits": {"tokens_per_day": turn}}),
            operator.patch(f"/admin/plans/{plan_id}", json={"limits": {"tokens_per_hour": turn}}),
            operator.post("/admin/limit", json={"org_id": someone.org_id, "requests_per_minute": turn}),
            operator.patch(f"/admin/orgs/{someone.org_id}", json={"limits": {"requests_per_day": turn}}),
            operator.post(
                "/admin/assign-plan", json={"user_id": someone.user_id, "plan": plan_id if turn % 2 else "pro"}
            ),
        )
        assert [answer.status_code for answer in answers] == [200] * 5
        agree = """
            select o.limits is not distinct from tollgate.in_force(o.limits_set, p) and not o.limits is null
            from tollgate.orgs o join tollgate.plans p on p.id = o.plan_id where o.id = $1
        """
        assert await sql(shared_database, agree, someone.org_id)
    plan = (await operator.get(f"/admin/plans/{plan_id}")).json()
    assert (plan["limits"]["tokens_per_day"], plan["limits"]["tokens_per_hour"]) == (6, 6)


async def test_limits_set_while_requests_come_lose_none_of_the_count(
    operator: httpx.AsyncClient, door: Door, customer: Any
) -> None:
    someone = await customer()
    await put(operator, org_id=someone.org_id, requests_per_hour=30)
    changes = [
        operator.post(
            "/admin/limit", json={"org_id": someone.org_id, "requests_per_hour": 30, "tokens_per_day": 10**9 + turn}
        )
        for turn in range(8)
    ]
    answers = await asyncio.gather(*(admitted(door, someone) for _ in range(40)), *changes)
    assert sum("granted" in answer for answer in answers[:40]) == 30


async def test_a_body_that_makes_no_sense_changes_nothing(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    before = await sql(shared_database, ROWS, someone.org_id)
    org = {"org_id": someone.org_id}
    for body in (
        {},
        {"requests_per_minute": 1},
        {**org, "user_id": someone.user_id, "requests_per_minute": 1},
        {**org, "key_id": someone.key_id, "requests_per_minute": 1},
        {"org_id": None, "requests_per_minute": 1},
        {**org, "requests_per_minute": -1},
        {**org, "requests_per_minute": 10**11 + 1},
        {**org, "requests_per_minute": 1.5},
        {**org, "requests_per_minute": "1"},
        {**org, "requests_per_minute": True},
        {**org, "requests_per_month": 1},
        {**org, "rate_limits": {"requests_per_minute": 1}},
        {**org, "requests_per_minute": 1, "role": "admin"},
        {**org, "requests_per_minute": 1, "balance_nanos": 1},
        {**org, "requests_per_minute": 1, "counters": None},
        {**org, "requests_per_minute": 1, "cost": 0},
        {"api_key": "tg_live_x", "requests_per_minute": 1},
    ):
        answer = await operator.post("/admin/limit", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), body
    for query in ({}, {**org, "key_id": someone.key_id}, {**org, "all": "1"}, {"org_id": "\0"}):
        assert (await operator.get("/admin/limit", params=query)).status_code == 400, query
        assert (await operator.delete("/admin/limit", params=query)).status_code == 400, query
    assert (await operator.delete("/admin/limit", params={**org, "counters": "perhaps"})).status_code == 400
    assert await sql(shared_database, ROWS, someone.org_id) == before


async def test_whom_there_is_not_has_no_limits(operator: httpx.AsyncClient, person: Any) -> None:
    gone = await person()
    await operator.delete(f"/admin/users/{gone.user_id}")
    for kind, subject in (
        ("org", {"org_id": "org_missing"}),
        ("user", {"user_id": "usr_missing"}),
        ("user", {"user_id": gone.user_id}),
        ("key", {"key_id": "key_missing"}),
    ):
        for answer in (
            await operator.get("/admin/limit", params=subject),
            await operator.post("/admin/limit", json={**subject, "requests_per_minute": 1}),
            await operator.delete("/admin/limit", params={**subject, "counters": "true"}),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["kind"], error["id"]) == (404, kind, next(iter(subject.values())))


@BOTH_DOORS
async def test_a_revoked_key_s_limits_stay_as_they_were(operator: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    await operator.delete(f"/admin/users/{someone.user_id}")
    answer = await operator.post("/admin/limit", json={"key_id": someone.key_id, "requests_per_minute": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "key_is_final")
    shown = await operator.get("/admin/limit", params={"key_id": someone.key_id})
    assert shown.json()["limits"] == NO_LIMITS


async def test_members_do_nothing_here_even_to_their_own_limits(
    operator: httpx.AsyncClient, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    before = await sql(shared_database, ROWS, someone.org_id)
    org = {"org_id": someone.org_id}
    for method, given in (("GET", {"params": org}), ("POST", {"json": org}), ("DELETE", {"params": org})):
        answer = await operator.request(method, "/admin/limit", headers=bearing(someone), **given)
        assert (answer.status_code, answer.json()["error"]["scope"]) == (403, "admin")
        assert (
            await operator.request(method, "/admin/limit", headers={"authorization": ""}, **given)
        ).status_code == 401
    assert await sql(shared_database, ROWS, someone.org_id) == before
