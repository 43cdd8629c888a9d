"""GET /user/monitor, GET /user/overview and GET /user/key/usage over HTTP."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from admin.api_client import ApiClient
from admin.monitoring import installation, paid
from completions.paid import HOLD, Watched, an_item
from gateway import BOTH_DOORS, Upstream
from people import PEPPER, Person
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import console
from turns import not_at_the_end_of

Customer = Callable[..., Awaitable[Person]]

WINDOWS = ("minute", "hour", "day")
NOTHING_USED = {
    "requests": 0,
    "errors": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "tokens": 0,
    "average_tokens": None,
    "charge_nanos": 0,
    "charge_credits": "0.00",
    "most_used_model": None,
    "last_request_at": None,
}
NO_LIMITS = {"concurrent": {"limit": None, "in_flight": 0, "remaining": None}} | {
    measure: {window: {"limit": None, "used": 0, "remaining": None, "resets_at": None} for window in WINDOWS}
    for measure in ("requests", "tokens")
}


@pytest.fixture
async def api(door: Door, sandbox: Upstream, person: Any) -> AsyncIterator[ApiClient]:
    await not_at_the_end_of("day")
    async with installation(door, sandbox.url, await person("admin")) as made:
        yield made


async def monitor(api: ApiClient, someone: Person) -> Any:
    return await api.of(someone).ask("GET", "/user/monitor")


async def key_usage(api: ApiClient, someone: Person) -> Any:
    return await api.of(someone).ask("GET", "/user/key/usage")


async def another_key(door: Door, someone: Person) -> Person:
    """Another key of the same user."""
    other = Person(door)
    org = {"id": someone.org_id, "name": "Org", "plan_id": "free"}
    owner = {"id": someone.user_id, "email": f"{other.number}@example.com", "name": "", "role": "member"}
    other.key_id = (await store.seed(console(door, "tests"), org, owner, other.key))["id"]
    return other


def next_month() -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today.replace(day=28) + timedelta(days=4)).replace(day=1)


def at(told: str) -> datetime:
    return datetime.fromisoformat(told)


async def test_one_who_has_used_nothing_sees_the_balance(api: ApiClient, customer: Customer) -> None:
    someone = await customer()
    told = await monitor(api, someone)
    assert abs(datetime.now(UTC) - at(told.pop("at"))) < timedelta(minutes=1)
    assert told == {
        "masked_key": f"{someone.secret[:12]}…{someone.secret[-4:]}",
        "org_id": someone.org_id,
        "user_id": someone.user_id,
        "plan": "enterprise",
        "credits": "1.00",
        "credits_nanos": NANOS_PER_CREDIT,
        "held_nanos": 0,
        "held_credits": "0.00",
        "available_credits": "1.00",
        "available_nanos": NANOS_PER_CREDIT,
        "usage": {"today": NOTHING_USED, "this_month": NOTHING_USED, "all_time": NOTHING_USED},
        "limits": {"org": NO_LIMITS, "user": None, "key": None},
        "allowances": {"budget": None, "tokens_in_month": None, "tokens_in_all": None},
    }


async def test_usage_is_the_whole_org_s_and_nobody_else_s(api: ApiClient, door: Door, customer: Customer) -> None:
    someone, stranger = await customer(), await customer()
    for payer in (someone, await another_key(door, someone), stranger):
        await paid(door, payer)
    await paid(door, someone, outcome="released", charge_nanos=0, error_code="upstream_cut", status=502)
    told = await monitor(api, someone)
    for span in ("today", "this_month", "all_time"):
        used = told["usage"][span]
        assert (used["requests"], used["errors"]) == (3, 1)
        assert (used["prompt_tokens"], used["completion_tokens"], used["tokens"]) == (30, 15, 45)
        assert used["average_tokens"] == 15
        assert (used["charge_nanos"], used["charge_credits"]) == (4200, "0.0000042")
        assert used["most_used_model"] == "sandbox/echo"
        assert datetime.now(UTC) - at(used["last_request_at"]) < timedelta(minutes=1)
    assert told["credits_nanos"] == NANOS_PER_CREDIT - 4200


@BOTH_DOORS
async def test_the_overview_is_the_monitor_the_series_and_the_models(
    api: ApiClient, door: Door, customer: Customer
) -> None:
    someone, stranger = await customer(), await customer()
    for payer in (someone, await another_key(door, someone), stranger):
        await paid(door, payer)
    owner = api.of(someone)
    query = {"from": (datetime.now(UTC) - timedelta(days=30)).isoformat(), "to": datetime.now(UTC).isoformat()}
    told = await owner.ask("GET", "/user/overview", params=query)
    assert told.pop("series") == await owner.ask("GET", "/user/usage/series", params=query | {"bucket": "day"})
    assert told.pop("models") == await owner.ask("GET", "/user/usage/aggregate", params=query | {"by": "model"})
    assert {**told, "at": None} == {**await monitor(api, someone), "at": None}
    assert (await owner.ask("GET", "/user/overview"))["series"]["bucket"] == "hour"


async def test_earlier_days_count_for_the_month_and_all_time_only(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    moments = {
        "today": "now()",
        "the first of the month": "date_trunc('month', now(), 'UTC')",
        "the month before": "date_trunc('month', now(), 'UTC') - interval '1 microsecond'",
        "last year": "now() - interval '1 year'",
    }
    for moment in moments.values():
        made = await paid(door, someone)
        await sql(shared_database, f"update tollgate.requests set created_at = {moment} where id = $1", made)
    await sql(shared_database, "select tollgate.roll_up_again(now() - interval '1 year')")
    told = (await monitor(api, someone))["usage"]
    of_today = 2 if datetime.now(UTC).day == 1 else 1
    assert [told[span]["requests"] for span in ("today", "this_month", "all_time")] == [of_today, 2, 4]


async def test_the_most_used_model_is_the_one_of_most_requests(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer()
    for model in ("maker/rare", "maker/usual", "maker/usual"):
        item = an_item(someone, model=model, models=[model])
        await door.call("tollgate_admit", items=[item])
        tokens = 1000 if model == "maker/rare" else 1
        ending = {"outcome": "settled", "charge_nanos": tokens, "cost_nanos": 1, "completion_tokens": tokens}
        await door.call("tollgate_settle", items=[{"id": item["id"], "prompt_tokens": 0, **ending}])
    assert (await monitor(api, someone))["usage"]["today"]["most_used_model"] == "maker/usual"


async def test_what_it_cost_us_is_nobody_s_business(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer()
    await paid(door, someone, charge_nanos=50_000, cost_nanos=12_345)
    for told in (await monitor(api, someone), await key_usage(api, someone)):
        assert "12345" not in json.dumps(told)
        assert "cost" not in json.dumps(told)
        assert "margin" not in json.dumps(told)


async def test_what_is_held_is_not_available(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer()
    await door.call("tollgate_admit", items=[an_item(someone)])
    told = await monitor(api, someone)
    assert (told["held_nanos"], told["available_nanos"]) == (HOLD, NANOS_PER_CREDIT - HOLD)
    assert told["usage"]["today"]["requests"] == 1


async def test_each_window_tells_what_remains_and_when_it_is_free_again(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    limits = "row(5, null, 100, null, 1000, null)::tollgate.limits"
    await sql(shared_database, f"update tollgate.orgs set limits = {limits} where id = $1", someone.org_id)
    untouched = (await monitor(api, someone))["limits"]["org"]
    assert untouched["requests"]["minute"] == {"limit": 5, "used": 0, "remaining": 5, "resets_at": None}
    await paid(door, someone)
    await paid(door, someone)
    told = (await monitor(api, someone))["limits"]["org"]
    assert [told["requests"][window]["remaining"] for window in WINDOWS] == [3, None, 98]
    assert told["tokens"]["minute"]["limit"] is told["tokens"]["day"]["limit"] is None
    hour = told["tokens"]["hour"]
    assert (hour["limit"], hour["used"], hour["remaining"]) == (1000, 30, 970)
    for window, length in ((told["requests"]["minute"], 60), (hour, 3600), (told["requests"]["day"], 86_400)):
        assert timedelta(0) < at(window["resets_at"]) - datetime.now(UTC) <= timedelta(seconds=2 * length)
        assert at(window["resets_at"]).timestamp() % length == 0


async def test_a_plan_s_limits_and_a_key_s_own_are_both_told(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer(plan="free")
    limits = "row(7, null, null, null, null, 500)::tollgate.limits"
    await sql(shared_database, f"update tollgate.api_keys set limits = {limits} where id = $1", someone.key_id)
    other = await another_key(door, someone)
    await paid(door, someone)
    told = (await monitor(api, someone))["limits"]
    assert told["org"]["requests"]["minute"] == told["org"]["requests"]["minute"] | {"limit": 20, "remaining": 19}
    assert told["key"]["requests"]["minute"] == told["key"]["requests"]["minute"] | {"limit": 7, "remaining": 6}
    assert told["key"]["tokens"]["day"] == told["key"]["tokens"]["day"] | {"limit": 500, "used": 15}
    others = (await monitor(api, other))["limits"]
    assert others["org"]["requests"]["minute"]["remaining"] == 19
    assert others["key"] is None


async def test_what_runs_at_once_is_told_beside_its_bound(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    await sql(shared_database, "update tollgate.orgs set max_concurrent_requests = 5 where id = $1", someone.org_id)
    await door.call("tollgate_admit", items=[an_item(someone) for _ in range(2)])
    told = (await monitor(api, someone))["limits"]
    assert told["org"]["concurrent"] == {"limit": 5, "in_flight": 2, "remaining": 3}
    assert told["key"] is None


@pytest.mark.parametrize(
    ("reset", "resets"),
    [("daily", timedelta(days=1)), ("weekly", timedelta(days=7)), ("monthly", None), ("never", None)],
)
async def test_a_key_s_budget_and_quotas_are_told(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str, reset: str, resets: timedelta | None
) -> None:
    someone = await customer()
    change = (
        "update tollgate.api_keys set budget_nanos = 1000000, budget_reset = $2, tokens_per_month = 500, "
        "tokens_in_all = 200 where id = $1"
    )
    await sql(shared_database, change, someone.key_id, reset)
    await paid(door, someone)
    told = (await monitor(api, someone))["allowances"]
    assert told["budget"] | {"resets_at": 0} == {
        "limit_nanos": 1_000_000,
        "limit_credits": "0.001",
        "spent_credits": "0.0000021",
        "remaining_credits": "0.0009979",
        "spent_nanos": 2100,
        "remaining_nanos": 997_900,
        "resets_at": 0,
    }
    assert told["tokens_in_month"] | {"resets_at": at(told["tokens_in_month"]["resets_at"])} == {
        "limit": 500,
        "used": 15,
        "remaining": 485,
        "resets_at": next_month(),
    }
    assert told["tokens_in_all"] == {"limit": 200, "used": 15, "remaining": 185, "resets_at": None}
    if reset == "never":
        assert told["budget"]["resets_at"] is None
    elif resets:
        assert timedelta(0) < at(told["budget"]["resets_at"]) - datetime.now(UTC) <= resets
    else:
        assert at(told["budget"]["resets_at"]) == next_month()


async def test_a_key_s_own_usage_is_told_with_its_quota(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    await sql(shared_database, "update tollgate.api_keys set tokens_per_month = 500 where id = $1", someone.key_id)
    await paid(door, someone)
    await paid(door, someone)
    await paid(door, await another_key(door, someone))
    told = await key_usage(api, someone)
    first, last = at(told.pop("first_request_at")), at(told.pop("last_request_at"))
    assert first < last <= datetime.now(UTC) + timedelta(seconds=1)
    assert at(told.pop("quota_reset_at")) == next_month()
    await sql(shared_database, "update tollgate.api_keys set quota_reset_day = 28 where id = $1", someone.key_id)
    assert at((await key_usage(api, someone))["quota_reset_at"]).day == 28
    assert told == {
        "org_id": someone.org_id,
        "user_id": someone.user_id,
        "name": "Of the tests",
        "quota_used": 30,
        "quota_monthly": 500,
        "rpm_limit": None,
        "rpm_remaining": None,
        "total_requests": 2,
        "total_tokens": 30,
        "total_prompt_tokens": 20,
        "total_completion_tokens": 10,
    }


async def test_without_a_quota_the_month_s_tokens_are_told(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    await paid(door, someone)
    earlier = await paid(door, someone)
    past = (
        "update tollgate.requests set created_at = date_trunc('month', now(), 'UTC') - interval '1 day' where id = $1"
    )
    await sql(shared_database, past, earlier)
    await sql(shared_database, "select tollgate.roll_up_again(now() - interval '2 months')")
    told = await key_usage(api, someone)
    assert (told["quota_used"], told["quota_monthly"], told["total_tokens"]) == (15, None, 30)


@pytest.mark.parametrize(("of_org", "of_key", "told"), [(9, 4, 4), (4, 9, 4), (9, None, 9), (None, 9, 9)])
async def test_the_requests_a_minute_are_those_of_whichever_leaves_less(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str, of_org: Any, of_key: Any, told: int
) -> None:
    someone = await customer()
    for table, name, most in (("orgs", someone.org_id, of_org), ("api_keys", someone.key_id, of_key)):
        limits = "row($2::bigint, null, null, null, null, null)::tollgate.limits"
        await sql(shared_database, f"update tollgate.{table} set limits = {limits} where id = $1", name, most)
    await paid(door, someone)
    found = await key_usage(api, someone)
    assert (found["rpm_limit"], found["rpm_remaining"]) == (told, told - 1)


async def test_one_who_never_called_has_no_first_request(api: ApiClient, customer: Customer) -> None:
    told = await key_usage(api, await customer())
    assert (told["first_request_at"], told["last_request_at"], told["total_requests"]) == (None, None, 0)


@pytest.mark.parametrize(("path", "call"), [("/user/monitor", "own_monitor"), ("/user/key/usage", "key_usage")])
async def test_each_takes_one_call_of_the_database(
    door: Door, sandbox: Upstream, customer: Customer, path: str, call: str
) -> None:
    watched, someone = Watched(door), await customer()
    async with installation(watched, sandbox.url, someone) as api:
        await api.ask("GET", path)
        assert watched.calls == [call]


@pytest.mark.parametrize("path", ["/user/monitor", "/user/key/usage"])
async def test_neither_shows_a_secret_nor_opens_without_the_scope(
    api: ApiClient, customer: Customer, person: Any, path: str
) -> None:
    someone = await customer()
    text = json.dumps(await api.of(someone).ask("GET", path))
    for secret in (someone.secret, someone.key["digest"], rules.digest(someone.secret, PEPPER), PEPPER):
        assert secret not in text
    stranger = await person(scopes=["chat", "keys"])
    assert (await api.of(stranger).refused("GET", path, 403))["scope"] == "usage"
    assert (await api.http.get(path)).status_code == 401
