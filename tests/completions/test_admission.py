"""Admitting and settling in the database, through both doors: the money's whole life, without an upstream."""

import asyncio
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from completions.paid import admit, audited, released, settle, settled
from gateway import BOTH_DOORS, ONE_DOOR
from people import OLD_PEPPER, PEPPER, Person
from tollgate.core.errors import InternalError
from tollgate.credits import store as credits
from tollgate.database import Door, migrations
from tollgate.keys import rules
from tollgate.keys import store as keys
from tollgate.keys.authentication import console
from turns import not_at_the_end_of

pytestmark = BOTH_DOORS

CREDIT = 1_000_000_000
WINDOWS = ("minute", "hour", "day")
"""Each may turn in the middle of a test. Then what was counted before is in its previous bucket."""


def item(someone: Person, **more: Any) -> dict[str, Any]:
    """A request as the server asks for it: 10 tokens in, at most 100 out at 1,000 nanos each, 5 % markup."""
    caller = {"digests": [someone.key["digest"]], "pepper": someone.key["pepper"], "ip": "192.0.2.1"}
    return {
        "id": f"req_{secrets.token_hex(12)}",
        "caller": caller,
        "scope": "chat",
        "endpoint": "chat",
        "model": "maker/model",
        "models": ["maker/model"],
        "streamed": False,
        "fixed_nanos": "5000",
        "output_nanos": "1000",
        "output_bound": None,
        "least_output": 16,
        "most_output": 100,
        "choices": 1,
        "prompt_tokens": 10,
        "markup_ppm": 50_000,
        "ttl_seconds": 600,
        "price": {"prompt": "500", "completion": "1000"},
        **more,
    }


async def balance_of(someone: Person) -> tuple[int, int]:
    found = await credits.balance(someone.at_the_door())
    return found["balance_nanos"], found["held_nanos"]


@pytest.fixture
def payer(door: Door, person: Any, shared_database: str, sql: Callable[..., Any]) -> Callable[..., Any]:
    """A person whose org has credits and, unless asked for, no limits."""

    async def make(nanos: int = CREDIT, plan: str = "enterprise", **key: Any) -> Person:
        made: Person = await person(**key)
        await sql(shared_database, "update tollgate.orgs set plan_id = $1 where id = $2", plan, made.org_id)
        if nanos:
            await credits.grant(
                console(door, "tests"), made.org_id, nanos, source="funding", reason="", reference=made.org_id
            )
        return made

    return make


async def test_a_request_is_held_then_charged_what_it_cost(door: Door, payer: Any) -> None:
    someone = await payer()
    asked = item(someone)
    (granted,) = await admit(door, asked)
    held = -(-(5000 + 1000 * 100) * 105 // 100)
    assert granted["granted"] == {
        "id": asked["id"],
        "org_id": someone.org_id,
        "user_id": someone.user_id,
        "key_id": someone.key_id,
        "environment": "live",
        "hold_nanos": held,
        "output_bound": 100,
        "markup_ppm": 50_000,
        "balance_nanos": CREDIT,
        "held_nanos": held,
        "byok": None,
        "caches": None,
        "limits": None,
    }
    assert await balance_of(someone) == (CREDIT, held)
    (done,) = await settle(door, settled(asked, 26_250))
    assert done["settled"] == {
        "state": "settled",
        "charge_nanos": 26_250,
        "balance_nanos": CREDIT - 26_250,
        "again": False,
        "suspended_org_id": None,
    }
    assert await balance_of(someone) == (CREDIT - 26_250, 0)


async def test_a_released_request_costs_nothing(door: Door, payer: Any) -> None:
    someone = await payer()
    asked = item(someone)
    await admit(door, asked)
    (done,) = await settle(door, released(asked))
    assert done["settled"]["state"] == "released"
    assert await balance_of(someone) == (CREDIT, 0)


async def test_a_charge_of_nothing_is_settled_without_a_transfer(door: Door, payer: Any) -> None:
    someone = await payer()
    asked = item(someone)
    await admit(door, asked)
    await settle(door, settled(asked, 0))
    assert await balance_of(someone) == (CREDIT, 0)


async def test_repeating_admit_and_settle_changes_nothing(door: Door, payer: Any) -> None:
    """What the server does when it does not know whether its call arrived."""
    someone = await payer()
    asked = item(someone)
    first, second = [(await admit(door, asked))[0] for _ in range(2)]
    assert first["granted"]["hold_nanos"] == second["granted"]["hold_nanos"]
    answers = await asyncio.gather(*(settle(door, settled(asked, 1000)) for _ in range(6)))
    assert sorted(answer[0]["settled"]["again"] for answer in answers) == [False] + [True] * 5
    assert await balance_of(someone) == (CREDIT - 1000, 0)
    assert (await admit(door, asked))[0]["granted"]["id"] == asked["id"]
    assert await balance_of(someone) == (CREDIT - 1000, 0)


async def test_the_first_outcome_of_a_request_stands(door: Door, payer: Any) -> None:
    """Unless it was a guess: tests/completions/test_late.py."""
    someone = await payer()
    asked = item(someone)
    await admit(door, asked)
    outcomes = [settled(asked, 1000), settled(asked, 5000)] * 4
    answers = [answer[0]["settled"] for answer in await asyncio.gather(*(settle(door, one) for one in outcomes))]
    answers.append((await settle(door, released(asked)))[0]["settled"])
    assert sum(not answer["again"] for answer in answers) == 1
    assert len({(answer["state"], answer["charge_nanos"]) for answer in answers}) == 1


@pytest.mark.parametrize(
    "dear",
    [{"output_nanos": "9e15", "output_bound": 2_000_000}, {"fixed_nanos": "1e19"}, {"fixed_nanos": "1e300"}],
    ids=["by its output", "by its prompt", "beyond anything"],
)
async def test_a_hold_that_no_balance_could_carry_is_refused_and_its_neighbour_is_served(
    door: Door, payer: Any, dear: dict[str, Any]
) -> None:
    someone = await payer()
    refused, served = await admit(door, item(someone, **dear), item(someone))
    assert (refused["refusal"]["status"], refused["refusal"]["code"]) == (402, "insufficient_credits")
    assert refused["refusal"]["facts"]["required_nanos"] == 2**63 - 1
    assert "granted" in served


@pytest.mark.parametrize(
    "strange",
    [
        {"charge_nanos": 10**30},
        {"charge_nanos": 10**17 + 1},
        {"charge_nanos": -1},
        {"cost_nanos": 10**19},
        {"completion_tokens": 2**63},
        {"prompt_tokens": -5},
    ],
    ids=str,
)
async def test_a_settlement_that_nothing_could_carry_is_quarantined_at_its_hold_and_its_neighbour_is_settled(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any], strange: dict[str, Any]
) -> None:
    someone = await payer()
    asked, other = item(someone), item(someone)
    (granted, _) = await admit(door, asked, other)
    (done, neighbour) = await settle(door, settled(asked, 500) | strange, settled(other, 700))
    held = granted["granted"]["hold_nanos"]
    assert (done["settled"]["charge_nanos"], neighbour["settled"]["charge_nanos"]) == (held, 700)
    row = "select (quarantined, charge_nanos, cost_nanos)::text from tollgate.requests where id = $1"
    assert await sql(shared_database, row, asked["id"]) == f"(t,{held},105000)"
    assert await balance_of(someone) == (CREDIT - held - 700, 0)


