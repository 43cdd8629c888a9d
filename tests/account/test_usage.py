"""/user/usage and /user/api-keys/usage over HTTP: only the own org, and never our cost."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.settings import read
from turns import not_at_the_end_of
from usage import past
from usage.past import NOON, of

SPAN = {"from": NOON.isoformat(), "to": (NOON + timedelta(days=3)).isoformat()}
TIMED = ["/user/usage", "/user/usage/aggregate", "/user/usage/series", "/user/usage/export"]
PATHS = [*TIMED, "/user/api-keys/usage"]


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


async def ask(client: httpx.AsyncClient, someone: Person, path: str, **query: Any) -> httpx.Response:
    params = {name: value for name, value in query.items() if value is not None}
    return await client.get(path, params=params, headers={"authorization": f"Bearer {someone.secret}"})


async def pages(client: httpx.AsyncClient, someone: Person, path: str, **query: Any) -> list[Any]:
    found, cursor = [], None
    while True:
        answer = await ask(client, someone, path, **query, cursor=cursor)
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


@pytest.fixture
async def two(person: Any, shared_database: str) -> tuple[Person, Person, list[past.Row]]:
    """Two orgs with requests of the same models at the same times, and the requests of the first."""
    someone, other = await person(), await person()
    rows = list(past.many(someone, 90))
    await past.keep(shared_database, [*rows, *past.many(other, 90, seed=3)])
    await past.roll_up(shared_database, NOON + timedelta(hours=25))
    return someone, other, rows


async def test_one_sees_one_s_own_requests_alone(client: httpx.AsyncClient, two: Any) -> None:
    someone, other, rows = two
    found = await pages(client, someone, "/user/usage", limit=13)
    assert [row["id"] for row in found] == [row["id"] for row in reversed(rows)]
    assert {row["org_id"] for row in await pages(client, other, "/user/usage", limit=1000)} == {other.org_id}


async def test_another_org_s_ids_are_like_ids_of_nobody(client: httpx.AsyncClient, two: Any) -> None:
    someone, other, rows = two
    for name in ("key_id", "user_id"):
        for value in (getattr(other, name), "key_of_nobody"):
            assert await pages(client, someone, "/user/usage", **{name: value}) == []
            answer = await ask(client, someone, "/user/usage/aggregate", **{name: value}, **SPAN)
            assert (answer.json()["data"], answer.json()["totals"]["requests"]) == ([], 0)
            series = await ask(client, someone, "/user/usage/series", **{name: value}, **SPAN)
            assert sum(point["requests"] for point in series.json()["data"]) == 0
            table = await ask(client, someone, "/user/usage/export", **{name: value})
            assert table.text.count("\r\n") == 1
    (theirs,) = await pages(client, other, "/user/usage", limit=1000, to=rows[1]["created_at"])
    for cursor in (theirs["id"], "req_of_nobody"):
        answer = await ask(client, someone, "/user/usage", cursor=cursor)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


@pytest.mark.parametrize("path", TIMED)
async def test_nobody_may_ask_for_an_org(client: httpx.AsyncClient, two: Any, path: str) -> None:
    someone, other, _ = two
    answer = await ask(client, someone, path, org_id=other.org_id)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "org_id")


@BOTH_DOORS
async def test_what_it_cost_us_is_nowhere(client: httpx.AsyncClient, two: Any) -> None:
    someone, _, _ = two
    for path in PATHS:
        for more in ({"format": "jsonl"}, {}) if path.endswith("export") else ({},):
            text = (await ask(client, someone, path, **more)).text
            assert "cost" not in text
            assert "margin" not in text
    for sort in ("cost:desc", "margin:desc"):
        assert (await ask(client, someone, "/user/usage/aggregate", sort=sort)).status_code == 400
    assert (await ask(client, someone, "/user/usage/aggregate", by="org")).status_code == 400


@pytest.mark.parametrize("by", ["day", "month", "model", "key", "user", "upstream"])
async def test_groups_add_up_to_one_s_own_requests(client: httpx.AsyncClient, two: Any, by: str) -> None:
    someone, _, rows = two
    found = await pages(client, someone, "/user/usage/aggregate", by=by, limit=2, **SPAN)
    assert sum(group["requests"] for group in found) == len(rows)
    assert sum(group["charge_nanos"] for group in found) == sum(row["charge_nanos"] or 0 for row in rows)


async def test_a_series_is_of_one_s_own_requests(client: httpx.AsyncClient, two: Any) -> None:
    someone, _, rows = two
    data = (await ask(client, someone, "/user/usage/series", bucket="hour", **SPAN)).json()["data"]
    assert len(data) == 72
    assert sum(point["requests"] for point in data) == len(rows)
    assert sum(point["charge_nanos"] for point in data) == sum(row["charge_nanos"] or 0 for row in rows)


@pytest.mark.parametrize("path", PATHS)
async def test_the_scope_usage_is_needed(client: httpx.AsyncClient, person: Any, path: str) -> None:
    someone = await person(scopes=["chat", "keys"])
    answer = await ask(client, someone, path)
    assert answer.status_code == 403
    assert answer.json()["error"]["scope"] == "usage"
    assert (await client.get(path)).status_code == 401


async def test_each_key_is_told_with_what_it_used(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any
) -> None:
    await not_at_the_end_of("day")
    someone, other = await person(), await person()
    await sql(
        shared_database,
        "insert into tollgate.api_keys (id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, "
        "scopes, disabled_at, created_at) select k.id || 'b', k.org_id, k.user_id, 'Second', sha256(k.digest), "
        "k.pepper, k.prefix, 'wxyz', 'live', k.scopes, now(), k.created_at - interval '1 day' from tollgate.api_keys k "
        "where k.id = $1",
        someone.key_id,
    )
    now = datetime.now(UTC)
    second = {"key_id": f"{someone.key_id}b"}
    rows = [
        of(someone, now), of(someone, now - timedelta(days=3)), of(someone, now - timedelta(days=50)),
        of(someone, now - timedelta(days=50), **second), of(other, now),
    ]  # fmt: skip
    await past.keep(shared_database, rows)
    await past.roll_up(shared_database, now - timedelta(days=2))
    for limit in (1, 100):
        first_key, second_key = await pages(client, someone, "/user/api-keys/usage", limit=limit)
        assert (first_key["id"], second_key["id"]) == (someone.key_id, second["key_id"])
        used = [first_key[span]["requests"] for span in ("today", "last_30_days", "all_time")]
        assert used == [1, 2, 3]
        assert first_key["all_time"] == {
            "requests": 3, "tokens": 45, "charge_nanos": 3150, "charge_credits": "0.00000315",
        }  # fmt: skip
        assert [second_key[span]["requests"] for span in ("today", "last_30_days", "all_time")] == [0, 0, 1]
    assert (first_key["status"], second_key["status"]) == ("active", "disabled")
    assert second_key["masked_key"].endswith("…wxyz")
    assert first_key["last_used_at"] is not None
    assert someone.secret not in str(first_key)
    answer = await ask(client, someone, "/user/api-keys/usage", cursor=other.key_id)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")
