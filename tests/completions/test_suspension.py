"""An org whose usage makes no sense twice within an hour is served no more paid calls until an operator has looked."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from completions.paid import admit, an_item, settle, settled
from gateway import Gateway
from people import Person
from sandbox.serving import a_chat
from tollgate.completions.settlements import Settlements
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import monotonic

Customer = Callable[..., Any]
Sql = Callable[..., Any]


async def quarantine(door: Door, someone: Person, times: int = 1) -> None:
    """So many requests, settled together."""
    asked = [an_item(someone) for _ in range(times)]
    answers = await admit(door, *asked)
    assert all("granted" in answer for answer in answers)
    await settle(door, *(settled(one, 110_250, quarantined=True) for one in asked))


async def code(door: Door, someone: Person, **more: Any) -> str:
    (answer,) = await admit(door, an_item(someone, **more))
    return str(answer["refusal"]["code"]) if "refusal" in answer else "granted"


async def age(url: str, sql: Sql, someone: Person) -> None:
    older = "update tollgate.orgs set quarantined_at = quarantined_at - interval '61 minutes' where id = $1"
    await sql(url, older, someone.org_id)


@pytest.mark.parametrize("together", [False, True])
async def test_the_second_quarantined_request_within_an_hour_suspends_paid_calls(
    door: Door, customer: Customer, shared_database: str, sql: Sql, together: bool
) -> None:
    someone, neighbour = await customer(), await customer()
    if together:
        await quarantine(door, someone, 2)
    else:
        await quarantine(door, someone)
        assert await code(door, someone) == "granted"
        await quarantine(door, someone)
    (refused, served) = await admit(door, an_item(someone), an_item(neighbour))
    facts = refused["refusal"].pop("facts")
    assert refused["refusal"] == {"status": 403, "code": "paid_calls_suspended"}
    assert facts["org_id"] == someone.org_id
    assert facts["suspended_at"].endswith("Z")
    assert "granted" in served
    recorded = (
        "select json_build_array(count(*), min(e.details ->> 'reason'), min(s.severity), min(s.subject))"
        " from tollgate.audit_events e join tollgate.security_events s"
        " on s.kind = 'org_paid_suspended' and s.org_id = e.org_id"
        " where e.action = 'org.paid_suspended' and e.org_id = $1"
    )
    found = json.loads(await sql(shared_database, recorded, someone.org_id))
    assert found == [1, "quarantined_usage", "critical", someone.org_id]


async def test_an_hour_apart_they_suspend_nothing(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    for _ in range(3):
        await quarantine(door, someone)
        await age(shared_database, sql, someone)
        assert await code(door, someone) == "granted"
    await quarantine(door, someone)
    await quarantine(door, someone)
    assert await code(door, someone) == "paid_calls_suspended"


async def test_a_repeated_settlement_is_no_second_one(door: Door, customer: Customer) -> None:
    someone = await customer()
    asked = an_item(someone)
    await admit(door, asked)
    for _ in range(3):
        await settle(door, settled(asked, 110_250, quarantined=True))
    assert await code(door, someone) == "granted"


async def test_while_suspended_what_runs_is_settled_and_what_was_granted_is_granted_again(
    door: Door, customer: Customer
) -> None:
    someone = await customer()
    running = an_item(someone)
    await admit(door, running)
    await quarantine(door, someone, 2)
    assert "granted" in (await admit(door, running))[0]
    (done,) = await settle(door, settled(running, 7))
    assert done["settled"]["state"] == "settled"


async def test_a_client_is_told_whom_to_ask_and_may_still_look(
    gateway: Gateway, door: Door, customer: Customer
) -> None:
    someone = await customer()
    await quarantine(door, someone, 2)
    answer = await gateway.post(someone, a_chat())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "paid_calls_suspended")
    assert "Contact your operator" in error["message"]
    async with gateway.client(someone) as client:
        for path in ("/user/balance", "/user/limit", "/user/usage", "/v1/models"):
            assert (await client.get(path)).status_code == 200, path


async def test_the_suspension_of_an_org_is_logged(door: Door, customer: Customer) -> None:
    someone, lines = await customer(), io.StringIO()
    logs.configure("info", [], lines)
    settlements = Settlements(door, clock=monotonic, randomness=lambda: 0.5)
    asked = [an_item(someone) for _ in range(2)]
    await admit(door, *asked)
    for one in asked:
        await settlements.settle(settled(one, 110_250, quarantined=True))
    (line,) = [line for line in lines.getvalue().splitlines() if "paid_calls_suspended" in line]
    told = json.loads(line)
    assert (told["org_id"], told["paid_request_id"]) == (someone.org_id, asked[1]["id"])
    assert told["level"] == "error"
