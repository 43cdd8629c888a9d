"""/admin/usage and /admin/logs over HTTP, compared with the requests themselves."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.core.money import credits_text
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.settings import read
from usage import past
from usage.past import NOON, of

PATHS = [
    *("/admin/usage", "/admin/usage/aggregate", "/admin/usage/series", "/admin/usage/latency", "/admin/usage/ttft"),
    *("/admin/usage/export", "/admin/logs"),
]
LONG = {"from": NOON.isoformat(), "to": (NOON + timedelta(days=3)).isoformat()}


class Office:
    """An admin, a person with requests, and a client."""

    def __init__(self, client: httpx.AsyncClient, admin: Person, someone: Person, rows: list[past.Row]) -> None:
        self.client = client
        self.admin = admin
        self.someone = someone
        self.rows = rows

    async def ask(self, path: str, expected: int = 200, /, **query: Any) -> Any:
        """Asks about the requests of that person by default."""
        params = {"org_id": self.someone.org_id} | {name.rstrip("_"): value for name, value in query.items()}
        params = {name: value for name, value in params.items() if value is not None}
        headers = {"authorization": f"Bearer {self.admin.secret}"}
        answer = await self.client.get(path, params=params, headers=headers)
        assert answer.status_code == expected, answer.text
        return answer.json()

    async def pages(self, path: str, **query: Any) -> list[Any]:
        found, page = [], {"next_cursor": None}
        while True:
            page = await self.ask(path, **query, cursor=page["next_cursor"])
            found += page["data"]
            if page["next_cursor"] is None:
                return found

    def having(self, **values: Any) -> list[str]:
        return [row["id"] for row in reversed(self.rows) if all(row[name] == value for name, value in values.items())]


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


History = tuple[Person, Person, list[past.Row]]


async def a_history(database: str) -> History:
    """An admin, and someone with 300 requests of all sorts, beside another org's."""
    door = PostgresDoor(database, pool_size=1, deadline_seconds=30)
    admin, someone, other = Person(door, "admin"), Person(door), Person(door)
    for one in (admin, someone, other):
        await one.seed()
    await door.close()
    rows = list(past.many(someone, 300))
    await past.keep(database, [*rows, *past.many(other, 40, seed=1)])
    return admin, someone, rows


@pytest.fixture(scope="module")
async def shared_history(shared_database: str) -> History:
    return await a_history(shared_database)


@pytest.fixture
async def office(client: httpx.AsyncClient, shared_history: History, shared_database: str) -> Office:
    """Half of its requests are rolled up. It is for tests that only read."""
    await past.roll_up(shared_database, NOON + timedelta(hours=25))
    return Office(client, *shared_history)


@pytest.fixture
async def own_office(client: httpx.AsyncClient, shared_database: str) -> Office:
    history = await a_history(shared_database)
    await past.roll_up(shared_database, NOON + timedelta(hours=25))
    return Office(client, *history)


def total(rows: list[Any], name: str) -> int:
    return sum(row[name] or 0 for row in rows)


def created(row: past.Row) -> datetime:
    return datetime.fromisoformat(row["created_at"])


async def test_requests_come_newest_first_page_by_page(office: Office) -> None:
    newest_first = office.having()
    for limit in (7, 299, 300, 1000):
        assert [row["id"] for row in await office.pages("/admin/usage", limit=limit)] == newest_first
    oldest_first = await office.pages("/admin/usage", limit=100, sort="created_at:asc")
    assert [row["id"] for row in oldest_first] == newest_first[::-1]
    assert [row["id"] for row in (await office.ask("/admin/usage", limit=3, offset=5))["data"]] == newest_first[5:8]


async def test_many_of_one_moment_are_all_on_some_page(own_office: Office, shared_database: str) -> None:
    twins = [of(own_office.someone, NOON - timedelta(days=1)) for _ in range(9)]
    await past.keep(shared_database, twins)
    for sort in ("created_at:asc", "created_at:desc"):
        found = await own_office.pages("/admin/usage", limit=2, sort=sort, to=NOON.isoformat())
        assert sorted(row["id"] for row in found) == sorted(row["id"] for row in twins)


