"""How many requests an org or a key may have open at once: exact, and counted until the hold ends."""

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from completions.paid import admit, an_item, released, settle, settled
from gateway import Gateway
from people import PEPPER, Person
from sandbox.serving import a_chat
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import console

Customer = Callable[..., Any]
Sql = Callable[..., Any]

CALLERS = 16
BOUND = 5


async def call(connection: asyncpg.Connection, function: str, item: dict[str, Any]) -> dict[str, Any]:
    answers = await connection.fetchval(f"select public.tollgate_{function}($1)", json.dumps([item]))
    answer: dict[str, Any] = json.loads(answers)[item["id"]]
    return answer


async def bind_org(url: str, sql: Sql, someone: Person, bound: int | None) -> None:
    await sql(url, "update tollgate.orgs set max_concurrent_requests = $1 where id = $2", bound, someone.org_id)


async def bind_key(door: Door, someone: Person, bound: int | None) -> Any:
    terms = {"max_concurrent_requests": bound}
    return await store.change_key(console(door, "tests"), someone.key_id, terms)


def code(answer: dict[str, Any]) -> str:
    return str(answer["refusal"]["code"]) if "refusal" in answer else "granted"


@pytest.mark.parametrize("of", ["org", "key"])
async def test_many_connections_never_have_more_open_than_the_bound_and_do_reach_it(
    door: Door, customer: Customer, shared_database: str, sql: Sql, of: str
) -> None:
    someone = await customer()
    if of == "org":
        await bind_org(shared_database, sql, someone, BOUND)
    else:
        await bind_key(door, someone, BOUND)
    connections = [await asyncpg.connect(shared_database) for _ in range(CALLERS)]
    running = most = 0
    told: set[int] = set()

    async def caller(connection: asyncpg.Connection) -> None:
        nonlocal running, most
        for _ in range(12):
            asked = an_item(someone)
            answer = await call(connection, "admit", asked)
            if "refusal" in answer:
                assert code(answer) == "too_many_in_flight"
                told.add(answer["refusal"]["facts"]["in_flight"])
                continue
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            await call(connection, "settle", settled(asked, 100))

    at_once = await asyncio.gather(*(call(each, "admit", an_item(someone)) for each in connections))
    assert [code(answer) for answer in at_once].count("granted") == BOUND
    for answer in at_once:
        if "granted" in answer:
            await call(connections[0], "settle", released({"id": answer["granted"]["id"]}))
    await asyncio.gather(*(caller(connection) for connection in connections))
    assert most <= BOUND
    assert told <= {BOUND}
    full = [await call(connections[0], "admit", an_item(someone)) for _ in range(BOUND + 1)]
    assert [code(answer) for answer in full] == ["granted"] * BOUND + ["too_many_in_flight"]
    for connection in connections:
        await connection.close()


