"""/admin/credits over HTTP."""

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from completions.paid import HOLD, an_item
from gateway import BOTH_DOORS
from people import PEPPER, Person
from sandbox.serving import until
from tollgate.admin.schemas.credits import MOST_NANOS, Grant
from tollgate.app import create_app
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database import Door
from tollgate.settings import read
from turns import not_at_the_end_of

CAPS = {"GRANT_CAP": "1000000", "GRANT_CAP_PER_DAY": "1500000"}
Row = dict[str, Any]


class Office:
    """Tollgate with one database, and clients of its operators."""

    def __init__(self, http: httpx.AsyncClient, door: Door, admin: Person, url: str, sql: Callable[..., Any]) -> None:
        self.http = http
        self.door = door
        self.admin = admin
        self.url = url
        self.sql = sql

    async def post(
        self, what: str, body: Any, key: str | None = None, by: Person | None = None, **headers: str
    ) -> httpx.Response:
        """Sends a string body as it is. Each call without a key gets its own Idempotency-Key."""
        sent = {"authorization": f"Bearer {(by or self.admin).secret}", "content-type": "application/json"}
        sent |= {"idempotency-key": key if key is not None else secrets.token_hex(8), **headers}
        content = body if isinstance(body, str) else json.dumps(body)
        return await self.http.post(f"/admin/credits/{what}", content=content, headers=sent)

    async def done(self, what: str, body: Any, key: str | None = None, by: Person | None = None) -> Row:
        answer = await self.post(what, body, key, by)
        assert answer.status_code == 200, answer.text
        assert ("idempotency-replayed" in answer.headers) is not answer.json()["created"]
        return dict(answer.json())

    async def refused(self, status: int, what: str, body: Any, key: str | None = None, by: Person | None = None) -> Row:
        answer = await self.post(what, body, key, by)
        assert answer.status_code == status, answer.text
        return dict(answer.json()["error"])

    async def get(self, path: str, by: Person | None = None, status: int = 200, **query: Any) -> Any:
        headers = {"authorization": f"Bearer {(by or self.admin).secret}"}
        answer = await self.http.get(f"/admin/credits/{path}", params=query, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def balance(self, someone: Person) -> int:
        found = await self.sql(self.url, "select balance_nanos from tollgate.orgs where id = $1", someone.org_id)
        return int(found)

    async def ledger(self, someone: Person) -> list[list[Any]]:
        found = await self.sql(
            self.url,
            "select coalesce(json_agg(json_build_array(kind, debit, credit, amount_nanos) order by position), '[]')"
            " from tollgate.transfers where org_id = $1",
            someone.org_id,
        )
        return list(json.loads(found))

    async def events(self, transfer_id: str) -> list[Row]:
        found = await self.sql(
            self.url,
            "select coalesce(json_agg(to_jsonb(e)), '[]') from tollgate.audit_events e where target_id = $1",
            transfer_id,
        )
        return list(json.loads(found))

    async def charged(self, someone: Person, nanos: int, outcome: str = "settled") -> str:
        """Makes a paid request and returns its id."""
        item = an_item(someone)
        await self.door.call("tollgate_admit", items=[item])
        ending = {"id": item["id"], "outcome": outcome, "charge_nanos": nanos, "cost_nanos": nanos}
        await self.door.call("tollgate_settle", items=[ending])
        return str(item["id"])

    @contextlib.asynccontextmanager
    async def held_back(self, someone: Person, sessions: int) -> AsyncIterator[None]:
        """Locks the org's row until the block has ended and this many transactions wait for it."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                await connection.execute("select from tollgate.orgs where id = $1 for no key update", someone.org_id)
                yield

                async def are_there() -> bool:
                    waiting = (
                        "select count(*) from pg_stat_activity"
                        " where datname = current_database() and wait_event in ('transactionid', 'tuple')"
                    )
                    return bool(await self.sql(self.url, waiting) >= sessions)

                await until(are_there)
        finally:
            await connection.close()


@pytest.fixture
async def office(door: Door, person: Any, shared_database: str, sql: Callable[..., Any]) -> AsyncIterator[Office]:
    await not_at_the_end_of("day")
    app = create_app(read({"KEY_PEPPER": PEPPER, **CAPS}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as http:
        yield Office(http, door, await person("admin"), shared_database, sql)


def to(someone: Person, amount: Any = 1, **more: Any) -> Row:
    return {"org_id": someone.org_id, "credits": amount, "reason": "of the tests", **more}


async def test_a_grant_is_a_transfer_the_balance_and_an_audit_event(office: Office, person: Any) -> None:
    someone = await person()
    key = secrets.token_hex(8)
    granted = await office.done("grant", to(someone, 2.5, source="promotion"), key)
    assert granted.pop("created_at").endswith("Z")
    transfer_id = granted["id"]
    assert granted == {
        "id": transfer_id,
        "created": True,
        "org_id": someone.org_id,
        "org_name": "Org",
        "kind": "grant",
        "debit": "promotion",
        "credit": "wallet",
        "amount_nanos": 2_500_000_000,
        "amount_credits": "2.50",
        "change_nanos": 2_500_000_000,
        "change_credits": "2.50",
        "balance_after_nanos": 2_500_000_000,
        "balance_after_credits": "2.50",
        "request_id": None,
        "refundable_nanos": None,
        "refundable_credits": None,
        "reference": f"{office.admin.user_id}:{key}",
        "reason": "of the tests",
    }
    assert await office.balance(someone) == 2_500_000_000
    assert await office.ledger(someone) == [["grant", "promotion", "wallet", 2_500_000_000]]
    (event,) = await office.events(transfer_id)
    assert (event["action"], event["org_id"], event["actor_user_id"]) == (
        "credits.granted",
        someone.org_id,
        office.admin.user_id,
    )
    assert event["details"]["reason"] == "of the tests"
    assert event["details"]["amount_nanos"] == 2_500_000_000


async def test_a_user_stands_for_the_org(office: Office, person: Any) -> None:
    someone = await person()
    body = {"user_id": someone.user_id, "credits_nanos": 7, "reason": "r"}
    granted = await office.done("grant", body)
    assert (granted["org_id"], granted["amount_nanos"], granted["debit"]) == (someone.org_id, 7, "funding")


WRITTEN = {
    "0.1": 100_000_000,
    "0.3": 300_000_000,
    "1": NANOS_PER_CREDIT,
    "1e-9": 1,
    "999999.999999999": 999_999_999_999_999,
    '"0.100000000"': 100_000_000,
    '"123456.123456789"': 123_456_123_456_789,
    "123456.123456789": 123_456_123_456_789,
}


async def test_credits_are_what_was_written_to_the_last_nano(office: Office, person: Any) -> None:
    someone = await person()
    for written, nanos in WRITTEN.items():
        body = f'{{"org_id": "{someone.org_id}", "credits": {written}, "reason": "r"}}'
        assert (await office.done("grant", body))["amount_nanos"] == nanos, written
    assert await office.balance(someone) == sum(WRITTEN.values())


@given(st.integers(1, MOST_NANOS), st.booleans())
def test_every_amount_survives_being_written_as_a_decimal(nanos: int, quoted: bool) -> None:
    written = f"{nanos // NANOS_PER_CREDIT}.{nanos % NANOS_PER_CREDIT:09}"
    document = f'{{"org_id": "org_1", "reason": "r", "credits": {json.dumps(written) if quoted else written}}}'
    assert Grant.model_validate(json.loads(document, parse_float=Decimal)).amount_nanos == nanos


NONSENSE = [
    ('"credits": 0', "credits"),
    ('"credits": -1', "credits"),
    ('"credits": 0.1234567891', "credits"),
    ('"credits": 100000000.000000001', "credits"),
    ('"credits": 1e99', "credits"),
    ('"credits": 1e-99', "credits"),
    ('"credits": NaN', "credits"),
    ('"credits": Infinity', "credits"),
    ('"credits": true', "credits"),
    ('"credits": null', "credits"),
    ('"credits": []', "credits"),
    ('"credits": "1_0"', "credits"),
    ('"credits": " 1"', "credits"),
    ('"credits": "1e3"', "credits"),
    ('"credits": "\uff11"', "credits"),
    ('"credits": ""', "credits"),
    ('"credits_nanos": 0', "credits_nanos"),
    ('"credits_nanos": 1.5', "credits_nanos"),
    ('"credits_nanos": "7"', "credits_nanos"),
    ('"credits_nanos": true', "credits_nanos"),
    ('"credits_nanos": 100000000000000001', "credits_nanos"),
    ('"credits_nanos": 9223372036854775808', "credits_nanos"),
    ('"credits": 1, "credits_nanos": 1000000000', "credits"),
    ('"other": 1', "other"),
]


async def test_an_amount_that_makes_no_sense_is_refused_by_name(office: Office, person: Any) -> None:
    someone = await person()
    for amount, param in NONSENSE:
        error = await office.refused(400, "grant", f'{{"org_id": "{someone.org_id}", {amount}, "reason": "r"}}')
        assert (error["code"], error["param"]) == ("invalid_request", param), amount
    assert await office.ledger(someone) == []


@pytest.mark.parametrize("what", ["grant", "adjust", "refund"])
async def test_no_operation_without_a_reason_and_an_idempotency_key(office: Office, person: Any, what: str) -> None:
    someone = await person()
    body: Row = {"request_id": "req_1", "reason": "r"} if what == "refund" else to(someone)
    headers = {"authorization": f"Bearer {office.admin.secret}"}
    for more in ({}, {"idempotency-key": ""}, {"idempotency-key": "k" * 181}, {"idempotency-key": "\u00fcber"}):
        sent = [(name.encode(), value.encode()) for name, value in (headers | more).items()]
        answer = await office.http.post(f"/admin/credits/{what}", json=body, headers=sent)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "Idempotency-Key"
        told = answer.json()["error"]["message"]
        assert told.startswith(f"Idempotency-Key: {'must be 1 to 180 characters' if more else 'is missing'}")
    for reason in (None, "", "  ", "r" * 1001, "a\0b"):
        assert (await office.refused(400, what, body | {"reason": reason}))["param"] == "reason"
    body.pop("reason")
    assert (await office.refused(400, what, body))["param"] == "reason"
    assert await office.ledger(someone) == []


async def test_exactly_one_payer_is_named(office: Office, person: Any) -> None:
    someone = await person()
    both = to(someone, user_id=someone.user_id)
    neither = {"credits": 1, "reason": "r"}
    for what in ("grant", "adjust"):
        for body in (both, neither, neither | {"org_id": None}):
            assert (await office.refused(400, what, body))["param"] == "org_id"


async def test_who_is_not_there_gets_nothing(office: Office) -> None:
    named = (("org_id", "org"), ("user_id", "user"))
    for what, (name, kind) in itertools.product(("grant", "adjust"), named):
        error = await office.refused(404, what, {name: f"{kind}_missing", "credits": 1, "reason": "r"})
        assert (error["code"], error["kind"], error["id"]) == ("not_found", kind, f"{kind}_missing")


async def test_a_repetition_is_answered_like_the_first_and_moves_nothing(office: Office, person: Any) -> None:
    someone = await person()
    key = secrets.token_hex(8)
    first = await office.done("grant", to(someone, 5), key)
    await office.done("grant", to(someone, 1))
    again = await office.done("grant", to(someone, "5.0"), key)
    in_nanos = {"org_id": someone.org_id, "credits_nanos": 5 * NANOS_PER_CREDIT, "reason": "of the tests"}
    assert again == await office.done("grant", in_nanos, key) == first | {"created": False}
    assert await office.balance(someone) == 6 * NANOS_PER_CREDIT
    assert len(await office.events(first["id"])) == 1


async def test_a_key_with_another_body_is_refused(office: Office, person: Any) -> None:
    someone = await person()
    key = secrets.token_hex(8)
    first = await office.done("grant", to(someone, 5), key)
    by_user = {"org_id": None, "user_id": someone.user_id}
    for change in ({"credits": 6}, {"source": "promotion"}, {"reason": "another"}, by_user):
        error = await office.refused(422, "grant", to(someone, 5) | change, key)
        assert (error["code"], error["transfer_id"]) == ("idempotency_key_reused", first["id"])
    assert await office.balance(someone) == 5 * NANOS_PER_CREDIT


async def test_a_key_is_for_one_operation_of_any_kind(office: Office, person: Any) -> None:
    someone = await person()
    key = secrets.token_hex(8)
    await office.done("grant", to(someone, 5), key)
    await office.refused(422, "adjust", to(someone, 5), key)
    await office.refused(422, "refund", {"request_id": "req_1", "reason": "of the tests"}, key)
    assert await office.ledger(someone) == [["grant", "funding", "wallet", 5 * NANOS_PER_CREDIT]]


async def test_a_key_is_its_operator_s_own(office: Office, person: Any) -> None:
    """It conflicts neither with another admin's Idempotency-Key nor with a reference of the console."""
    someone, other = await person(), await person("admin")
    key = secrets.token_hex(8)
    first = await office.done("grant", to(someone, 5), key)
    second = await office.done("grant", to(someone, 5), key, by=other)
    assert (first["created"], second["created"]) == (True, True)
    assert first["id"] != second["id"]
    await office.done("grant", to(someone, 5), someone.org_id)  # the console's own word, in the tests
    assert await office.balance(someone) == 15 * NANOS_PER_CREDIT


async def test_a_refused_operation_leaves_its_key_free(office: Office, person: Any) -> None:
    someone = await person()
    key = secrets.token_hex(8)
    await office.refused(403, "grant", to(someone, 1_000_001), key)
    await office.refused(404, "grant", to(someone, 1) | {"org_id": "org_missing"}, key)
    assert (await office.done("grant", to(someone, 1), key))["created"] is True


async def test_a_field_that_is_not_asked_for_is_refused(office: Office, person: Any) -> None:
    someone = await person()
    refund: Row = {"request_id": "req_1", "reason": "r"}
    for what, body in (("grant", to(someone)), ("adjust", to(someone)), ("refund", refund)):
        for extra in ("role", "balance", "is_admin", "cost", "balance_nanos", "created", "debit", "kind"):
            assert (await office.refused(400, what, body | {extra: 1}))["param"] == extra
    assert (await office.refused(400, "refund", refund | {"org_id": someone.org_id}))["param"] == "org_id"
    assert await office.ledger(someone) == []
    role = await office.sql(office.url, "select role from tollgate.users where id = $1", someone.user_id)
    assert role == "member"


async def test_the_cap_of_a_grant_and_of_the_day_hold_for_adjustments_too(office: Office, person: Any) -> None:
    someone = await person()
    error = await office.refused(403, "grant", to(someone, "1000000.000000001"))
    assert error["code"] == "cap_exceeded"
    assert error["cap_nanos"] == 10**15
    assert error["cap_per_day_nanos"] == 15 * 10**14
    assert error["granted_today_nanos"] == 0
    await office.refused(403, "adjust", to(someone, "1000000.000000001"))
    await office.done("grant", to(someone, 1_000_000))
    await office.done("adjust", to(someone, -900_000))  # what is taken is not given back to the cap
    await office.done("adjust", to(someone, 400_000))
    for what in ("grant", "adjust"):
        error = await office.refused(403, what, to(someone, "100000.000000001"))
        assert error["granted_today_nanos"] == 14 * 10**14
        assert error["resets_at"].endswith("T00:00:00.000Z")
    await office.done("grant", to(someone, 100_000))
    await office.refused(403, "grant", to(someone, "0.000000001"))
    assert await office.balance(someone) == 600_000 * NANOS_PER_CREDIT


async def test_grants_at_once_do_not_pass_the_cap_of_the_day(office: Office, person: Any) -> None:
    """Each grant goes to another org, so the locks of orgs do not serialise them."""
    people = [await person() for _ in range(8)]
    answers = await asyncio.gather(*(office.post("grant", to(someone, 400_000)) for someone in people))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [403] * 5
    assert sum([await office.balance(someone) for someone in people]) == 1_200_000 * NANOS_PER_CREDIT


async def test_the_same_grant_at_once_is_made_once(office: Office, person: Any) -> None:
    someone = await person()
    for key in ("first", "second", "third"):  # by the second all connections are open
        answers = await asyncio.gather(*(office.done("grant", to(someone, 3), key) for _ in range(8)))
        assert sorted(answer["created"] for answer in answers) == [False] * 7 + [True]
        assert len({answer["id"] for answer in answers}) == 1
    assert await office.balance(someone) == 9 * NANOS_PER_CREDIT


async def test_adjustments_at_once_lose_nothing(office: Office, person: Any) -> None:
    """In another system eight deductions of 100 from 1000 left 900."""
    someone = await person()
    await office.done("grant", to(someone, 1000))
    await asyncio.gather(*(office.done("adjust", to(someone, -100)) for _ in range(8)))
    assert await office.balance(someone) == 200 * NANOS_PER_CREDIT


@pytest.mark.parametrize("source", ["funding", "promotion", "writeoff"])
async def test_an_adjustment_goes_both_ways(office: Office, person: Any, source: str) -> None:
    someone = await person()
    up = await office.done("adjust", to(someone, 3, source=source))
    down = await office.done("adjust", to(someone, "-1.5", source=source))
    assert (up["change_nanos"], down["change_nanos"]) == (3 * 10**9, -15 * 10**8)
    assert await office.ledger(someone) == [
        ["adjustment", source, "wallet", 3 * 10**9],
        ["adjustment", "wallet", source, 15 * 10**8],
    ]
    (event,) = await office.events(down["id"])
    assert (event["action"], event["details"]["amount_nanos"]) == ("credits.adjusted", 15 * 10**8)
    for nothing in ({"credits": 0}, {"credits": None, "credits_nanos": 0}):
        assert (await office.refused(400, "adjust", to(someone) | nothing))["param"] == "credits"
    assert (await office.refused(400, "adjust", to(someone, source="revenue")))["param"] == "source"


async def test_an_adjustment_takes_nothing_that_is_held(office: Office, person: Any) -> None:
    someone = await person()
    await office.done("grant", {"org_id": someone.org_id, "credits_nanos": HOLD + 50, "reason": "r"})
    item = an_item(someone)
    await office.door.call("tollgate_admit", items=[item])
    taking = {"org_id": someone.org_id, "reason": "r"}
    error = await office.refused(409, "adjust", taking | {"credits_nanos": -51})
    assert error["code"] == "conflict"
    assert (error["balance_nanos"], error["held_nanos"], error["available_nanos"]) == (HOLD + 50, HOLD, 50)
    assert (await office.done("adjust", taking | {"credits_nanos": -50}))["balance_after_nanos"] == HOLD


@BOTH_DOORS
async def test_a_charge_is_given_back_in_parts_and_never_more_than_it_was(office: Office, person: Any) -> None:
    someone = await person()
    await office.done("grant", to(someone, 1))
    request_id = await office.charged(someone, 1000)
    before = await office.balance(someone)

    def asked(nanos: int | None) -> Row:
        return {"request_id": request_id, "reason": "cut off"} | ({"credits_nanos": nanos} if nanos else {})

    async def left() -> Any:
        query = {"org_id": someone.org_id, "kind": "charge"}
        (charge,) = (await office.get("transactions", **query))["data"]
        return charge["refundable_nanos"]

    assert (await office.refused(409, "refund", asked(1001)))["refundable_nanos"] == await left() == 1000
    part = await office.done("refund", asked(400))
    assert await left() == 600
    assert (part["debit"], part["credit"], part["request_id"]) == ("revenue", "wallet", request_id)
    error = await office.refused(409, "refund", asked(601))
    assert (error["charge_nanos"], error["refunded_nanos"], error["refundable_nanos"]) == (1000, 400, 600)
    rest = await office.done("refund", asked(None))
    assert (rest["amount_nanos"], rest["balance_after_nanos"]) == (600, before + 1000)
    assert await left() == 0
    for nanos in (1, None):
        assert (await office.refused(409, "refund", asked(nanos)))["refundable_nanos"] == 0
    assert {part["reference"], rest["reference"]} == {f"{request_id}/1", f"{request_id}/2"}
    (event,) = await office.events(rest["id"])
    assert (event["action"], event["details"]["request_id"]) == ("credits.refunded", request_id)


async def test_a_refund_of_what_is_left_is_repeated_like_any_other(office: Office, person: Any) -> None:
    someone = await person()
    await office.done("grant", to(someone, 1))
    body = {"request_id": await office.charged(someone, 1000), "reason": "r"}
    key = secrets.token_hex(8)
    first = await office.done("refund", body, key)
    assert await office.done("refund", body, key) == first | {"created": False}
    await office.refused(422, "refund", body | {"credits_nanos": 1000}, key)
    assert await office.balance(someone) == NANOS_PER_CREDIT


async def test_refunds_at_once_never_exceed_the_charge(office: Office, person: Any) -> None:
    """Two operators refund in whole and in parts, and their first refunds start at the same moment."""
    someone, other = await person(), await person("admin")
    await office.done("grant", to(someone, 1))
    whole = {"request_id": await office.charged(someone, 1000), "reason": "r"}
    asked = [whole, whole | {"credits_nanos": 600}, whole | {"credits_nanos": 600}, whole | {"credits_nanos": 1000}]
    async with office.held_back(someone, sessions=2):
        answers = asyncio.gather(
            *(office.post("refund", body, by=by) for body in asked for by in (office.admin, other))
        )
    statuses = [answer.status_code for answer in await answers]
    assert set(statuses) == {200, 409}
    given = sum(answer.json()["amount_nanos"] for answer in await answers if answer.status_code == 200)
    assert given in (600, 1000)
    assert await office.balance(someone) == NANOS_PER_CREDIT - 1000 + given


async def test_only_a_charge_is_given_back(office: Office, person: Any) -> None:
    someone = await person()
    await office.done("grant", to(someone, 1))
    missing = await office.refused(404, "refund", {"request_id": "req_missing", "reason": "r"})
    assert (missing["kind"], missing["id"]) == ("request", "req_missing")
    for outcome, state in (("released", "released"), ("unsettled", "unsettled"), ("settled", "settled")):
        request_id = await office.charged(someone, 0, outcome)
        error = await office.refused(409, "refund", {"request_id": request_id, "reason": "r"})
        assert (error["code"], error["state"], error["refundable_nanos"]) == ("conflict", state, 0)
    for transfer_like in (someone.org_id, "trf_1", "x" * 201, ""):
        answer = await office.post("refund", {"request_id": transfer_like, "reason": "r"})
        assert answer.status_code in (400, 404)
    assert await office.balance(someone) == NANOS_PER_CREDIT


async def test_the_ledger_is_read_page_by_page(office: Office, person: Any) -> None:
    someone, other = await person(), await person()
    await office.done("grant", to(other, 9))
    await office.done("grant", to(someone, 5))
    await office.done("grant", to(someone, 2, source="promotion"))
    await office.done("adjust", to(someone, -1))
    request_id = await office.charged(someone, 1000)
    await office.done("refund", {"request_id": request_id, "credits_nanos": 400, "reason": "r"})
    whole = await office.get("transactions", org_id=someone.org_id)
    assert [entry["kind"] for entry in whole["data"]] == ["refund", "charge", "adjustment", "grant", "grant"]
    assert whole["next_cursor"] is None
    assert [entry["request_id"] for entry in whole["data"]] == [request_id, request_id, None, None, None]
    for sort, expected in (("created_at:desc", whole["data"]), ("created_at:asc", whole["data"][::-1])):
        found, query = [], {"org_id": someone.org_id, "limit": 2, "sort": sort}
        while True:
            page = await office.get("transactions", **query)
            found += page["data"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert found == expected
    everyone = await office.get("transactions", limit=1000)
    assert {someone.org_id, other.org_id} <= {entry["org_id"] for entry in everyone["data"]}


FILTERS: list[tuple[Row, list[int]]] = [
    ({"kind": "grant"}, [2 * 10**9, 5 * 10**9]),
    ({"kind": "refund"}, []),
    ({"debit": "promotion"}, [2 * 10**9]),
    ({"credit": "writeoff"}, [10**9]),
    ({"min_nanos": 2 * 10**9, "max_nanos": 5 * 10**9 - 1}, [2 * 10**9]),
    ({"from": "2999-01-01T00:00:00Z"}, []),
    ({"to": "2999-01-01T00:00:00Z", "debit": "wallet"}, [10**9]),
    ({"from": "2000-01-01T00:00:00+02:00", "max_nanos": 10**9}, [10**9]),
]


async def test_filters_narrow_the_ledger(office: Office, person: Any) -> None:
    someone = await person()
    await office.done("grant", to(someone, 5))
    await office.done("grant", to(someone, 2, source="promotion"))
    await office.done("adjust", to(someone, -1, source="writeoff"))
    for query, amounts in FILTERS:
        found = await office.get("transactions", org_id=someone.org_id, **query)
        assert [entry["amount_nanos"] for entry in found["data"]] == amounts, query


NO_FILTERS: list[tuple[Row, str]] = [
    ({"limit": 0}, "limit"),
    ({"limit": 1001}, "limit"),
    ({"kind": "gift"}, "kind"),
    ({"debit": "mine"}, "debit"),
    ({"credit": "mine"}, "credit"),
    ({"from": "yesterday"}, "from"),
    ({"to": "2026-01-01T00:00:00"}, "to"),
    ({"min_nanos": 0}, "min_nanos"),
    ({"max_nanos": 10**18}, "max_nanos"),
    ({"sort": "amount"}, "sort"),
    ({"user_id": "usr_1"}, "user_id"),
    ({"cursor": "trf_999999999999"}, "cursor"),
    ({"cursor": "evt_1"}, "cursor"),
    ({"cursor": "trf_1; drop table transfers"}, "cursor"),
]


async def test_a_filter_that_makes_no_sense_is_refused_by_name(office: Office) -> None:
    for query, param in NO_FILTERS:
        error = (await office.get("transactions", status=400, **query))["error"]
        assert (error["code"], error["param"]) == ("invalid_request", param), query


async def test_a_cursor_of_another_org_is_no_cursor(office: Office, person: Any) -> None:
    someone, other = await person(), await person()
    theirs = await office.done("grant", to(other, 1))
    error = await office.get("transactions", status=400, org_id=someone.org_id, cursor=theirs["id"])
    assert error["error"]["param"] == "cursor"


@BOTH_DOORS
async def test_the_summary_adds_up_what_moved(office: Office, person: Any) -> None:
    def sums(summary: Row) -> dict[str, dict[str, int]]:
        spans = ("today_nanos", "last_7_days_nanos", "last_30_days_nanos", "all_nanos")
        flows = {f"{f['kind']} {f['debit']} {f['credit']}": f for f in summary["flows"]}
        accounts = {a["account"]: a for a in summary["accounts"]}
        return {name: {span: row[span] for span in spans} for name, row in (flows | accounts).items()}

    before = await office.get("summary")
    someone = await person()
    await office.done("grant", to(someone, 5))
    await office.done("adjust", to(someone, -2, source="writeoff"))
    request_id = await office.charged(someone, 1000)
    await office.done("refund", {"request_id": request_id, "credits_nanos": 400, "reason": "r"})
    after = await office.get("summary")
    earlier, later = sums(before), sums(after)
    for name, moved in {
        "grant funding wallet": 5 * 10**9,
        "adjustment wallet writeoff": 2 * 10**9,
        "charge wallet revenue": 1000,
        "refund revenue wallet": 400,
        "funding": -5 * 10**9,
        "writeoff": 2 * 10**9,
        "revenue": 600,
        "wallet": 3 * 10**9 - 600,
    }.items():
        assert {
            span: nanos - earlier.get(name, {}).get(span, 0) for span, nanos in later[name].items()
        } == dict.fromkeys(("today_nanos", "last_7_days_nanos", "last_30_days_nanos", "all_nanos"), moved), name
    assert sum(account["all_nanos"] for account in after["accounts"]) == 0
    wallet = later["wallet"]["all_nanos"]
    assert after["outstanding"]["credits_nanos"] == wallet
    books = await office.door.call("tollgate_audit_books")
    assert {account["account"]: account["all_nanos"] for account in after["accounts"]} == books["accounts_nanos"]


async def test_a_member_and_a_stranger_move_and_read_nothing(office: Office, person: Any) -> None:
    """In another system all of these answered without a credential."""
    someone = await person(scopes=["chat", "usage", "keys", "admin"])
    for what, body in (("grant", to(someone)), ("adjust", to(someone)), ("refund", {"request_id": "r", "reason": "r"})):
        error = await office.refused(403, what, body, by=someone)
        assert (error["code"], error["scope"]) == ("permission_denied", "admin")
        assert (await office.http.post(f"/admin/credits/{what}", json=body)).status_code == 401
    for path in ("transactions", "summary"):
        assert (await office.get(path, by=someone, status=403))["error"]["code"] == "permission_denied"
        assert (await office.http.get(f"/admin/credits/{path}")).status_code == 401
    assert await office.ledger(someone) == []


async def test_an_operation_notes_the_use_of_its_key(office: Office, person: Any) -> None:
    someone = await person()
    await office.done("grant", to(someone))
    used = await office.sql(
        office.url, "select last_used_at is not null from tollgate.api_keys where id = $1", office.admin.key_id
    )
    assert used