async def test_a_row_says_what_was_asked_what_came_and_what_it_cost(office: Office) -> None:
    (row,) = (await office.ask("/admin/usage", limit=1, state="settled"))["data"]
    made = next(one for one in office.rows if one["id"] == row["id"])
    for name in ("org_id", "key_id", "model", "served_model", "upstream", "cost_nanos", "duration_ms", "streamed"):
        assert row[name] == made[name]
    assert abs(datetime.fromisoformat(row["created_at"]) - created(made)) < timedelta(milliseconds=1)
    assert row["cost_credits"] == credits_text(made["cost_nanos"])
    assert row["org_name"] == "Org"
    assert row["cached_tokens"] == 0


@pytest.mark.parametrize(
    "values",
    [
        {"model": "maker/model-1"}, {"upstream": "ups_1"}, {"state": "released"}, {"state": "held"}, {"status": 502},
        {"streamed": True}, {"estimated": True}, {"estimated": False, "model": "maker/model-2", "state": "settled"},
        {"endpoint": "chat"}, {"endpoint": "embeddings"},
    ],
)  # fmt: skip
async def test_filters_narrow_the_list(office: Office, values: dict[str, Any]) -> None:
    query = {name: str(value).lower() for name, value in values.items()}
    found = await office.pages("/admin/usage", limit=1000, **query)
    assert [row["id"] for row in found] == office.having(**values)


async def test_older_names_of_filters_are_understood(office: Office) -> None:
    query = {"task": "chat", "model_id": "maker/model-1", "from_ts": created(office.rows[0]).isoformat()}
    found = await office.pages("/admin/usage", limit=1000, **query)
    assert [row["id"] for row in found] == office.having(endpoint="chat", model="maker/model-1") != []
    await office.ask("/admin/usage", 400, task="chat", endpoint="chat")


async def test_people_s_filters_find_theirs_alone(office: Office, person: Any) -> None:
    for name in ("user_id", "key_id"):
        query = {"org_id": None, name: getattr(office.someone, name)}
        assert len(await office.pages("/admin/usage", limit=1000, **query)) == 300
    stranger = await person()
    assert await office.pages("/admin/usage", key_id=stranger.key_id) == []
    assert await office.pages("/admin/usage", org_id="org_of_nobody") == []


@pytest.mark.parametrize("sort", ["created_at:asc", "created_at:desc"])
async def test_a_page_looks_at_so_many_requests_and_then_says_where_to_go_on(
    own_office: Office, shared_database: str, sql: Any, sort: str
) -> None:
    rare = of(own_office.someone, NOON + timedelta(hours=30), model="maker/rare")
    await past.keep(shared_database, [rare])
    look = "select tollgate.request_page($1, 5, true, 40)"
    query, pages = {"org_id": own_office.someone.org_id, "model": "maker/rare", "sort": sort}, []
    while not pages or pages[-1]["next_cursor"]:
        asked = query | ({"cursor": pages[-1]["next_cursor"]} if pages else {})
        pages.append(json.loads(await sql(shared_database, look, json.dumps(asked))))
    assert [row["id"] for page in pages for row in page["data"]] == [rare["id"]]
    assert len(pages) == 8  # 301 in forties


@pytest.mark.parametrize(("status", "count"), [("2xx", {200}), ("5xx", {502}), ("502", {502}), ("4xx", set())])
async def test_a_status_is_a_code_or_its_hundred(office: Office, status: str, count: set[int]) -> None:
    found = await office.pages("/admin/usage", limit=1000, status=status)
    assert len(found) == sum(row["status"] in count for row in office.rows)


