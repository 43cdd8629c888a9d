"""GET /admin/overview and POST /admin/audit."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from admin.api_client import ApiClient, unique
from admin.monitoring import installation, paid
from completions.paid import HOLD, Watched, an_item, unsettled
from gateway import BOTH_DOORS, Upstream
from people import Person
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.process import clock
from tollgate.usage import attention
from usage import past


@pytest.fixture
async def api(door: Door, sandbox: Upstream, person: Any) -> AsyncIterator[ApiClient]:
    async with installation(door, sandbox.url, await person("admin")) as made:
        yield made


async def over(api: ApiClient, **query: Any) -> Any:
    return await api.ask("GET", "/admin/overview", params={name.rstrip("_"): value for name, value in query.items()})


def of_kind(found: Any, kind: str) -> Any:
    return next((one for one in found["attention"] if one["kind"] == kind), None)


async def test_a_period_is_compared_with_the_one_before(own_database: str, sandbox: Upstream) -> None:
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    admin, someone = Person(door, "admin"), Person(door)
    for one in (admin, someone):
        await one.seed()
    async with installation(door, sandbox.url, admin) as api:
        await compare(api, someone, own_database)
    await door.close()


async def compare(api: ApiClient, someone: Person, database: str) -> None:
    start = past.NOON - timedelta(days=90)
    cost = {"cost_nanos": 10**9, "charge_nanos": 105 * 10**7, "model": "maker/dear"}
    rows = [past.of(someone, start + timedelta(hours=hour), **cost) for hour in (1, 25, 26, 27)]
    rows.append(past.of(someone, start + timedelta(hours=28), **past.failed()))
    await past.keep(database, rows)
    for rolled_up in (False, True):
        if rolled_up:
            await past.roll_up(database)
        found = await over(
            api, from_=(start + timedelta(days=1)).isoformat(), to=(start + timedelta(days=2)).isoformat()
        )
        period, before = found["period"], found["before"]
        assert (period["requests"], period["errors"], period["error_rate"]) == (4, 1, 0.25)
        assert (period["charge_nanos"], period["cost_nanos"]) == (315 * 10**7, 3 * 10**9)
        assert (period["margin_credits"], period["refunded_nanos"]) == ("0.15", 0)
        assert (before["requests"], before["charge_nanos"], before["to"]) == (1, 105 * 10**7, period["from"])
        assert period["latency"]["requests"] == 3
        assert period["first_token"]["p95_ms"] is not None
        assert found["bucket"] == "hour"
        assert [point["requests"] for point in found["series"][:5]] == [0, 1, 1, 1, 1]
        assert found["series"][4]["error_rate"] == 1
        (top,) = found["top_orgs"]
        assert (top["org_id"], top["margin_nanos"]) == (someone.org_id, 15 * 10**7)
        assert found["top_keys"][0]["key_id"] == someone.key_id
        assert found["top_models"][0]["model"] == cost["model"]


async def test_the_top_lists_are_those_of_the_period_up_to_now(own_database: str, sandbox: Upstream) -> None:
    """The sums of 30 days, where they are kept, and the requests themselves agree."""
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    admin, someone = Person(door, "admin"), Person(door)
    for one in (admin, someone):
        await one.seed()
    hours = (2, 30, 200, 29 * 24 + 20, 30 * 24 - 1, 31 * 24)
    await past.keep(own_database, [past.of(someone, clock.now() - timedelta(hours=hour)) for hour in hours])
    await past.roll_up(own_database, clock.now())
    async with installation(door, sandbox.url, admin) as api:
        for renewed in (False, True):
            if renewed:
                await door.call("tollgate_renew_leaders")
            tops = [(await over(api, hours=hours))["top_keys"] for hours in (24, 168, 720)]
            assert [[key["requests"] for key in top] for top in tops] == [[1], [2], [5]]
        assert [(await over(api, hours=hours))["bucket"] for hours in (168, 169)] == ["hour", "day"]
    await door.close()


async def test_a_refund_counts_in_the_period_in_which_it_is_made(api: ApiClient, door: Door, customer: Any) -> None:
    before = (await over(api))["period"]
    request_id = await paid(door, await customer())
    await api.http.post(
        "/admin/credits/refund",
        json={"request_id": request_id, "reason": "sorry"},
        headers={"authorization": f"Bearer {api.someone.secret}", "idempotency-key": unique("refund")},
    )
    after = (await over(api))["period"]
    assert after["refunded_nanos"] - before["refunded_nanos"] == 2100
    assert after["charge_nanos"] - before["charge_nanos"] == 2100


async def test_what_needs_attention_is_counted_and_leads_to_its_page(
    api: ApiClient, door: Door, customer: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    first = await over(api)
    await paid(door, someone, quarantined=True)
    await api.ask("PATCH", f"/admin/orgs/{(await customer()).org_id}", json={"paid_calls": "suspended"})
    await paid(door, await customer(HOLD), charge_nanos=2 * HOLD, cost_nanos=2 * HOLD * 100 // 105)
    open_one = await unsettled(door, someone, "gen-1")
    held = an_item(someone)
    await door.call("tollgate_admit", items=[held])
    early = "update tollgate.requests set created_at = now() - interval '1 day', expires_at = now() - interval '1 hour'"
    await sql(shared_database, f"{early} where id = any ($1)", [open_one["id"], held["id"]])
    await sql(shared_database, "select tollgate.roll_up_again(now() - interval '1 day')")
    second = await over(api)
    for kind, where in (
        ("quarantined", "/admin#/usage?quarantined=true"),
        ("unsettled", "/admin#/usage?state=unsettled"),
        ("paid_suspended", "/admin#/security?kind=org_paid_suspended"),
        ("overdrawn", "/admin#/orgs?sort=credits:asc"),
        ("expired_holds", "/admin#/usage?state=held"),
    ):
        now_is = of_kind(second, kind)
        assert now_is["count"] - (of_kind(first, kind) or {"count": 0})["count"] == 1
        assert str(now_is["count"]) in now_is["message"]
        assert now_is["where"] == where
    query = {"quarantined": "true", "org_id": someone.org_id}
    (row,) = (await api.ask("GET", "/admin/usage", params=query))["data"]
    assert row["quarantined"] is True
    severities = [attention.SEVERITIES.index(one["severity"]) for one in second["attention"]]
    assert severities == sorted(severities)


async def test_an_upstream_that_is_down_is_named(api: ApiClient, shared_database: str, sql: Any) -> None:
    before = of_kind(await over(api), "upstream_down")
    others = before["facts"]["names"] if before else []
    made = await sql(
        shared_database,
        "insert into tollgate.upstreams (name, base_url, dialect) values ('gpu-9', 'http://gpu/v1', 'vllm')"
        " returning id",
    )
    await sql(shared_database, "insert into tollgate.probes (upstream_id, status) values ($1, 'down')", made)
    found = of_kind(await over(api), "upstream_down")["facts"]
    assert sorted(found["names"]) == sorted([*others, "gpu-9"])
    await sql(shared_database, "delete from tollgate.upstreams where id = $1", made)


@BOTH_DOORS
async def test_the_audit_is_run_recorded_and_remembered(
    api: ApiClient, person: Any, shared_database: str, sql: Any
) -> None:
    good = await api.ask("POST", "/admin/audit", json={"books": True})
    assert (good["audited"], good["agree"], good["fault_count"]) == (True, True, 0)
    assert (await api.events("books"))[-1] == ("books.audited", {"agree": True, "fault_count": 0})
    someone = await person()
    change = "update tollgate.orgs set balance_nanos = balance_nanos + $2 where id = $1"
    await sql(shared_database, change, someone.org_id, 5)
    bad = await api.ask("POST", "/admin/audit")
    assert bad["agree"] is False
    assert of_kind(await over(api), "audit_failed")["count"] == bad["fault_count"] > 0
    await sql(shared_database, change, someone.org_id, -5)
    await api.ask("POST", "/admin/audit")
    assert of_kind(await over(api), "audit_failed") is None
    await api.of(someone).refused("POST", "/admin/audit", 403)


@BOTH_DOORS
async def test_it_takes_one_call_of_the_database_and_an_operator(door: Door, sandbox: Upstream, person: Any) -> None:
    watched = Watched(door)
    admin, member = await person("admin"), await person()
    async with installation(watched, sandbox.url, admin) as api:
        await over(api)
        assert watched.calls == ["overview"]
        await api.of(member).refused("GET", "/admin/overview", 403)
        refusal = await api.refused("GET", "/admin/overview", 400, params={"hours": 24 * 400})
        assert refusal["param"] == "from"


def test_this_instance_adds_what_only_it_knows() -> None:
    found = attention.of_instance(failing=["ups_1"], stale_seconds=400.4, days_left=1.26)
    shown = attention.shown([*found, attention.item("overdrawn", "warning", 2, overdrawn_nanos=10**15)])
    assert [(one["kind"], one["severity"], one["message"]) for one in shown] == [
        ("breaker_open", "critical", "Upstreams that fail and are not called for now: 1."),
        ("openrouter_credit_low", "critical", "The credit at OpenRouter lasts 1.3 days at today's rate."),
        ("stale_catalog", "warning", "The list of models could not be refreshed for 400 seconds."),
        ("overdrawn", "warning", "Orgs that owe credits: 2, together 1,000,000.00."),
    ]
    assert list(attention.of_instance(failing=[], stale_seconds=None, days_left=30)) == []