async def test_a_request_beyond_the_bound_is_refused_and_takes_nothing(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone, neighbour = await customer(), await customer()
    await bind_org(shared_database, sql, someone, 2)
    row = "select to_jsonb(o)::text from tollgate.orgs o where id = $1"
    answers = await admit(door, *(an_item(someone) for _ in range(2)))
    assert [code(answer) for answer in answers] == ["granted", "granted"]
    before = await sql(shared_database, row, someone.org_id)
    refused, served = await admit(door, an_item(someone), an_item(neighbour))
    assert refused["refusal"] == {
        "status": 429,
        "code": "too_many_in_flight",
        "facts": {"limit": 2, "in_flight": 2, "of": "org"},
    }
    assert code(served) == "granted"
    assert await sql(shared_database, row, someone.org_id) == before


async def test_a_request_counts_until_its_hold_ends(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    await bind_org(shared_database, sql, someone, 1)
    asked = an_item(someone)
    codes = []
    for ending in ({"id": asked["id"], "outcome": "unsettled"}, settled(asked, 5)):
        codes.append(code((await admit(door, asked))[0]))
        codes.append(code((await admit(door, an_item(someone)))[0]))
        await settle(door, ending)
        await settle(door, ending)
    codes.append(code((await admit(door, an_item(someone)))[0]))
    assert codes == ["granted", "too_many_in_flight", "granted", "too_many_in_flight", "granted"]


async def test_a_batch_fills_the_bound_and_no_more(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    await bind_org(shared_database, sql, someone, 3)
    batch = [an_item(someone) for _ in range(5)]
    answers = await admit(door, *batch)
    assert sorted(map(code, answers)) == ["granted"] * 3 + ["too_many_in_flight"] * 2
    open_ones = [one for one, answer in zip(batch, answers, strict=True) if "granted" in answer]
    await settle(door, *(settled(one, 5) for one in open_ones[:2]))
    answers = await admit(door, *(an_item(someone) for _ in range(5)))
    assert sorted(map(code, answers)) == ["granted"] * 2 + ["too_many_in_flight"] * 3


async def test_an_org_follows_its_plan_s_bound_unless_it_has_its_own(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    plan_id = f"p{secrets.token_hex(4)}"
    await sql(
        shared_database,
        "insert into tollgate.plans (id, name, max_concurrent_requests) values ($1, 'Team', 1)",
        plan_id,
    )
    await sql(shared_database, "update tollgate.orgs set plan_id = $1 where id = $2", plan_id, someone.org_id)
    codes = [code((await admit(door, an_item(someone)))[0]) for _ in range(2)]
    await bind_org(shared_database, sql, someone, 2)
    codes += [code((await admit(door, an_item(someone)))[0]) for _ in range(2)]
    assert codes == ["granted", "too_many_in_flight"] * 2


async def test_a_key_s_bound_holds_within_the_org_s_and_counts_what_was_open_before(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    early = an_item(someone)
    await admit(door, early)
    shown = (await bind_key(door, someone, 2))["key"]
    assert (shown["max_concurrent_requests"], shown["open_requests"]) == (2, 1)
    answers = await admit(door, *(an_item(someone) for _ in range(2)))
    refused = next(answer for answer in answers if "refusal" in answer)
    assert refused["refusal"]["facts"] == {"limit": 2, "in_flight": 2, "of": "key", "key_id": someone.key_id}
    await settle(door, settled(early, 5))
    assert code((await admit(door, an_item(someone)))[0]) == "granted"
    assert (await bind_key(door, someone, None))["key"]["open_requests"] is None
    assert code((await admit(door, an_item(someone)))[0]) == "granted"
    assert (await bind_key(door, someone, 9))["key"]["open_requests"] == 3


async def test_a_rotated_key_and_its_successor_share_one_bound_however_long_ago_it_ended(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    await bind_key(door, someone, 1)
    old = an_item(someone)
    await admit(door, old)
    secret = rules.mint("live", secrets.token_bytes(32))
    imprints = {name: rules.imprint(secret, PEPPER) for name in rules.PREFIXES}
    successor = (await store.rotate_key(console(door, "tests"), someone.key_id, 1, imprints, "keys"))["key"]
    caller = {**old["caller"], "digests": [rules.digest(secret, PEPPER)]}
    assert code((await admit(door, an_item(someone, caller=caller)))[0]) == "too_many_in_flight"
    ended = "update tollgate.api_keys set expires_at = now() - interval '3 days' where id = $1"
    await sql(shared_database, ended, someone.key_id)
    await store.change_key(console(door, "tests"), successor["id"], {"max_concurrent_requests": 2})
    await settle(door, settled(old, 5))
    answers = await admit(door, *(an_item(someone, caller=caller) for _ in range(3)))
    assert sorted(map(code, answers)) == ["granted", "granted", "too_many_in_flight"]


async def test_a_client_is_told_to_come_again_in_a_second(
    gateway: Gateway, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    await bind_org(shared_database, sql, someone, 0)
    answer = await gateway.post(someone, a_chat())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    error = answer.json()["error"]
    assert (error["code"], error["limit"], error["in_flight"], error["of"]) == ("too_many_in_flight", 0, 0, "org")
    await bind_org(shared_database, sql, someone, 1)
    assert [(await gateway.post(someone, a_chat())).status_code for _ in range(3)] == [200] * 3


async def test_the_audit_names_the_org_and_the_key_whose_count_is_off(own_database: str, sql: Sql) -> None:
    await sql(
        own_database,
        """
        with org as (insert into tollgate.orgs (id, name, open_requests) values ('org_a', 'A', 1) returning id),
        owner as (insert into tollgate.users (id, org_id, email) values ('usr_a', 'org_a', 'a@example.com'))
        insert into tollgate.api_keys (
          id, org_id, user_id, name, digest, pepper, prefix, last_four, scopes, max_concurrent_requests, open_requests
        )
        values ('key_a', 'org_a', 'usr_a', 'K', sha256('a'), '00000000', 'tg_live_', 'abcd', '{chat}', 3, 2)
        """,
    )
    faults = json.loads(await sql(own_database, "select public.tollgate_audit_books()"))["faults"]
    assert sorted((fault["fault"], fault["id"], fault["facts"]) for fault in faults) == [
        ("in_flight", "key_a", {"open_requests": 2, "open_holds": 0}),
        ("in_flight", "org_a", {"open_requests": 1, "open_holds": 0}),
    ]
