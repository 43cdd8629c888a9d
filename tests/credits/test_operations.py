"""Operators' grants, adjustments and refunds in the database, through both doors."""

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from completions.paid import an_item
from gateway import BOTH_DOORS
from people import Person, refused
from tollgate.core.errors import BadRequest, CapExceeded, Conflict, IdempotencyKeyReused, TollgateError
from tollgate.credits import store
from tollgate.database import Door
from tollgate.keys.authentication import console
from turns import not_at_the_end_of

pytestmark = BOTH_DOORS

CAPS = {"grant_nanos": 1_000_000, "day_nanos": 3_000_000}


def an_operation(**more: Any) -> dict[str, Any]:
    return {"reason": "of the tests", "source": "funding", "idempotency_key": secrets.token_hex(8), **more}


def to(someone: Person, nanos: Any, **more: Any) -> dict[str, Any]:
    return an_operation(org_id=someone.org_id, amount_nanos=nanos, **more)


async def charged(someone: Person, nanos: int) -> str:
    item = an_item(someone)
    await someone.door.call("tollgate_admit", items=[item])
    ending = {"id": item["id"], "outcome": "settled", "charge_nanos": nanos, "cost_nanos": nanos}
    await someone.door.call("tollgate_settle", items=[ending])
    return str(item["id"])


async def test_the_cap_of_the_day_begins_anew_at_midnight(person: Any, shared_database: str) -> None:
    await not_at_the_end_of("day")
    admin, someone = await person("admin"), await person()
    for _ in range(3):
        await store.grant_credits(admin.at_the_door(), to(someone, 1_000_000), CAPS)
    error = await refused(store.grant_credits(admin.at_the_door(), to(someone, 1), CAPS))
    assert isinstance(error, CapExceeded)
    connection = await asyncpg.connect(shared_database)
    await connection.execute("set session_replication_role = replica")  # else not even a superuser rewrites history
    await connection.execute(
        "update tollgate.credit_operations set created_at ="
        " (date_trunc('day', now() at time zone 'utc') at time zone 'utc') - interval '1 millisecond'"
        " where operator = $1",
        admin.user_id,
    )
    await connection.close()
    assert (await store.grant_credits(admin.at_the_door(), to(someone, 1_000_000), CAPS))["created"]


async def test_an_admin_has_one_cap_whichever_key_is_used(person: Any, door: Door) -> None:
    await not_at_the_end_of("day")
    admin, someone = await person("admin"), await person()
    second = Person(door, "admin")
    second.org_id, second.user_id = admin.org_id, admin.user_id
    await second.seed()
    operation = to(someone, 900_000)
    first = await store.grant_credits(admin.at_the_door(), operation, CAPS)
    again = await store.grant_credits(second.at_the_door(), operation, CAPS)
    assert (again["created"], again["id"]) == (False, first["id"])
    for _ in range(2):
        await store.grant_credits(second.at_the_door(), to(someone, 1_000_000), CAPS)
    error = await refused(store.grant_credits(admin.at_the_door(), to(someone, 100_001), CAPS))
    assert error.facts["granted_today_nanos"] == 2_900_000


async def test_the_console_has_no_cap(person: Any) -> None:
    someone = await person()
    granted = await store.grant_credits(console(someone.door, "tests"), to(someone, 10**15), CAPS)
    assert granted["amount_nanos"] == 10**15
    assert granted["reference"].startswith("console:")


@pytest.mark.parametrize("caps", [{}, {"grant_nanos": 10}, {"day_nanos": 10}, {"grant_nanos": 0, "day_nanos": 10}])
async def test_a_cap_that_is_missing_lets_nothing_through(person: Any, caps: dict[str, int]) -> None:
    admin, someone = await person("admin"), await person()
    assert isinstance(await refused(store.grant_credits(admin.at_the_door(), to(someone, 1), caps)), CapExceeded)
    assert isinstance(await refused(store.adjust_credits(admin.at_the_door(), to(someone, 1), caps)), CapExceeded)


