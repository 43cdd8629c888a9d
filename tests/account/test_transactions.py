"""GET /user/transactions over HTTP."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from completions.paid import an_item
from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.credits import store
from tollgate.database import Door
from tollgate.settings import read

CAPS = {"grant_nanos": 10**17, "day_nanos": 10**17}


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


async def read_by(client: httpx.AsyncClient, someone: Person, status: int = 200, **query: Any) -> Any:
    headers = {"authorization": f"Bearer {someone.secret}"}
    answer = await client.get("/user/transactions", params=query, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def a_history(admin: Person, someone: Person) -> str:
    """Grants 5 credits, takes 2, charges 1000 nanos and refunds 400 of them; returns the id of the request."""

    def operation(**more: Any) -> dict[str, Any]:
        return {"reason": "of the tests", "idempotency_key": secrets.token_hex(8), **more}

    desk = admin.at_the_door()
    given = operation(org_id=someone.org_id, amount_nanos=5 * 10**9, source="funding")
    await store.grant_credits(desk, given, CAPS)
    taken = operation(org_id=someone.org_id, amount_nanos=-2 * 10**9, source="writeoff")
    await store.adjust_credits(desk, taken, CAPS)
    item = an_item(someone)
    await admin.door.call("tollgate_admit", items=[item])
    ending = {"id": item["id"], "outcome": "settled", "charge_nanos": 1000, "cost_nanos": 900}
    await admin.door.call("tollgate_settle", items=[ending])
    await store.refund_charge(desk, operation(request_id=item["id"], amount_nanos=400))
    return str(item["id"])


@BOTH_DOORS
async def test_an_owner_reads_what_moved_and_what_was_left_after_it(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone, other = await person("admin"), await person(), await person()
    request_id = await a_history(admin, someone)
    await a_history(admin, other)
    found = await read_by(client, someone)
    shown = [(one["kind"], one["change_nanos"], one["balance_after_nanos"], one["request_id"]) for one in found["data"]]
    assert shown == [
        ("refund", 400, 3 * 10**9 - 600, request_id),
        ("charge", -1000, 3 * 10**9 - 1000, request_id),
        ("adjustment", -2 * 10**9, 3 * 10**9, None),
        ("grant", 5 * 10**9, 5 * 10**9, None),
    ]
    assert found["next_cursor"] is None
    grant = found["data"][-1]
    assert (grant["change_credits"], grant["balance_after_credits"], grant["reason"]) == (
        "5.00",
        "5.00",
        "of the tests",
    )
    assert admin.user_id not in str(found)  # who moved it is the operators' matter


async def test_it_comes_page_by_page_and_filtered(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone = await person("admin"), await person()
    await a_history(admin, someone)
    whole = (await read_by(client, someone))["data"]
    for sort, expected in (("created_at:desc", whole), ("created_at:asc", whole[::-1])):
        query: dict[str, Any] = {"limit": 1, "sort": sort}
        for place, entry in enumerate(expected):
            page = await read_by(client, someone, **query)
            assert page["data"] == [entry]
            assert (page["next_cursor"] is None) == (place == 3)
            query["cursor"] = page["next_cursor"]
    for kind in ("grant", "charge", "refund", "adjustment"):
        assert [one["kind"] for one in (await read_by(client, someone, kind=kind))["data"]] == [kind]
    moment = whole[1]["created_at"]
    span: dict[str, Any] = {"from": "2000-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z"}
    assert len((await read_by(client, someone, **span))["data"]) == 4
    assert {one["id"] for one in (await read_by(client, someone, to=moment))["data"]} <= {
        one["id"] for one in whole[2:]
    }


async def test_another_org_s_transfers_cannot_be_asked_for(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone, other = await person("admin"), await person(), await person()
    await a_history(admin, other)
    assert await read_by(client, someone) == {"data": [], "next_cursor": None}
    theirs = (await read_by(client, other))["data"]
    for cursor in (theirs[0]["id"], "trf_999999999999", "trf_", "x"):
        error = (await read_by(client, someone, 400, cursor=cursor))["error"]
        assert (error["code"], error["param"]) == ("invalid_request", "cursor")
    for name in ("org_id", "user_id", "debit"):
        strange: dict[str, Any] = {name: other.org_id}
        assert (await read_by(client, someone, 400, **strange))["error"]["param"] == name


async def test_a_filter_that_makes_no_sense_is_refused_by_name(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    bad = {"limit": 0, "kind": "gift", "from": "yesterday", "to": "2026-01-01T00:00:00", "sort": "amount"}
    for name, value in bad.items():
        assert (await read_by(client, someone, 400, **{name: value}))["error"]["param"] == name


async def test_it_needs_the_scope_usage(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person(scopes=["chat", "keys"])
    error = (await read_by(client, someone, 403))["error"]
    assert (error["code"], error["scope"]) == ("permission_denied", "usage")
    assert (await client.get("/user/transactions")).status_code == 401
