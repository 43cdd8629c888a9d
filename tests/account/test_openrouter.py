"""The account under /api/v1, in OpenRouter's shapes: from our own books, of the own org, and never our cost."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys import store as keys
from tollgate.keys.authentication import console
from tollgate.settings import read
from turns import not_at_the_end_of
from usage import past
from usage.past import NOON, of


async def beginning_of_today() -> datetime:
    await not_at_the_end_of("day")
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate/api/v1") as made:
        yield made


async def ask(client: httpx.AsyncClient, someone: Person, path: str, **query: Any) -> httpx.Response:
    return await client.get(path, params=query, headers={"authorization": f"Bearer {someone.secret}"})


async def data(client: httpx.AsyncClient, someone: Person, path: str, **query: Any) -> Any:
    answer = await ask(client, someone, path, **query)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def nanos(amount: float) -> int:
    exact = Decimal(str(amount)) * NANOS_PER_CREDIT
    assert exact == int(exact)
    return int(exact)


async def test_credits_are_what_was_given_and_what_was_charged(
    client: httpx.AsyncClient, person: Any, door: Door, shared_database: str
) -> None:
    someone = await person()
    granted = 2 * NANOS_PER_CREDIT + 1
    granter = console(door, "tests")
    await credits.grant(granter, someone.org_id, granted, source="funding", reason="", reference=someone.org_id)
    await past.keep(
        shared_database, [of(someone, cost_nanos=952_381_000, charge_nanos=1_000_000_050), of(someone, **past.failed())]
    )
    told = await data(client, someone, "/credits")
    assert {name: nanos(amount) for name, amount in told.items()} == {
        "total_credits": granted,
        "total_usage": 1_000_000_050,
    }


@BOTH_DOORS
async def test_a_key_tells_its_budget_and_what_it_was_charged(
    client: httpx.AsyncClient, person: Any, door: Door, shared_database: str
) -> None:
    today = await beginning_of_today()
    plain, someone = await person(), await person(scopes=["chat"])
    budget = {"budget_nanos": 5 * NANOS_PER_CREDIT, "budget_reset": "weekly"}
    await keys.change_key(console(door, "tests"), someone.key_id, budget, "admin")
    await past.keep(
        shared_database, [of(someone, today, cost_nanos=20, charge_nanos=21), of(someone, NOON - timedelta(days=90))]
    )
    told = await data(client, someone, "/key")
    assert (told["limit"], told["limit_remaining"], told["limit_reset"]) == (5.0, 5.0, "weekly")
    assert (nanos(told["usage"]), nanos(told["usage_daily"]), nanos(told["usage_weekly"])) == (1071, 21, 21)
    assert nanos(told["usage_monthly"]) == 21
    assert told["label"] == f"{someone.secret[:12]}…{someone.secret[-4:]}"
    assert told["budgets"] == [told["effective_budget"]]
    assert told["effective_budget"]["limit_usd"] == 5.0
    assert (told["is_free_tier"], told["is_management_key"]) == (True, False)
    assert told["free_model_daily_requests"] == {"limit": 1000, "used": 0, "remaining": 1000}
    assert told["rate_limit"]["requests"] == 20
    without = await data(client, plain, "/key")
    assert [without[name] for name in ("limit", "limit_remaining", "limit_reset", "effective_budget")] == [None] * 4
    assert without["budgets"] == []
    assert (await data(client, await person(scopes=["keys"]), "/key"))["is_management_key"]


async def test_a_generation_is_found_by_either_id_within_the_own_org(
    client: httpx.AsyncClient, person: Any, shared_database: str
) -> None:
    someone, other = await person(), await person()
    name = f"gen-{someone.number}"
    usage = {"completion_tokens_details": {"reasoning_tokens": 3}, "cost": 0.000001}
    row = of(someone, generation_id=name, streamed=True, usage=usage)
    left, opened = of(someone, error_code="client_gone"), of(someone, **past.still_open())
    await past.keep(shared_database, [row, left, opened])
    told = await data(client, someone, "/generation", id=name)
    assert told == await data(client, someone, "/generation", id=row["id"])
    assert (told["id"], told["request_id"], told["api_type"]) == (name, row["id"], "completions")
    assert (told["model"], told["provider_name"]) == ("maker/model-2", "openrouter")
    assert (nanos(told["total_cost"]), nanos(told["usage"]), told["upstream_inference_cost"]) == (1050, 1050, None)
    assert (told["tokens_prompt"], told["native_tokens_completion"], told["native_tokens_reasoning"]) == (10, 5, 3)
    assert (told["latency"], told["generation_time"], told["cancelled"], told["finish_reason"]) == (
        50,
        500,
        False,
        None,
    )
    assert told["provider_responses"] == [{"provider_name": "openrouter", "status": 200, "latency": 500}]
    gone = await data(client, someone, "/generation", id=left["id"])
    assert (gone["cancelled"], gone["finish_reason"], gone["id"]) == (True, "error", left["id"])
    for who, sought in ((other, name), (other, row["id"]), (someone, opened["id"]), (someone, "gen-nobody")):
        answer = await ask(client, who, "/generation", id=sought)
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "code": 404,
            "message": f"No generation has the id {sought}.",
            "metadata": answer.json()["error"]["metadata"],
        }


async def test_activity_adds_up_to_the_charges_of_the_completed_days(
    client: httpx.AsyncClient, person: Any, shared_database: str
) -> None:
    today = await beginning_of_today()
    someone, other = await person(), await person()
    usage = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}
    rows = [row | {"usage": usage} for row in past.many(someone, 40)]
    outside = [of(someone, today), of(someone, today - timedelta(days=31))]
    await past.keep(shared_database, [*rows, *outside, of(other)])
    told = await data(client, someone, "/activity")
    charged = sum(row["charge_nanos"] or 0 for row in rows)
    assert sum(nanos(one["usage"]) for one in told) == charged
    assert sum(one["requests"] for one in told) == len(rows)
    assert sum(one["prompt_tokens"] for one in told) == sum(row["prompt_tokens"] or 0 for row in rows)
    for field, of_what, most in (("cached_tokens", "prompt_tokens", 2), ("reasoning_tokens", "completion_tokens", 1)):
        assert sum(one[field] for one in told) == sum(min(most, row[of_what] or 0) for row in rows) > 0
    assert [one["date"] for one in told] == sorted((one["date"] for one in told), reverse=True)
    day = f"{NOON + timedelta(days=1):%Y-%m-%d}"
    of_day = await data(client, someone, "/activity", date=day, user_id=someone.user_id, api_key_hash=someone.key_id)
    assert of_day == [one for one in told if one["date"] == day]
    assert await data(client, someone, "/activity", api_key_hash=other.key_id) == []


@pytest.mark.parametrize("date", ["0.5", "1700000000", "today", "2026-02-30", "2026-1-1", "1990-01-01", "{today}"])
async def test_activity_is_of_a_day_that_is_completed(client: httpx.AsyncClient, person: Any, date: str) -> None:
    today = await beginning_of_today()
    answer = await ask(client, await person(), "/activity", date=date.format(today=f"{today:%Y-%m-%d}"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)
    assert answer.json()["error"]["message"].startswith("date: ")


@BOTH_DOORS
async def test_the_org_s_figures_need_the_scope_usage(client: httpx.AsyncClient, person: Any) -> None:
    chatting = await person(scopes=["chat"])
    for path in ("/credits", "/generation?id=gen-1", "/activity"):
        answer = await client.get(path, headers={"authorization": f"Bearer {chatting.secret}"})
        assert (answer.status_code, answer.json()["error"]["metadata"]["error_type"]) == (403, "permission_denied")