async def test_from_is_inclusive_and_to_is_not(office: Office) -> None:
    first, second, third = (created(row) for row in office.rows[10:13])
    found = await office.pages("/admin/usage", from_=first.isoformat(), to=third.isoformat())
    assert [row["id"] for row in found] == [office.rows[11]["id"], office.rows[10]["id"]]
    found = await office.pages("/admin/usage", from_=second.isoformat(), to=third.isoformat())
    assert [row["id"] for row in found] == [office.rows[11]["id"]]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": {"cached_tokens": 7}, "completion_tokens_details": {"reasoning_tokens": 4}},
        {"input_tokens_details": {"cached_tokens": 7}, "output_tokens_details": {"reasoning_tokens": 4}},
        {"cache_read_input_tokens": 7, "output_tokens_details": {"thinking_tokens": 4}},
    ],
)  # fmt: skip
async def test_logs_tell_what_upstreams_read_from_their_caches_and_what_was_reasoning(
    own_office: Office, shared_database: str, usage: Any
) -> None:
    cached = of(own_office.someone, NOON + timedelta(days=1), usage=usage)
    await past.keep(shared_database, [cached])
    query = {"org_id": None, "key_id": own_office.someone.key_id, "limit": 1000}
    found = await own_office.pages("/admin/logs", **query, prompt_cached="true")
    assert [(row["id"], row["cached_tokens"], row["reasoning_tokens"]) for row in found] == [(cached["id"], 7, 4)]
    assert len(await own_office.pages("/admin/logs", **query, prompt_cached="false")) == 300
    assert len(await own_office.pages("/admin/logs", **query)) == 301


async def test_logs_are_the_list_under_another_name(office: Office) -> None:
    whole = await office.pages("/admin/usage", limit=50, model="maker/model-1", status="2xx")
    query = {"org_id": None, "key_id": office.someone.key_id, "model": "maker/model-1", "status": "2xx"}
    assert await office.pages("/admin/logs", **query, limit=9) == whole


@pytest.mark.parametrize("by", ["model", "key", "user", "org", "upstream", "day", "month"])
async def test_groups_add_up_to_the_requests(office: Office, by: str) -> None:
    page = await office.ask("/admin/usage/aggregate", by=by, **{"from_": LONG["from"], "to": LONG["to"]})
    assert page["total"] == len(page["data"])
    for name in ("prompt_tokens", "completion_tokens", "charge_nanos", "cost_nanos"):
        assert total(page["data"], name) == page["totals"][name] == total(office.rows, name)
    assert total(page["data"], "requests") == 300
    assert total(page["data"], "errors") == sum(row["error_code"] is not None for row in map(with_error, office.rows))
    assert page["totals"]["margin_nanos"] == total(office.rows, "charge_nanos") - total(office.rows, "cost_nanos")


def with_error(row: past.Row) -> past.Row:
    return {"error_code": None} | row


async def test_groups_by_two_things_tell_both(office: Office) -> None:
    found = await office.pages("/admin/usage/aggregate", by=["model", "upstream"], **SPAN)
    for group in found:
        alike = [row for row in office.rows if (row["model"], row["upstream"]) == (group["model"], group["upstream"])]
        assert group["requests"] == len(alike)
        assert group["charge_nanos"] == total(alike, "charge_nanos")
        assert "org_id" not in group
    assert sum(group["requests"] for group in found) == 300


SPAN = {"from_": LONG["from"], "to": LONG["to"]}


@pytest.mark.parametrize(
    ("sort", "measure"),
    [
        ("requests:desc", lambda g: g["requests"]), ("errors:asc", lambda g: g["errors"]),
        ("tokens:desc", lambda g: g["prompt_tokens"] + g["completion_tokens"]),
        ("charge:asc", lambda g: g["charge_nanos"]), (None, lambda g: g["charge_nanos"]),
        ("cost:desc", lambda g: g["cost_nanos"]), ("margin:desc", lambda g: g["margin_nanos"]),
    ],
)  # fmt: skip
async def test_groups_come_in_order_page_by_page(office: Office, sort: str | None, measure: Any) -> None:
    by = ["model", "upstream"]
    whole = await office.pages("/admin/usage/aggregate", by=by, sort=sort, limit=1000, **SPAN)
    assert [measure(group) for group in whole] == sorted(map(measure, whole), reverse=not (sort or "").endswith("asc"))
    assert await office.pages("/admin/usage/aggregate", by=by, sort=sort, limit=1, **SPAN) == whole
    skipped = await office.ask("/admin/usage/aggregate", by=by, sort=sort, limit=2, offset=1, **SPAN)
    assert skipped["data"] == whole[1:3]
    assert await office.pages("/admin/usage/aggregate", by=by, sort=sort, limit=5, **SPAN) == whole


