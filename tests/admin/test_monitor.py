"""GET /admin/monitor over HTTP."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from admin.api_client import ApiClient
from admin.monitoring import MANAGEMENT_KEY, installation, paid, seen
from completions.paid import HOLD, Watched, an_item, unsettled
from gateway import Upstream
from people import PEPPER, Person
from sandbox.serving import a_chat
from tollgate.core.money import credits_text
from tollgate.database import Door
from turns import not_at_the_end_of

Customer = Callable[..., Awaitable[Person]]

SPANS = ("today", "last_7_days", "last_30_days")
MEASURES = (
    "requests", "errors", "prompt_tokens", "completion_tokens", "charge_nanos", "cost_nanos", "margin_nanos",
)  # fmt: skip


@pytest.fixture
async def api(door: Door, sandbox: Upstream, person: Any) -> AsyncIterator[ApiClient]:
    await not_at_the_end_of("day")
    async with installation(door, sandbox.url, await person("admin")) as made:
        yield made


def grown(before: Any, after: Any, *measures: str) -> list[Any]:
    return [after[measure] - before[measure] for measure in measures]


async def test_what_was_used_is_added_up_for_each_span(api: ApiClient, door: Door, customer: Customer) -> None:
    before = await seen(api)
    someone = await customer()
    for _ in range(3):
        await paid(door, someone)
    await paid(
        door, someone, outcome="released", charge_nanos=0, cost_nanos=0, prompt_tokens=None, completion_tokens=None,
        error_code="upstream_timeout", status=504,
    )  # fmt: skip
    after = await seen(api)
    for span in SPANS:
        assert grown(before["usage"][span], after["usage"][span], *MEASURES) == [4, 1, 30, 15, 6300, 6000, 300]
        assert after["usage"][span]["margin_credits"] == credits_text(after["usage"][span]["margin_nanos"])
    assert grown(before["last_24_hours"], after["last_24_hours"], "requests", "errors") == [4, 1]
    assert after["last_24_hours"]["error_rate"] == pytest.approx(
        after["last_24_hours"]["errors"] / after["last_24_hours"]["requests"]
    )


async def test_durations_of_the_day_are_told(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer()
    before = (await seen(api))["last_24_hours"]
    await paid(door, someone)
    after = (await seen(api))["last_24_hours"]
    for measured in ("latency", "first_token"):
        assert after[measured]["requests"] == before[measured]["requests"] + 1
        assert after[measured]["p50_ms"] <= after[measured]["p95_ms"] <= after[measured]["p99_ms"]


async def test_people_are_counted_and_those_active_today(api: ApiClient, door: Door, customer: Customer) -> None:
    idle, busy = await customer(), await customer()
    before = await seen(api)
    await paid(door, busy)
    await paid(door, busy)
    after = await seen(api)
    for kind in ("orgs", "users", "keys"):
        assert grown(before[kind], after[kind], "total", "usable", "active_today") == [0, 0, 1], kind
    await customer()
    more = await seen(api)
    for kind in ("orgs", "users", "keys"):
        assert grown(after[kind], more[kind], "total", "usable", "active_today") == [1, 1, 0], kind
    assert idle.org_id != busy.org_id


async def test_a_key_that_may_not_act_is_not_usable(
    api: ApiClient, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    before = await seen(api)
    for change in (
        "revoked_at = now()",
        "revoked_at = null, disabled_at = now()",
        "disabled_at = null, expires_at = now()",
    ):
        await sql(shared_database, f"update tollgate.api_keys set {change} where org_id = $1", someone.org_id)
        assert grown(before["keys"], (await seen(api))["keys"], "total", "usable") == [0, -1], change


async def test_who_is_charged_most_leads(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer(10**15)
    model = f"maker/{someone.number}"
    item = an_item(someone, model=model, models=[model], output_nanos="100000000000")
    await door.call("tollgate_admit", items=[item])
    ending = {"id": item["id"], "outcome": "settled", "charge_nanos": 10**13, "cost_nanos": 10**12}
    await door.call("tollgate_settle", items=[ending | {"prompt_tokens": 10, "completion_tokens": 90}])
    found = await seen(api)
    money = {"charge_nanos": 10**13, "cost_nanos": 10**12, "margin_nanos": 9 * 10**12}
    used = {"requests": 1, "tokens": 100, **money}
    assert used.items() <= {**_named(found["top_orgs"], "org_id", someone.org_id), "name": "Org"}.items()
    assert used.items() <= _named(found["top_models"], "model", model).items()
    key = _named(found["top_keys"], "key_id", someone.key_id)
    assert used.items() <= key.items()
    assert key["masked_key"] == f"{someone.secret[:12]}…{someone.secret[-4:]}"
    for top in ("top_orgs", "top_keys", "top_models"):
        charges = [one["charge_nanos"] for one in found[top]]
        assert charges == sorted(charges, reverse=True)
        assert len(charges) <= 10


def _named(top: list[Any], name: str, value: str) -> Any:
    (found,) = [one for one in top if one[name] == value]
    return found


async def test_the_newest_requests_come_first(api: ApiClient, door: Door, customer: Customer) -> None:
    someone, other = await customer(), await customer()
    made = [await paid(door, someone), await paid(door, other, status=502, error_code="upstream_cut")]
    newest = (await seen(api))["recent_requests"]
    assert [request["id"] for request in newest[:2]] == made[::-1]
    assert len(newest) <= 20
    told = {"org_id": other.org_id, "key_id": other.key_id, "status": 502, "error_code": "upstream_cut"}
    assert told.items() <= newest[0].items()


async def test_holds_that_nobody_ended_are_shown(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer()
    before = (await seen(api))["open_holds"]
    item = an_item(someone)
    await door.call("tollgate_admit", items=[item])
    await unsettled(door, someone, "gen-1")
    after = (await seen(api))["open_holds"]
    assert grown(before, after, "count", "held_nanos", "unsettled") == [2, 2 * HOLD, 1]
    assert after["oldest_at"] is not None
    await door.call("tollgate_settle", items=[{"id": item["id"], "outcome": "released"}])
    assert grown(before, (await seen(api))["open_holds"], "count", "held_nanos") == [1, HOLD]


async def test_an_org_that_owes_is_shown_with_what_it_owes(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer(HOLD)
    before = (await seen(api))["overdrawn"]
    debt = 10**14
    await paid(door, someone, charge_nanos=HOLD + debt, cost_nanos=HOLD)
    after = (await seen(api))["overdrawn"]
    assert grown(before, after, "count", "overdrawn_nanos") == [1, debt]
    assert _named(after["orgs"], "org_id", someone.org_id)["credits_nanos"] == -debt


async def test_an_org_whose_paid_calls_are_suspended_is_shown(
    api: ApiClient, customer: Customer, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    before = (await seen(api))["paid_suspended"]
    await api.ask("PATCH", f"/admin/orgs/{someone.org_id}", json={"paid_calls": "suspended"})
    early = "update tollgate.orgs set paid_suspended_at = '2020-01-01Z' where id = $1"  # so that it is among the first
    await sql(shared_database, early, someone.org_id)
    after = (await seen(api))["paid_suspended"]
    assert after["count"] - before["count"] == 1
    shown = _named(after["orgs"], "org_id", someone.org_id)
    assert shown == {
        "org_id": someone.org_id, "name": "Org", "suspended_at": "2020-01-01T00:00:00.000Z", "reason": "operator",
    }  # fmt: skip


async def test_this_instance_s_catalogue_and_upstreams_are_shown(api: ApiClient, customer: Customer) -> None:
    fresh = await seen(api)
    assert fresh["catalog"]["live"]["models"] == 0
    assert fresh["upstreams"] == []
    body = json.dumps(a_chat())
    someone = api.of(await customer())
    await someone.ask("POST", "/v1/chat/completions", content=body)
    await someone.ask("GET", "/v1/models")
    used = await seen(api)
    assert used["catalog"]["live"]["models"] > 0
    assert used["catalog"]["live"]["fresh"] is True
    (upstream,) = used["upstreams"]
    assert {"id": "openrouter", "breaker": "closed", "in_flight": 0}.items() <= upstream.items()


async def test_it_takes_one_call_of_the_database(door: Door, sandbox: Upstream, person: Any) -> None:
    watched = Watched(door)
    admin = await person("admin")
    async with installation(watched, sandbox.url, admin) as api:
        await seen(api)
        assert watched.calls == ["monitor"]


async def test_it_shows_no_secret(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer(10**15)
    await paid(door, someone, charge_nanos=10**13)
    text = json.dumps(await seen(api))
    assert someone.org_id in text
    for secret in (someone.secret, someone.key["digest"], api.someone.secret, MANAGEMENT_KEY, PEPPER):
        assert secret not in text


async def test_only_an_admin_s_key_with_that_scope_opens_it(api: ApiClient, person: Any) -> None:
    for stranger in (await person(), await person("admin", scopes=["usage"]), await person("member", scopes=["admin"])):
        assert (await api.of(stranger).refused("GET", "/admin/monitor", 403))["scope"] == "admin"
    assert (await api.http.get("/admin/monitor")).status_code == 401