async def test_the_database_itself_refuses_what_no_operation_is(person: Any) -> None:
    admin, someone = await person("admin"), await person()
    desk = admin.at_the_door()
    for nanos in (None, 0, 10**17 + 1, 1.5e30):
        for work in (store.grant_credits, store.adjust_credits):
            assert (await refused(work(desk, to(someone, nanos), CAPS))).param == "amount_nanos"
    assert (await refused(store.grant_credits(desk, to(someone, -1), CAPS))).param == "amount_nanos"
    for source in ("revenue", "wallet", None):
        for work in (store.grant_credits, store.adjust_credits):
            error = await refused(work(desk, to(someone, 1, source=source), CAPS))
            assert isinstance(error, BadRequest)
            assert error.param == "source"


async def test_the_longest_names_fit_the_ledger(door: Door, person: Any) -> None:
    someone = await person()
    admin = Person(door, "admin")
    admin.user_id = f"usr_{admin.number}{'x' * 48}"
    await admin.seed()
    operation = to(someone, 7, idempotency_key="k" * 180)
    assert (await store.grant_credits(admin.at_the_door(), operation, CAPS))["reference"].endswith("k" * 180)


async def test_the_console_s_reference_is_not_an_operator_s(person: Any) -> None:
    """Their references differ, so neither can be taken for a repetition of the other."""
    admin, someone = await person("admin"), await person()
    word = secrets.token_hex(8)
    operator = console(someone.door, "tests")
    await store.grant(operator, someone.org_id, 5, source="funding", reason="", reference=word)
    granted = await store.grant_credits(admin.at_the_door(), to(someone, 7, idempotency_key=word), CAPS)
    assert granted["balance_after_nanos"] == 12


async def test_what_operators_did_cannot_be_changed(own_database: str) -> None:
    connection = await asyncpg.connect(own_database)
    for statement in ("update {} set asked = '{{}}'", "delete from {}", "truncate {}"):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute(statement.format("tollgate.credit_operations"))
    await connection.close()


@pytest.mark.parametrize("seed", range(2))
async def test_a_storm_of_operations_leaves_books_that_agree(
    person: Any, shared_database: str, sql: Callable[..., Any], seed: int
) -> None:
    """Two operators at once, with repetitions: nothing happens twice, refunds stay below charges, holds are covered."""
    await not_at_the_end_of("day")
    chance = random.Random(seed)  # noqa: S311  # not a secret
    admins, someone = [await person("admin"), await person("admin")], await person()
    await store.grant_credits(console(someone.door, "tests"), to(someone, 10**7), CAPS)
    charges = {await charged(someone, nanos): nanos for nanos in (1, 900, 40_000)}
    await someone.door.call("tollgate_admit", items=[an_item(someone)])

    async def one() -> Any:
        desk = chance.choice(admins).at_the_door()
        operation = to(someone, chance.choice([5, 400, 900_000]), idempotency_key=f"{seed}-{chance.randrange(30)}")
        match chance.randrange(3):
            case 0:
                work = store.grant_credits(desk, operation, CAPS)
            case 1:
                taken = operation | {"amount_nanos": -operation["amount_nanos"] * chance.randrange(1, 9)}
                work = store.adjust_credits(desk, taken, CAPS)
            case _:
                asked = {"request_id": chance.choice([*charges]), "amount_nanos": chance.choice([None, 1, 400])}
                work = store.refund_charge(desk, an_operation(**asked, idempotency_key=operation["idempotency_key"]))
        try:
            return await work
        except (CapExceeded, Conflict, IdempotencyKeyReused) as refusal:
            return refusal

    answers = await asyncio.gather(*(one() for _ in range(60)))
    made = [answer for answer in answers if not isinstance(answer, TollgateError)]
    new = [answer for answer in made if answer["created"]]
    assert len(new) == len({answer["id"] for answer in made}) > 5
    for request_id, nanos in charges.items():
        assert sum(each["amount_nanos"] for each in new if each["request_id"] == request_id) <= nanos
    for admin in admins:
        given = [each for each in new if each["reference"].startswith(f"{admin.user_id}:")]
        assert sum(max(0, each["change_nanos"]) for each in given) <= CAPS["day_nanos"]
    assert await sql(
        shared_database, "select balance_nanos >= held_nanos from tollgate.orgs where id = $1", someone.org_id
    )
    noted = await sql(
        shared_database,
        "select count(*) from tollgate.audit_events"
        " where org_id = $1 and action like 'credits.%' and actor_kind = 'key'",
        someone.org_id,
    )
    assert noted == len(new)
