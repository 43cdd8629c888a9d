"""GET /admin/audit-logs and GET /user/balance over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.settings import read


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


def bearing(person: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {person.secret}"}


async def pages(client: httpx.AsyncClient, admin: Person, **query: Any) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    while True:
        answer = await client.get("/admin/audit-logs", params=query, headers=bearing(admin))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found.append(page["data"])
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


async def test_a_balance_is_shown_to_its_key(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    answer = await client.get("/user/balance", headers=bearing(someone))
    assert answer.status_code == 200
    assert answer.json() == {
        "masked_key": f"{someone.secret[:12]}…{someone.secret[-4:]}",
        "credits_nanos": 0,
        "credits": "0.00",
        "held_nanos": 0,
        "held_credits": "0.00",
        "available_credits": "0.00",
        "available_nanos": 0,
        "org_id": someone.org_id,
        "user_id": someone.user_id,
        "plan": "free",
        "environment": "live",
        "status": "active",
    }


async def test_x_api_key_opens_as_well(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    assert (await client.get("/user/balance", headers={"x-api-key": someone.secret})).status_code == 200


@BOTH_DOORS
async def test_an_admin_reads_the_events_newest_first_page_by_page(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone = await person("admin"), await person()
    whole = await pages(client, admin, org_id=someone.org_id)
    assert [event["action"] for event in whole[0]] == ["key.created", "user.created", "org.created"]
    by_ones = await pages(client, admin, org_id=someone.org_id, limit=1)
    assert [page[0] for page in by_ones] == whole[0]
    oldest_first = await pages(client, admin, org_id=someone.org_id, limit=1, sort="occurred_at:asc")
    assert [page[0] for page in oldest_first] == whole[0][::-1]
    assert whole[0][0]["actor"] == {"kind": "console", "name": "tests"}
    of_one = f"/admin/audit-logs/{whole[0][0]['id']}"
    assert (await client.get(of_one, headers=bearing(admin))).json() == whole[0][0]
    assert (await client.get(of_one, headers=bearing(someone))).status_code == 403
    missing = await client.get("/admin/audit-logs/evt_none", headers=bearing(admin))
    assert (missing.status_code, missing.json()["error"]["kind"]) == (404, "audit_event")


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ({"action": "key.created"}, ["key.created"]),
        ({"outcome": "refused"}, []),
        ({"from": "2999-01-01T00:00:00Z"}, []),
        ({"to": "2999-01-01T00:00:00Z", "action": "org.created"}, ["org.created"]),
        ({"from": "2000-01-01T00:00:00+02:00", "action": "user.created"}, ["user.created"]),
    ],
)
async def test_filters_narrow_the_list(
    client: httpx.AsyncClient, person: Any, query: dict[str, str], actions: list[str]
) -> None:
    admin, someone = await person("admin"), await person()
    (found,) = await pages(client, admin, org_id=someone.org_id, **query)
    assert [event["action"] for event in found] == actions


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"from": "yesterday"}, "from"),
        ({"outcome": "maybe"}, "outcome"),
        ({"org_id": "x" * 301}, "org_id"),
        ({"sort": "up"}, "sort"),
        ({"cursor": "evt_unknown"}, "cursor"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_by_name(
    client: httpx.AsyncClient, person: Any, query: dict[str, Any], param: str
) -> None:
    admin = await person("admin")
    answer = await client.get("/admin/audit-logs", params=query, headers=bearing(admin))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["param"] == param


async def test_a_member_is_refused_and_told_the_scope(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    answer = await client.get("/admin/audit-logs", headers=bearing(someone))
    assert answer.status_code == 403
    assert answer.json()["error"]["scope"] == "admin"


async def test_without_a_key_a_bad_filter_is_no_matter(client: httpx.AsyncClient) -> None:
    answer = await client.get("/admin/audit-logs", params={"limit": "many"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "missing_api_key"