async def test_groups_by_day_come_in_order_of_time(office: Office) -> None:
    found = await office.pages("/admin/usage/aggregate", by="day", limit=1, **SPAN)
    assert [day["start"] for day in found] == sorted(day["start"] for day in found)
    assert len(found) == 3


async def test_names_go_with_ids(office: Office) -> None:
    (group,) = await office.pages("/admin/usage/aggregate", by=["org", "user", "key"], **SPAN)
    assert group["org_name"] == "Org"
    assert group["user_email"] == f"{office.someone.number}@example.com"
    assert group["key_name"] == "Of the tests"


@pytest.mark.parametrize(("bucket", "count"), [("hour", 72), ("day", 4)])
async def test_a_series_has_every_bucket_and_adds_up(office: Office, bucket: str, count: int) -> None:
    answer = await office.ask("/admin/usage/series", bucket=bucket, **SPAN)
    assert len(answer["data"]) == count
    assert total(answer["data"], "requests") == 300
    assert total(answer["data"], "cost_nanos") == total(office.rows, "cost_nanos")
    for point in answer["data"]:
        begins = datetime.fromisoformat(point["start"])
        ends = begins + (timedelta(hours=1) if bucket == "hour" else timedelta(days=1))
        inside = [row for row in office.rows if begins <= created(row) < ends]
        assert point["requests"] == len(inside)
        assert point["charge_nanos"] == total(inside, "charge_nanos")


async def test_a_series_is_split_into_the_five_groups_with_the_highest_charge_and_the_rest(
    own_office: Office, shared_database: str
) -> None:
    more = [of(own_office.someone, NOON + timedelta(hours=n), model=f"maker/more-{n}") for n in range(4)]
    await past.keep(shared_database, more)
    for dimension, column in {"model": "model", "upstream": "upstream", "key": "key_id", "org": "org_id"}.items():
        answer = await own_office.ask("/admin/usage/series", bucket="day", by=dimension, **SPAN)
        whole = await own_office.pages("/admin/usage/aggregate", by=dimension, limit=1000, **SPAN)
        named = [group for group in answer["groups"] if not group["is_rest"]]
        for name in (column, "charge_nanos", "requests"):
            assert [group[name] for group in named] == [group[name] for group in whole[:5]]
        rest = [group["requests"] for group in answer["groups"] if group["is_rest"]]
        assert rest == [total(whole[5:], "requests")][: len(whole) - 5 > 0]
        for number, point in enumerate(answer["data"]):
            parts = [group["data"][number] for group in answer["groups"]]
            assert {part["start"] for part in parts} == {point["start"]}
            for measure in ("requests", "errors", "prompt_tokens", "charge_nanos", "cost_nanos"):
                assert total(parts, measure) == point[measure]
    assert (await own_office.ask("/admin/usage/series", **SPAN))["groups"] is None


async def test_minutes_are_told_as_well(office: Office) -> None:
    answer = await office.ask(
        "/admin/usage/series", bucket="minute", from_=NOON.isoformat(), to=(NOON + timedelta(hours=3)).isoformat()
    )
    assert len(answer["data"]) == 180
    busy = {point["start"] for point in answer["data"] if point["requests"]}
    rows = [row for row in office.rows if created(row) < NOON + timedelta(hours=3)]
    assert busy == {f"{row['created_at'][:16]}:00.000Z" for row in rows}


@pytest.mark.parametrize(
    ("bucket", "span", "told"),
    [
        ("minute", timedelta(hours=7), "6 hours"),
        ("hour", timedelta(days=32), "31 days"),
        ("day", timedelta(days=800), "731 days"),
    ],
)
async def test_a_series_that_would_be_too_long_is_refused(
    office: Office, bucket: str, span: timedelta, told: str
) -> None:
    refusal = await office.ask(
        "/admin/usage/series", 400, bucket=bucket, from_=(NOON - span).isoformat(), to=NOON.isoformat()
    )
    assert refusal["error"]["param"] == "from"
    assert told in refusal["error"]["message"]