async def test_an_unsettled_request_keeps_its_hold_until_the_truth_is_known(door: Door, payer: Any) -> None:
    someone = await payer()
    asked = item(someone)
    (granted,) = await admit(door, asked)
    await settle(door, {"id": asked["id"], "outcome": "unsettled", "generation_id": "gen-1"})
    assert await balance_of(someone) == (CREDIT, granted["granted"]["hold_nanos"])
    await audited(door)
    await settle(door, settled(asked, 700))
    assert await balance_of(someone) == (CREDIT - 700, 0)


async def test_a_cost_above_the_hold_posts_and_is_recorded(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer(nanos=200_000)
    asked = item(someone)
    await admit(door, asked)
    await settle(door, settled(asked, 250_000))
    assert await balance_of(someone) == (-50_000, 0)
    recorded = "select action || (details ->> 'balance_nanos') from tollgate.audit_events where target_id = $1"
    assert await sql(shared_database, recorded, asked["id"]) == "credits.overdrawn-50000"
    free = item(someone, fixed_nanos="0", output_nanos="0")
    (refused,) = await admit(door, free)
    assert refused["refusal"]["code"] == "insufficient_credits"


async def test_a_bound_the_balance_cannot_cover_is_refused_with_what_it_could(door: Door, payer: Any) -> None:
    someone = await payer(nanos=50_000)
    (refused,) = await admit(door, item(someone, output_bound=100))
    assert refused["refusal"] == {
        "status": 402,
        "code": "insufficient_credits",
        "facts": {"available_nanos": 50_000, "required_nanos": 110_250, "affordable_output_tokens": 42},
    }
    (granted,) = await admit(door, item(someone, output_bound=42))
    assert granted["granted"]["output_bound"] == 42


async def test_a_bound_left_open_shrinks_to_what_the_balance_affords(door: Door, payer: Any) -> None:
    someone = await payer(nanos=50_000)
    (granted,) = await admit(door, item(someone))
    assert granted["granted"]["output_bound"] == 42
    assert granted["granted"]["hold_nanos"] <= 50_000


async def test_a_bound_never_shrinks_below_the_least(door: Door, payer: Any) -> None:
    enough = -(-(5000 + 1000 * 16) * 105 // 100)
    just, short = await payer(nanos=enough), await payer(nanos=enough - 1)
    (granted,) = await admit(door, item(just))
    assert granted["granted"]["output_bound"] == 16
    (refused,) = await admit(door, item(short))
    assert refused["refusal"]["code"] == "insufficient_credits"
    assert refused["refusal"]["facts"]["required_nanos"] == enough


async def test_two_hundred_at_once_on_a_balance_for_thirty_seven(door: Door, payer: Any) -> None:
    hold = -(-(5000 + 1000 * 100) * 105 // 100)
    someone = await payer(nanos=37 * hold + hold - 1)
    asked = [item(someone, output_bound=100) for _ in range(200)]
    answers = [answer[0] for answer in await asyncio.gather(*(admit(door, one) for one in asked))]
    served = [one for one, answer in zip(asked, answers, strict=True) if "granted" in answer]
    assert len(served) == 37
    assert {answer["refusal"]["code"] for answer in answers if "refusal" in answer} == {"insufficient_credits"}
    assert await balance_of(someone) == (38 * hold - 1, 37 * hold)
    await asyncio.gather(*(settle(door, settled(one, hold)) for one in served))
    assert await balance_of(someone) == (hold - 1, 0)


async def test_a_batch_answers_each_item_for_itself(door: Door, payer: Any, person: Any) -> None:
    rich, poor, stranger = await payer(), await person(), Person(door)
    batch = [item(who) for who in (poor, rich, stranger, rich, poor)]
    answers = await admit(door, *batch)
    codes = [answer.get("refusal", {}).get("code", "granted") for answer in answers]
    assert codes == ["insufficient_credits", "granted", "invalid_api_key", "granted", "insufficient_credits"]
    unknown = {"id": "req_unknown", "outcome": "released"}
    done = await settle(door, settled(batch[1], 10), unknown, released(batch[3]))
    assert done[1]["refusal"]["code"] == "not_found"
    assert await balance_of(rich) == (CREDIT - 10, 0)


async def test_a_batch_over_one_balance_spends_it_once(door: Door, payer: Any) -> None:
    hold = -(-(5000 + 1000 * 100) * 105 // 100)
    someone = await payer(nanos=3 * hold)
    answers = await admit(door, *(item(someone, output_bound=100) for _ in range(10)))
    assert ["granted" in answer for answer in answers].count(True) == 3


async def test_batches_in_any_order_never_wait_in_a_circle(door: Door, payer: Any) -> None:
    people = [await payer() for _ in range(6)]
    batches = [[item(who) for who in (people if turn % 2 else reversed(people))] for turn in range(12)]
    admitted = await asyncio.gather(*(admit(door, *batch) for batch in batches))
    assert all("granted" in answer for answers in admitted for answer in answers)
    done = await asyncio.gather(*(settle(door, *(settled(one, 5) for one in batch)) for batch in batches))
    assert all(not answer["settled"]["again"] for answers in done for answer in answers)


async def test_batches_keep_the_order_while_a_pepper_is_rotated(door: Door, payer: Any) -> None:
    """A key that is still under the previous pepper is found by its second digest, for the order too."""
    people = [await payer(pepper=OLD_PEPPER) for _ in range(8)]

    def rotating(who: Person) -> dict[str, Any]:
        caller = {
            "digests": [rules.digest(who.secret, PEPPER), rules.digest(who.secret, OLD_PEPPER)],
            "pepper": rules.fingerprint(PEPPER),
            "ip": "192.0.2.1",
        }
        return item(who, caller=caller, models=["maker/model"] * 500)

    batches = [[rotating(who) for who in (people if turn % 2 else reversed(people))] for turn in range(12)]
    admitted = await asyncio.gather(*(admit(door, *batch) for batch in batches))
    assert all("granted" in answer for answers in admitted for answer in answers)


async def test_an_id_that_a_batch_names_twice_is_one_request(door: Door, payer: Any) -> None:
    someone = await payer()
    asked = item(someone)
    (granted, _) = await admit(door, asked, asked)
    assert await balance_of(someone) == (CREDIT, granted["granted"]["hold_nanos"])
    unsettled = {"id": asked["id"], "outcome": "unsettled"}
    (_, done, _) = await settle(door, unsettled, settled(asked, 70), settled(asked, 90))
    assert done["settled"]["charge_nanos"] == 70
    assert await balance_of(someone) == (CREDIT - 70, 0)


async def test_the_id_of_another_org_s_request_is_no_way_in(door: Door, payer: Any) -> None:
    someone, other = await payer(), await payer()
    asked = item(someone)
    await admit(door, asked)
    with pytest.raises(InternalError):
        await admit(door, item(other, id=asked["id"]))
    assert await balance_of(other) == (CREDIT, 0)


@ONE_DOOR
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("update tollgate.users set status = 'disabled' where org_id = $1", "key_disabled"),
        ("update tollgate.orgs set status = 'suspended' where id = $1", "key_disabled"),
        ("update tollgate.api_keys set expires_at = now() where org_id = $1", "key_expired"),
        ("update tollgate.api_keys set expires_at = now() + interval '1 hour' where org_id = $1", None),
        ("update tollgate.api_keys set ip_allowlist = '{198.51.100.0/24}' where org_id = $1", "ip_not_allowed"),
        ("update tollgate.api_keys set ip_allowlist = '{192.0.2.0/24}' where org_id = $1", None),
    ],
)
async def test_every_ask_is_recognised_anew(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any], change: str, code: str | None
) -> None:
    someone, neighbour = await payer(), await payer()
    await admit(door, item(someone), item(neighbour))
    await sql(shared_database, change, someone.org_id)
    answers = await admit(door, item(someone), item(neighbour))
    assert [answer.get("refusal", {}).get("code") for answer in answers] == [code, None]


async def test_the_use_of_a_key_is_noted_once_a_minute(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    used = "select last_used_at from tollgate.api_keys where id = $1"
    times = []
    for age in ("0 s", "20 s", "61 s"):
        aged = f"update tollgate.api_keys set last_used_at = last_used_at - interval '{age}' where id = $1"
        await sql(shared_database, aged, someone.key_id)
        before = await sql(shared_database, used, someone.key_id)
        await admit(door, item(someone))
        times.append(await sql(shared_database, used, someone.key_id) != before)
    assert times == [True, False, True]


@pytest.mark.parametrize("state", ["disabled", "revoked"])
async def test_a_key_ended_in_mid_flight_is_charged_and_then_refused(door: Door, payer: Any, state: str) -> None:
    someone = await payer()
    asked = item(someone)
    await admit(door, asked)
    await keys.set_key_state(console(door, "tests"), someone.key_id, state)
    await settle(door, settled(asked, 900))
    (refused,) = await admit(door, item(someone))
    assert refused["refusal"]["code"] == f"key_{state}"


async def test_a_key_without_the_scope_is_refused(door: Door, payer: Any) -> None:
    someone = await payer(scopes=["usage"])
    (refused,) = await admit(door, item(someone))
    assert refused["refusal"]["code"] == "permission_denied"


@ONE_DOOR
@pytest.mark.parametrize(
    ("patterns", "models", "allowed"),
    [
        (["maker/*"], ["maker/model"], True),
        (["other/*"], ["maker/model"], False),
        (["*:free", "maker/model"], ["maker/model"], True),
        (["maker/model"], ["maker/model", "maker/dearer"], False),
        (["maker/mod_l"], ["maker/model"], False),
        (["maker/100%"], ["maker/1000"], False),
        ([], ["maker/model"], False),
    ],
)
async def test_a_key_may_use_only_its_models(
    door: Door,
    payer: Any,
    shared_database: str,
    sql: Callable[..., Any],
    patterns: list[str],
    models: list[str],
    allowed: bool,
) -> None:
    someone = await payer()
    await sql(
        shared_database, "update tollgate.api_keys set allowed_models = $1 where id = $2", patterns, someone.key_id
    )
    (answer,) = await admit(door, item(someone, models=models))
    assert ("granted" in answer) is allowed


async def test_markup_follows_the_org_then_the_plan_then_the_setting(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer(plan="pro")
    found = [(await admit(door, item(someone)))[0]["granted"]["markup_ppm"]]
    await sql(shared_database, "update tollgate.orgs set markup_ppm = 200000 where id = $1", someone.org_id)
    found.append((await admit(door, item(someone)))[0]["granted"]["markup_ppm"])
    assert found == [50_000, 200_000]


async def test_a_budget_bounds_a_key_and_what_is_left_of_a_hold_comes_back(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    await not_at_the_end_of("day")
    someone = await payer()
    budget = "update tollgate.api_keys set budget_nanos = 150000, budget_reset = 'monthly' where id = $1"
    await sql(shared_database, budget, someone.key_id)
    asked = item(someone, output_bound=100)
    await admit(door, asked)
    (refused,) = await admit(door, item(someone, output_bound=100))
    assert refused["refusal"]["code"] == "key_budget_exhausted"
    facts = refused["refusal"]["facts"]
    assert (facts["spent_nanos"], facts["left_nanos"], facts["required_nanos"]) == (110_250, 39_750, 110_250)
    assert facts["resets_at"].endswith("-01T00:00:00.000Z")
    await settle(door, settled(asked, 10_000))
    again = item(someone, output_bound=100)
    assert "granted" in (await admit(door, again))[0]
    await sql(
        shared_database, "update tollgate.api_keys set budget_period = '2020-01-01' where id = $1", someone.key_id
    )
    assert "granted" in (await admit(door, item(someone, output_bound=100)))[0]


@pytest.mark.parametrize("quota", ["tokens_per_month", "tokens_in_all"])
async def test_a_quota_bounds_a_key_and_is_corrected_to_what_was_used(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any], quota: str
) -> None:
    await not_at_the_end_of("day")
    someone = await payer()
    await sql(shared_database, f"update tollgate.api_keys set {quota} = 150 where id = $1", someone.key_id)
    asked = item(someone, output_bound=100)
    await admit(door, asked)
    (refused,) = await admit(door, item(someone, output_bound=100))
    assert refused["refusal"]["code"] == "quota_exhausted"
    facts = refused["refusal"]["facts"]
    assert (facts["needed"], facts["left"], facts["limit"]) == (110, 40, 150)
    assert (facts["resets_at"] is None) == (facts["period"] == "lifetime") == (quota == "tokens_in_all")
    await settle(door, settled(asked, 1))
    assert "granted" in (await admit(door, item(someone, output_bound=100)))[0]


async def test_a_monthly_quota_starts_anew_on_its_day_and_not_on_another(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    await not_at_the_end_of("day")
    someone = await payer()
    spent = """
        update tollgate.api_keys
        set tokens_per_month = 150, tokens_used_in_month = 150, quota_reset_day = $2::integer,
          month_of_tokens = tollgate.quota_month($2::integer, now()) - $3 * interval '1 month'
        where id = $1
    """
    day = datetime.now(UTC).day
    for reset_day in {1, min(day, 28), day % 28 + 1}:
        await sql(shared_database, spent, someone.key_id, reset_day, 0)
        (refused,) = await admit(door, item(someone))
        assert refused["refusal"]["code"] == "quota_exhausted"
        await sql(shared_database, spent, someone.key_id, reset_day, 1)
        asked = item(someone)
        assert "granted" in (await admit(door, asked))[0]
        await settle(door, settled(asked, 1))
        used = "select tokens_used_in_month from tollgate.api_keys where id = $1"
        assert await sql(shared_database, used, someone.key_id) == 30


@ONE_DOOR
@pytest.mark.parametrize(
    ("what", "bound"),
    [
        ("tokens_per_month = 60", 50),  # all of it, but for the prompt's 10
        ("tokens_in_all = 60", 50),
        ("limits = row(null, null, null, null, 120, null)", 50),  # half of a window, so that others may run beside it
        ("budget_nanos = 57750", 50),
        ("budget_nanos = 57750, limits = row(null, null, null, 60, null, null)", 20),
        ("tokens_per_month = 27", 17),
    ],
)
async def test_an_open_bound_shrinks_to_what_the_key_has_left(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any], what: str, bound: int
) -> None:
    someone = await payer()
    await sql(shared_database, f"update tollgate.api_keys set {what} where id = $1", someone.key_id)
    (answer,) = await admit(door, item(someone))
    assert answer["granted"]["output_bound"] == bound


async def test_an_open_bound_takes_half_of_what_the_windows_have_left(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    limits = "update tollgate.orgs set limits = row(null, null, null, null, null, 160) where id = $1"
    await sql(shared_database, limits, someone.org_id)
    bounds = [(await admit(door, item(someone)))[0]["granted"]["output_bound"] for _ in range(3)]
    assert bounds == [70, 30, 16]
    (refused,) = await admit(door, item(someone, output_bound=100))
    assert refused["refusal"]["code"] == "rate_limit_exceeded"


async def test_limits_are_taken_all_or_none(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    limits = "update tollgate.orgs set limits = row(null, 100, 3, null, null, null) where id = $1"
    await sql(shared_database, limits, someone.org_id)
    answers = [(await admit(door, item(someone)))[0] for _ in range(6)]
    assert ["granted" in answer for answer in answers] == [True] * 3 + [False] * 3
    facts = answers[-1]["refusal"]["facts"]
    assert (facts["of"], facts["window"], facts["measure"], facts["limit"]) == ("org", "day", "requests", 3)
    assert 0 < facts["retry_after_ms"] <= 2 * 86_400_000
    counters = await sql(shared_database, "select counters from tollgate.orgs where id = $1", someone.org_id)
    taken = [counters[f"{window}_requests"] + counters[f"{window}_requests_before"] for window in WINDOWS]
    assert taken == [3, 3, 3]


async def test_a_grant_tells_of_the_tightest_window_of_each_measure(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    limits = "update tollgate.orgs set limits = row(10, 5, 1000, null, null, 100000) where id = $1"
    await sql(shared_database, limits, someone.org_id)
    batch = [item(someone) for _ in range(3)]
    told = [answer["granted"]["limits"] for answer in await admit(door, *batch)]
    assert sorted(each["requests"]["remaining"] for each in told) == [2, 3, 4]
    assert sorted(each["tokens"]["remaining"] for each in told) == [100_000 - 110 * taken for taken in (3, 2, 1)]
    assert {(each["requests"]["limit"], each["tokens"]["limit"]) for each in told} == {(5, 100_000)}
    assert all(3_600_000 < each["requests"]["reset_ms"] <= 2 * 3_600_000 for each in told)
    assert all(86_400_000 < each["tokens"]["reset_ms"] <= 2 * 86_400_000 for each in told)
    (again,) = await admit(door, batch[0])
    assert again["granted"]["limits"]["requests"]["remaining"] == 2


async def test_a_grant_tells_of_the_key_where_that_has_less_left(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    of_org = "update tollgate.orgs set limits = row(10, null, null, 500, null, null) where id = $1"
    of_key = "update tollgate.api_keys set limits = row(null, null, 3, 700, null, null) where id = $1"
    await sql(shared_database, of_org, someone.org_id)
    await sql(shared_database, of_key, someone.key_id)
    (granted,) = await admit(door, item(someone))
    told = granted["granted"]["limits"]
    assert (told["requests"]["limit"], told["requests"]["remaining"]) == (3, 2)
    assert (told["tokens"]["limit"], told["tokens"]["remaining"]) == (500, 390)


@pytest.mark.parametrize("table", ["orgs", "api_keys"])
async def test_a_grant_tells_nothing_of_a_measure_without_a_limit(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any], table: str
) -> None:
    someone = await payer()
    limits = f"update tollgate.{table} set limits = row(null, null, null, 500, null, null) where id in ($1, $2)"
    await sql(shared_database, limits, someone.org_id, someone.key_id)
    (granted,) = await admit(door, item(someone))
    assert granted["granted"]["limits"]["requests"] is None
    assert granted["granted"]["limits"]["tokens"]["remaining"] == 390


async def test_a_key_s_limits_hold_beside_the_org_s(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    limits = "update tollgate.api_keys set limits = row(1, null, null, null, null, null) where id = $1"
    await sql(shared_database, limits, someone.key_id)
    assert "granted" in (await admit(door, item(someone)))[0]
    (refused,) = await admit(door, item(someone))
    assert refused["refusal"]["facts"]["of"] == "key"
    counters = await sql(shared_database, "select counters from tollgate.orgs where id = $1", someone.org_id)
    assert counters["minute_requests"] == 1


async def test_tokens_are_reserved_and_corrected(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    tokens = "select (counters).day_tokens + (counters).day_tokens_before from tollgate.orgs where id = $1"
    asked = item(someone)
    await admit(door, asked)
    assert await sql(shared_database, tokens, someone.org_id) == 110
    await settle(door, settled(asked, 1))
    assert await sql(shared_database, tokens, someone.org_id) == 30
    other = item(someone)
    await admit(door, other)
    await settle(door, released(other))
    assert await sql(shared_database, tokens, someone.org_id) == 30


async def test_more_tokens_than_a_limit_are_never_admitted(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    limits = "update tollgate.orgs set limits = row(null, null, null, 50, null, null) where id = $1"
    await sql(shared_database, limits, someone.org_id)
    (refused,) = await admit(door, item(someone, output_bound=100))
    assert refused["refusal"]["facts"]["retry_after_ms"] is None


def idempotent(someone: Person, key: str, body: str = "same", **more: Any) -> dict[str, Any]:
    return item(someone, idempotency_key=key, body_hash=body, **more)


async def test_an_idempotency_key_runs_once_and_then_replays(door: Door, payer: Any) -> None:
    someone = await payer()
    first = idempotent(someone, "k1")
    assert "granted" in (await admit(door, first))[0]
    (running,) = await admit(door, idempotent(someone, "k1"))
    assert running["refusal"]["code"] == "request_in_progress"
    await settle(door, settled(first, 500, answer={"status": 200, "body": "hello"}))
    (replayed,) = await admit(door, idempotent(someone, "k1"))
    whose = {"request_id": first["id"], "org_id": someone.org_id, "key_id": someone.key_id}
    assert replayed["replay"] == {"status": 200, "body": "hello", **whose}
    (reused,) = await admit(door, idempotent(someone, "k1", body="other"))
    assert reused["refusal"]["code"] == "idempotency_key_reused"
    assert await balance_of(someone) == (CREDIT - 500, 0)


async def test_the_same_idempotency_key_at_once_runs_once(door: Door, payer: Any) -> None:
    someone = await payer()
    answers = await asyncio.gather(*(admit(door, idempotent(someone, "k1")) for _ in range(10)))
    assert ["granted" in answer[0] for answer in answers].count(True) == 1
    within = await admit(door, *(idempotent(someone, "k2") for _ in range(10)))
    assert ["granted" in answer for answer in within].count(True) == 1


async def answered(door: Door, someone: Person) -> None:
    """One request under the key k1, with an answer that is kept."""
    first = idempotent(someone, "k1")
    await admit(door, first)
    await settle(door, settled(first, 500, answer={"status": 200}))


async def test_a_replay_respects_the_models_of_the_key_that_asks(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    await answered(door, someone)
    narrow = "update tollgate.api_keys set allowed_models = '{other/*}' where id = $1"
    await sql(shared_database, narrow, someone.key_id)
    (refused,) = await admit(door, idempotent(someone, "k1"))
    assert (refused["refusal"]["code"], refused["refusal"]["facts"]["model"]) == ("model_not_allowed", "maker/model")


@pytest.mark.parametrize(("table", "of"), [("orgs", "org"), ("users", "user"), ("api_keys", "key")])
async def test_a_replay_takes_a_request_of_the_windows_and_neither_tokens_nor_credits(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any], table: str, of: str
) -> None:
    someone = await payer()
    ids = [someone.org_id, someone.user_id, someone.key_id]
    limits = f"update tollgate.{table} set limits = row(3, null, null, 200, null, null) where id = any ($1)"
    await sql(shared_database, limits, ids)
    await answered(door, someone)
    answers = [(await admit(door, idempotent(someone, "k1")))[0] for _ in range(3)]
    assert ["replay" in answer for answer in answers] == [True, True, False]
    facts = answers[-1]["refusal"]["facts"]
    assert answers[-1]["refusal"]["code"] == "rate_limit_exceeded"
    assert (facts["of"], facts["measure"]) == (of, "requests")
    assert 0 < facts["retry_after_ms"] <= 120_000
    counters = (
        "select array[(counters).minute_requests + (counters).minute_requests_before,"
        f" (counters).minute_tokens + (counters).minute_tokens_before] from tollgate.{table} where id = any ($1)"
    )
    assert await sql(shared_database, counters, ids) == [3, 30]
    assert await balance_of(someone) == (CREDIT - 500, 0)


async def test_a_batch_of_replays_takes_what_is_left_of_the_window(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    limits = "update tollgate.orgs set limits = row(3, null, null, null, null, null) where id = $1"
    await sql(shared_database, limits, someone.org_id)
    await answered(door, someone)
    answers = await admit(door, *(idempotent(someone, "k1") for _ in range(4)))
    assert ["replay" in answer for answer in answers].count(True) == 2


@ONE_DOOR
@pytest.mark.parametrize("outcome", ["settled", "unsettled"])
@pytest.mark.parametrize("answer", [{}, {"answer": None}, {"answer": {"kept": False}}])
async def test_an_idempotency_key_whose_request_ended_without_an_answer_says_so(
    door: Door, payer: Any, outcome: str, answer: dict[str, Any]
) -> None:
    someone = await payer()
    first = idempotent(someone, "k1")
    await admit(door, first)
    await settle(door, settled(first, 500, **answer) | {"outcome": outcome})
    (replayed,) = await admit(door, idempotent(someone, "k1"))
    whose = {"request_id": first["id"], "org_id": someone.org_id, "key_id": someone.key_id}
    assert replayed["replay"] == {"kept": False, **whose}
    (reused,) = await admit(door, idempotent(someone, "k1", body="other"))
    assert reused["refusal"]["code"] == "idempotency_key_reused"


async def test_an_answer_that_comes_before_the_truth_about_the_cost_is_kept(door: Door, payer: Any) -> None:
    someone = await payer()
    first = idempotent(someone, "k1")
    await admit(door, first)
    for one in ({"answer": {"status": 200}, "outcome": "unsettled"}, {"outcome": "unsettled"}, {}):
        await settle(door, settled(first, 500) | one)
        (replayed,) = await admit(door, idempotent(someone, "k1"))
        assert replayed["replay"]["status"] == 200


async def test_an_answer_that_comes_late_takes_the_place_of_none(door: Door, payer: Any) -> None:
    someone = await payer()
    first = idempotent(someone, "k1")
    await admit(door, first)
    await settle(door, {"id": first["id"], "outcome": "unsettled"})
    await settle(door, settled(first, 500, answer={"status": 200}))
    (replayed,) = await admit(door, idempotent(someone, "k1"))
    assert replayed["replay"]["status"] == 200


async def test_an_idempotency_key_belongs_to_its_org(door: Door, payer: Any) -> None:
    one, other = await payer(), await payer()
    assert "granted" in (await admit(door, idempotent(one, "k1")))[0]
    assert "granted" in (await admit(door, idempotent(other, "k1", body="other")))[0]


async def test_an_idempotency_key_is_free_again_when_nothing_happened_or_a_day_passed(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    first = idempotent(someone, "k1")
    await admit(door, first)
    await settle(door, released(first))
    second = idempotent(someone, "k1")
    assert "granted" in (await admit(door, second))[0]
    await settle(door, settled(second, 1, answer={"status": 200}))
    age = "update tollgate.answers set created_at = created_at - interval '25 hours' where org_id = $1"
    await sql(shared_database, age, someone.org_id)
    assert "granted" in (await admit(door, idempotent(someone, "k1", body="other")))[0]


async def note(door: Door, *items: dict[str, str]) -> list[bool]:
    answers = await door.call("tollgate_note_generations", items=list(items))
    return [answers[item["id"]]["noted"] for item in items]


async def test_many_generations_are_noted_at_once_and_none_waits_for_a_request_that_is_being_settled(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    asked = [item(someone) for _ in range(3)]
    await admit(door, *asked)
    noted = [{"id": one["id"], "generation_id": f"gen-{one['id']}", "upstream": "openrouter"} for one in asked]
    settling = await asyncpg.connect(shared_database)
    async with settling.transaction():
        await settling.execute("select from tollgate.requests where id = $1 for update", asked[1]["id"])
        assert await note(door, *noted) == [True, False, True]
    await settling.close()
    kept = "select array_agg(generation_id) from tollgate.requests where org_id = $1 and generation_id = 'gen-' || id"
    assert sorted(await sql(shared_database, kept, someone.org_id)) == sorted(
        noted[place]["generation_id"] for place in (0, 2)
    )


async def test_a_generation_is_noted_while_it_runs(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    asked = item(someone)
    await admit(door, asked)
    noted = {"id": asked["id"], "generation_id": "gen-7", "upstream": "openrouter"}
    assert await note(door, noted) == [True]
    assert (
        await sql(shared_database, "select generation_id from tollgate.requests where id = $1", asked["id"]) == "gen-7"
    )
    await settle(door, settled(asked, 1))
    assert await note(door, noted, {**noted, "id": "req_unknown"}) == [False, False]


async def test_what_is_due_is_taken_by_one_sweeper(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    asked = [item(someone, ttl_seconds=0) for _ in range(30)]
    await admit(door, *asked)
    await settle(door, settled(asked[0], 1))
    ours = {one["id"] for one in asked}
    taken: list[str] = []

    async def sweeper() -> None:
        while due := (await door.call("tollgate_due", page_size=10, lease_seconds=60))["data"]:
            taken.extend(row["id"] for row in due if row["id"] in ours)

    await asyncio.gather(*(sweeper() for _ in range(6)))
    assert sorted(taken) == sorted(ours - {asked[0]["id"]})
    again = await door.call("tollgate_due", page_size=100, lease_seconds=60)
    assert not ours & {row["id"] for row in again["data"]}


async def test_what_is_due_says_what_a_sweeper_needs(door: Door, payer: Any) -> None:
    someone = await payer()
    asked = item(someone, ttl_seconds=-120, streamed=True)
    await admit(door, asked)
    due = await door.call("tollgate_due", page_size=1000, lease_seconds=60)
    (row,) = [row for row in due["data"] if row["id"] == asked["id"]]
    assert (row["org_id"], row["endpoint"], row["model"]) == (someone.org_id, "chat", "maker/model")
    assert (row["streamed"], row["reserved_tokens"], row["state"]) == (True, 110, "held")
    assert -180 < row["expires_in_seconds"] <= -120
    assert datetime.fromisoformat(row["created_at"]).utcoffset() == timedelta(0)


async def test_a_sweep_forgets_answers_after_a_day(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    for key in ("old", "new"):
        await admit(door, idempotent(someone, key))
    age = "update tollgate.answers set created_at = created_at - interval '24 hours' where (org_id, idempotency_key) = "
    await sql(shared_database, f"{age} ($1, 'old')", someone.org_id)
    await door.call("tollgate_due", page_size=1, lease_seconds=0)
    kept = "select array_agg(idempotency_key) from tollgate.answers where org_id = $1"
    assert await sql(shared_database, kept, someone.org_id) == ["new"]


async def test_holds_that_nobody_swept_end_at_their_prompt(
    door: Door, payer: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await payer()
    lost, fresh, noted, unsettled = asked = [
        item(someone, ttl_seconds=-3601, price={"fixed_nanos": "5000"}) for _ in range(4)
    ]
    fresh["ttl_seconds"] = -3500
    (granted, *_) = await admit(door, *asked)
    await note(door, {"id": noted["id"], "generation_id": "gen-7", "upstream": "openrouter"})
    await settle(door, {"id": unsettled["id"], "outcome": "unsettled"})
    held = granted["granted"]["hold_nanos"]
    ended = [(await door.call("tollgate_expire", page_size=1000))["ended"] for _ in range(2)]
    assert ended[0] >= 1
    assert ended[1] == 0
    assert await balance_of(someone) == (CREDIT - 5250, 3 * held)
    row = "select (state, estimated, charge_nanos, cost_nanos)::text from tollgate.requests where id = $1"
    assert await sql(shared_database, row, lost["id"]) == "(settled,t,5250,5000)"


async def test_where_there_is_pg_cron_it_ends_them(bare_database: str, sql: Callable[..., Any]) -> None:
    """A stand-in for the extension: what the migration asks it for is all that concerns us."""
    await sql(
        bare_database,
        """
        do $$ begin
          insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
          values (99999, 'pg_cron', 10, 'public'::regnamespace, false, '1.6');
          create schema cron;
          create table cron.job (jobname text, schedule text, command text);
          create function cron.schedule(text, text, text) returns bigint language sql
          as 'insert into cron.job values ($1, $2, $3) returning 1::bigint';
        end $$
        """,
    )
    await migrations.migrate(bare_database)
    assert await sql(bare_database, "select schedule from cron.job where jobname = 'tollgate-expire'") == "* * * * *"
    assert json.loads(await sql(bare_database, await sql(bare_database, "select command from cron.job"))) == {
        "ended": 0
    }


async def test_the_audit_names_what_does_not_fit(own_database: str, sql: Callable[..., Any]) -> None:
    """An audit that cannot fail proves nothing."""

    async def faults() -> list[tuple[str, str]]:
        books = json.loads(await sql(own_database, "select public.tollgate_audit_books()"))
        return sorted((fault["fault"], fault["id"]) for fault in books["faults"])

    await sql(own_database, "insert into tollgate.orgs (id, name) values ('org_a', 'A'), ('org_b', 'B')")
    assert await faults() == []
    await sql(own_database, "update tollgate.orgs set balance_nanos = 5 where id = 'org_a'")
    await sql(own_database, "update tollgate.orgs set held_nanos = 7 where id = 'org_b'")
    assert await faults() == [("balance", "org_a"), ("held", "org_b")]
    await sql(
        own_database,
        "insert into tollgate.transfers "
        "(org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos) "
        "values ('org_a', 'wallet', 'revenue', 5, 'charge', 'req_gone', 5)",
    )
    stray = await sql(own_database, "select tollgate.transfer_id(1)")
    assert {("stray_charge", stray), ("running_balance", stray)} <= set(await faults())


@ONE_DOOR
async def test_neither_admitting_nor_settling_reads_a_table_whole(door: Door, payer: Any, shared_database: str) -> None:
    """Not even while the tables are small: the plan of that moment would stay when they are large."""
    someone = await payer()
    await admit(door, *(item(someone) for _ in range(50)))
    scans = "select array_agg(relname) from pg_stat_xact_user_tables where schemaname = 'tollgate' and seq_scan > 0"
    connection = await asyncpg.connect(shared_database)
    async with connection.transaction():
        asked = item(someone)
        for function, items in (("admit", [asked]), ("settle", [settled(asked, 1)])):
            await connection.fetchval(f"select public.tollgate_{function}($1)", json.dumps(items))
            assert await connection.fetchval(scans) is None, function
    await connection.close()