async def test_times_side_by_side_add_up_to_the_whole(office: Office) -> None:
    cuts = [NOON + timedelta(minutes=minutes) for minutes in (0, 1, 59, 60, 61, 777, 1440, 1500, 1501, 2222, 3000)]
    count = 0
    for since, until in pairwise(cuts):
        page = await office.ask("/admin/usage/aggregate", from_=since.isoformat(), to=until.isoformat())
        count += page["totals"]["requests"]
    assert count == 300


@BOTH_DOORS
@pytest.mark.parametrize(("path", "column"), [("latency", "duration_ms"), ("ttft", "first_token_ms")])
async def test_latencies_are_those_of_requests_without_an_error(office: Office, path: str, column: str) -> None:
    measured = sorted(row[column] for row in office.rows if row["state"] == "settled")
    answer = await office.ask(f"/admin/usage/{path}", **SPAN)
    assert answer["requests"] == len(measured)
    assert answer["average_ms"] == pytest.approx(sum(measured) / len(measured), abs=0.1)
    for percent in (50, 90, 95, 99):
        true = measured[-(-len(measured) * percent // 100) - 1]
        assert answer[f"p{percent}_ms"] == pytest.approx(true, rel=0.05, abs=1)
    empty = await office.ask(f"/admin/usage/{path}", **SPAN, model="maker/none")
    assert (empty["requests"], empty["p50_ms"], empty["average_ms"]) == (0, None, None)
    refusal = await office.ask(f"/admin/usage/{path}", 400, from_="2020-01-01T00:00:00Z")
    assert "31 days" in refusal["error"]["message"]


async def test_a_file_of_everyone_s_requests_has_the_costs(office: Office) -> None:
    headers = {"authorization": f"Bearer {office.admin.secret}"}
    query = {"org_id": office.someone.org_id, "model": "maker/model-1"}
    answer = await office.client.get("/admin/usage/export", params=query, headers=headers)
    head, *lines = answer.text.split("\r\n")[:-1]
    assert head.endswith("cost_nanos,cost_credits,generation_id")
    assert [line.split(",")[0] for line in lines] == office.having(model="maker/model-1")


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/admin/usage", {"limit": 0}, "limit"), ("/admin/usage", {"limit": 1001}, "limit"),
        ("/admin/usage", {"cursor": "req_unknown"}, "cursor"), ("/admin/usage", {"cursor": "a\0b"}, "cursor"),
        ("/admin/usage", {"status": "6xx"}, "status"), ("/admin/usage", {"status": "4x"}, "status"),
        ("/admin/usage", {"sort": "charge_nanos; drop"}, "sort"), ("/admin/usage", {"state": "gone"}, "state"),
        ("/admin/usage", {"model": "a\0b"}, "model"), ("/admin/usage", {"from": "yesterday"}, "from"),
        ("/admin/usage", {"from": "0001-01-01T00:00:00+14:00"}, "from"), ("/admin/usage", {"balance": "1"}, "balance"),
        ("/admin/logs", {"key": "key_1"}, "key"), ("/admin/logs", {"cached": "maybe"}, "cached"),
        ("/admin/usage/aggregate", {"by": "moon"}, "by.0"), ("/admin/usage/aggregate", {"sort": "moon"}, "sort"),
        ("/admin/usage/aggregate", {"cursor": "nowhere"}, "cursor"),
        ("/admin/usage/aggregate", {"from": LONG["to"], "to": LONG["from"]}, "to"),
        ("/admin/usage/series", {"bucket": "second"}, "bucket"), ("/admin/usage/series", {"limit": 5}, "limit"),
        ("/admin/usage/latency", {"by": "model"}, "by"), ("/admin/usage/export", {"format": "xls"}, "format"),
        ("/admin/usage/export", {"limit": 5}, "limit"),
    ],
)  # fmt: skip
async def test_a_question_that_makes_no_sense_is_refused_by_name(
    client: httpx.AsyncClient, person: Any, path: str, query: dict[str, Any], param: str
) -> None:
    admin = await person("admin")
    answer = await client.get(path, params=query, headers={"authorization": f"Bearer {admin.secret}"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("path", PATHS)
async def test_only_admins_are_told(client: httpx.AsyncClient, person: Any, path: str) -> None:
    member, lacking = await person(), await person("admin", scopes=["usage"])
    for someone in (member, lacking):
        answer = await client.get(path, headers={"authorization": f"Bearer {someone.secret}"})
        assert answer.status_code == 403
        assert answer.json()["error"]["scope"] == "admin"
    assert (await client.get(path)).status_code == 401
    assert (await client.get(path, params={"limit": "many"})).json()["error"]["code"] == "missing_api_key"


async def test_refunds_are_summed_up_with_the_requests_that_they_refund(own_office: Office) -> None:
    paid = next(row for row in own_office.rows if row["state"] == "settled" and row["charge_nanos"] > 10)
    body = {"request_id": paid["id"], "credits": "0.000000009", "reason": "sorry"}
    headers = {"authorization": f"Bearer {own_office.admin.secret}", "idempotency-key": paid["id"]}
    assert (await own_office.client.post("/admin/credits/refund", json=body, headers=headers)).status_code == 200
    for by in ("model", "key", "day", "upstream"):
        page = await own_office.ask("/admin/usage/aggregate", by=by, **SPAN)
        assert page["totals"]["refunded_nanos"] == 9
        groups = {group.get("start") or group.get(by) or group.get("key_id"): group for group in page["data"]}
        name = {"model": paid["model"], "key": paid["key_id"], "day": f"{paid['created_at'][:10]}T00:00:00.000Z"}
        refunded = {where: group["refunded_nanos"] for where, group in groups.items() if group["refunded_nanos"]}
        assert refunded == {name.get(by, paid["upstream"]): 9}
    series = (await own_office.ask("/admin/usage/series", bucket="hour", **SPAN))["data"]
    refunds = [(point["start"][:13], point["refunded_nanos"]) for point in series if point["refunded_nanos"]]
    assert refunds == [(paid["created_at"][:13], 9)]
    own = {"authorization": f"Bearer {own_office.someone.secret}"}
    answer = await own_office.client.get("/user/usage/aggregate", params=LONG, headers=own)
    assert answer.json()["totals"]["refunded_credits"] == "0.000000009"


@BOTH_DOORS
@pytest.mark.parametrize("query", [{"org_id": None, "bucket": "day"}, {"bucket": "day"}, {"model": "maker/model-1"}])
async def test_a_series_of_latencies_has_those_of_each_bucket(office: Office, query: dict[str, Any]) -> None:
    span = {"from_": NOON.isoformat(), "to": (NOON + timedelta(hours=20)).isoformat()}
    answer = await office.ask("/admin/usage/latency/series", **span, **query)
    whole = {name: value for name, value in query.items() if name != "bucket"}
    for point in answer["data"]:
        begins = datetime.fromisoformat(point["start"])
        ends = begins + (timedelta(days=1) if "bucket" in query else timedelta(hours=1))
        bounds = {"from_": begins.isoformat(), "to": min(ends, NOON + timedelta(hours=20)).isoformat()}
        for path, name in (("/admin/usage/latency", "latency"), ("/admin/usage/ttft", "first_token")):
            one = await office.ask(path, **bounds, **whole)
            assert point[name] == {field: one[field] for field in point[name]}
    assert sum(point["latency"]["requests"] for point in answer["data"]) > 0


async def test_a_series_of_latencies_that_would_be_too_long_is_refused(office: Office) -> None:
    for days, more in ((8, {"org_id": None}), (2, {}), (2, {"org_id": None, "model": "maker/model-1"})):
        span = {"from_": (NOON - timedelta(days=days)).isoformat(), "to": NOON.isoformat()}
        refusal = await office.ask("/admin/usage/latency/series", 400, **span, **more)
        assert refusal["error"]["param"] == "from"
