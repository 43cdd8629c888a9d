"""Security events: how they arise, and how operators list and acknowledge them."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from completions.paid import an_item
from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.audit import store
from tollgate.database import Door
from tollgate.keys import rules
from tollgate.settings import read

EVENTS = "/admin/security-events"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = NOON.isoformat()
Sql = Callable[..., Awaitable[Any]]


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


@pytest.fixture
async def look(client: httpx.AsyncClient, person: Any) -> Callable[..., Awaitable[Any]]:
    """Lists events as an admin: `await look(org_id=…)`."""
    admin = await person("admin")

    async def ask(**query: Any) -> Any:
        answer = await client.get(EVENTS, params=query, headers=bearing(admin))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def bearing(person: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {person.secret}"}


def an_address() -> str:
    return f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64"


def failures(address: str, times: int = 1, at: str = NOW, **more: Any) -> dict[str, Any]:
    seen = {"first_seen": at, "last_seen": at, "times": times, "address": address}
    return {"kind": "authentication_failed", "code": "invalid_api_key", **seen, **more}


async def note(door: Door, *refusals: dict[str, Any], uses: Any = (), trespasses: Any = ()) -> None:
    await store.write_security_counts(door, list(refusals), list(trespasses), list(uses))


async def of_address(look: Any, address: str, **query: Any) -> list[dict[str, Any]]:
    found, more = [], {"cursor": ""}
    while more["cursor"] is not None:
        page = await look(limit=1000, **query, **{name: value for name, value in more.items() if value})
        found += [event for event in page["data"] if event["subject"] == {"kind": "address", "id": address}]
        more = {"cursor": page["next_cursor"]}
    return found


@BOTH_DOORS
async def test_what_happens_to_a_key_is_an_event_in_the_same_moment(
    door: Door, client: httpx.AsyncClient, person: Any, look: Any
) -> None:
    someone = await person()
    caller = someone.at_the_door()
    await caller.call("tollgate_set_key_state", key_id=someone.key_id, state="disabled")
    await person_s_state(door, someone, "revoked")
    page = await look(org_id=someone.org_id)
    assert [(event["kind"], event["severity"], event["count"]) for event in page["data"]] == [
        ("key_revoked", "info", 1),
        ("key_created", "info", 1),
    ]
    assert {event["subject"]["id"] for event in page["data"]} == {someone.key_id}
    assert page["data"][1]["details"]["name"] == "tests"


async def person_s_state(door: Door, someone: Person, state: str) -> None:
    from_the_console = {"console": "tests"}
    await door.call("tollgate_set_key_state", caller=from_the_console, key_id=someone.key_id, state=state)


async def test_a_charge_above_its_hold_is_an_event_of_its_org(door: Door, customer: Any, look: Any) -> None:
    someone = await customer()
    for _ in range(2):
        item = an_item(someone)
        assert "granted" in (await door.call("tollgate_admit", items=[item]))[item["id"]]
        ending = {"id": item["id"], "outcome": "settled", "charge_nanos": 900_000, "cost_nanos": 800_000}
        await door.call("tollgate_settle", items=[ending])
    (event,) = (await look(kind="org_overdrawn", org_id=someone.org_id))["data"]
    assert event["subject"] == {"kind": "org", "id": someone.org_id}
    assert (event["count"], event["severity"], event["key_id"]) == (2, "warning", None)


async def test_failures_of_one_address_are_one_event_that_moves_on(door: Door, look: Any) -> None:
    address = an_address()
    await note(door, failures(address, 2, "2026-01-01T12:00:00Z"))
    await note(door, failures(address, 3, "2026-01-01T12:30:00Z"))
    await note(door, failures(address, 4, "2026-01-01T11:00:00Z"))
    (event,) = await of_address(look, address)
    assert (event["kind"], event["count"], event["severity"]) == ("authentication_failed", 9, "warning")
    assert (event["first_seen_at"], event["last_seen_at"]) == ("2026-01-01T11:00:00.000Z", "2026-01-01T12:30:00.000Z")
    assert (event["org_id"], event["key_id"], event["details"]["code"]) == (None, None, "invalid_api_key")


async def test_a_server_whose_clock_runs_ahead_sees_nothing_in_the_future(door: Door, look: Any) -> None:
    address = an_address()
    await note(door, failures(address, at="2999-01-01T00:00:00Z"))
    (event,) = await of_address(look, address)
    assert event["first_seen_at"] <= event["last_seen_at"] < "2998"


async def test_refusals_of_a_key_are_its_own_by_id_or_by_digest(door: Door, person: Any, look: Any) -> None:
    someone = await person()
    limit = {"kind": "limit_exceeded", "code": "rate_limit_exceeded", "digest": someone.key["digest"]}
    await note(
        door,
        failures("192.0.2.1", 2, key_id=someone.key_id, code="key_revoked"),
        failures("192.0.2.1", 5, **limit),
        failures("192.0.2.9", 1, kind="ip_refused", code="ip_not_allowed", key_id=someone.key_id),
    )
    found = {event["kind"]: event for event in (await look(key_id=someone.key_id))["data"]}
    assert {kind: event["count"] for kind, event in found.items()} == {
        "key_created": 1, "authentication_failed": 2, "limit_exceeded": 5, "ip_refused": 1,
    }  # fmt: skip
    assert {event["org_id"] for event in found.values()} == {someone.org_id}
    assert found["ip_refused"]["details"] == {"code": "ip_not_allowed", "address": "192.0.2.9"}


async def test_more_than_a_hundred_failures_in_an_hour_are_a_pattern(door: Door, look: Any) -> None:
    address = an_address()
    await note(door, failures(address, 100))
    assert len(await of_address(look, address)) == 1
    await note(door, failures(address, 1))
    await note(door, failures(address, 30))
    (pattern,) = [event for event in await of_address(look, address) if event["kind"] == "many_failures"]
    assert (pattern["count"], pattern["severity"], pattern["details"]["in_hour"]) == (31, "critical", 131)


async def test_a_hundred_failures_over_many_hours_are_none(door: Door, look: Any) -> None:
    address = an_address()
    for hour in range(10, 14):
        await note(door, failures(address, 60, f"2026-01-01T{hour}:10:00Z"))
    (event,) = await of_address(look, address)
    assert event["count"] == 240


async def test_beyond_ten_thousand_addresses_they_are_counted_as_others(own_database: str, sql: Sql) -> None:
    await sql(
        own_database,
        """
        insert into tollgate.security_events
          (kind, severity, subject_kind, subject, first_seen_at, last_seen_at, count, hour, count_in_hour)
        select 'authentication_failed', 'warning', 'address', 'a' || i, now(), now(), 1, now(), 1
        from generate_series(1, 10000) i
        """,
    )
    refusals = json.dumps([failures("b1"), failures("b2"), failures("a7")])
    await sql(own_database, "select public.tollgate_write_security_counts($1, '[]', '[]')", refusals)
    counted = (
        "select json_object_agg(subject, count) from tollgate.security_events where subject in ('a7', 'b1', 'others')"
    )
    assert json.loads(await sql(own_database, counted)) == {"a7": 2, "others": 2}
    assert await sql(own_database, "select count(*) from tollgate.security_events") == 10_001


async def test_a_refusal_of_no_kind_of_ours_is_left_out(door: Door, look: Any) -> None:
    address = an_address()
    await note(door, failures(address, kind="key_created"), failures(address, kind="nonsense"))
    assert await of_address(look, address) == []


async def test_servers_that_hand_over_at_once_lose_no_count_and_lock_nobody_out(door: Door, look: Any) -> None:
    addresses = [an_address() for _ in range(5)]
    batches = [[failures(address) for address in addresses[turn % 5 :] + addresses[: turn % 5]] for turn in range(12)]
    await asyncio.gather(*(note(door, *batch) for batch in batches))
    for address in addresses:
        (event,) = await of_address(look, address)
        assert event["count"] == 12


async def test_whoever_asks_for_what_is_an_operator_s_is_in_the_trail_once_an_hour(
    door: Door, client: httpx.AsyncClient, person: Any
) -> None:
    someone, admin = await person(), await person("admin")
    asked = {"key_id": someone.key_id, "target": "GET /admin/orgs", "times": 3, "ip": "192.0.2.1",
             "user_agent": "tests/1.0", "request_id": "req_1"}  # fmt: skip
    for _ in range(2):
        await note(door, trespasses=[asked, {**asked, "target": "GET /admin/users"}, {**asked, "key_id": "key_none"}])
    answer = await client.get(
        "/admin/audit-logs", params={"actor_id": someone.key_id, "outcome": "refused"}, headers=bearing(admin)
    )
    found = answer.json()["data"]
    assert sorted(event["target_id"] for event in found) == ["GET /admin/orgs", "GET /admin/users"]
    assert {event["action"] for event in found} == {"access.refused"}
    assert found[0]["actor"] == {"kind": "key", "key_id": someone.key_id, "user_id": someone.user_id}
    assert (found[0]["ip"], found[0]["org_id"], found[0]["details"]) == ("192.0.2.1", someone.org_id, {"count": 3})


def uses(someone: Person, networks: int, at: str) -> list[dict[str, Any]]:
    return [{"key_id": someone.key_id, "network": f"10.{n // 256}.{n % 256}.0/24", "seen": at} for n in range(networks)]


async def forget_the_last_look(database: str, sql: Sql) -> None:
    """Other tests look at the same moments."""
    await sql(database, "update tollgate.pattern_scan set scanned_at = '-infinity'")


async def patterns(database: str, sql: Sql, at: datetime) -> int:
    """How many patterns were found by a look at this moment."""
    found = json.loads(await sql(database, "select public.tollgate_detect_patterns($1)", at.isoformat()))
    return int(found["spotted"])


async def test_a_key_used_from_twenty_networks_within_a_day_is_a_pattern(
    door: Door, person: Any, look: Any, shared_database: str, sql: Sql
) -> None:
    spread, usual, past = await person(), await person(), await person()
    yesterday = (NOON - timedelta(hours=24)).isoformat()
    await note(door, uses=[*uses(spread, 20, NOW), *uses(usual, 19, NOW), *uses(past, 20, yesterday)])
    counts = []
    await forget_the_last_look(shared_database, sql)
    for minutes in (0, 9, 20, 61):  # looked for every ten minutes, told once an hour
        await patterns(shared_database, sql, NOON + timedelta(minutes=minutes))
        found = {event["key_id"]: event for event in (await look(kind="many_networks", limit=1000))["data"]}
        assert not {usual.key_id, past.key_id} & set(found)
        counts.append(found[spread.key_id]["count"])
    assert counts == [1, 1, 1, 2]
    assert found[spread.key_id]["details"] == {"networks": 20}


async def test_a_key_s_networks_are_remembered_up_to_two_hundred(
    door: Door, person: Any, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    for _ in range(2):
        await note(door, uses=uses(someone, 150, NOW))
    more = [{**use, "network": use["network"].replace("10.", "11.", 1)} for use in uses(someone, 150, NOW)]
    await note(door, uses=more)
    await note(door, uses=[{**more[0], "network": "12.0.0.0/24"}, {**more[0], "key_id": "key_none"}])
    kept = "select count(*) from tollgate.key_networks where key_id = $1"
    assert await sql(shared_database, kept, someone.key_id) == 200
    assert await sql(shared_database, kept, "key_none") == 0


PAST_DAYS = """
insert into tollgate.requests (
  id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, charge_nanos, cost_nanos, markup_ppm, output_bound,
  reserved_tokens, created_at, expires_at, settled_at
)
select 'req_' || gen_random_uuid(), $1, $2, $3, 'settled', 'chat', 'm', 0, 0, 0, 0, 1, 1, at, at, at
from (
  select $7::timestamptz - make_interval(days => day) - interval '1 hour' as at
  from generate_series(1, $4::integer) day, generate_series(1, $5::integer)
  union all
  select $7::timestamptz - interval '2 hours' from generate_series(1, $6::integer)
) times
"""


async def test_a_spike_is_ten_times_a_key_s_own_past(person: Any, look: Any, shared_database: str, sql: Sql) -> None:
    cases = [(14, 100, 1000, True), (14, 101, 1000, False), (14, 10, 999, False), (2, 10, 1000, False),
             (3, 10, 1000, True)]  # fmt: skip
    people = [await person() for _ in cases]
    for someone, (days, a_day, today, _) in zip(people, cases, strict=True):
        of_whom = (someone.org_id, someone.key_id, someone.user_id)
        await sql(shared_database, PAST_DAYS, *of_whom, days, a_day, today, NOON)
    await sql(shared_database, "select tollgate.roll_up_again($1)", NOON - timedelta(days=20))
    await forget_the_last_look(shared_database, sql)
    await patterns(shared_database, sql, NOON)
    for someone, (days, a_day, today, is_spike) in zip(people, cases, strict=True):
        found = (await look(kind="usage_spike", key_id=someone.key_id))["data"]
        told = [{"requests": today, "usual_requests": round(days * a_day / 14)}] if is_spike else []
        assert [event["details"] for event in found] == told


async def test_quarantined_usage_is_counted_once_for_its_org(own_database: str, sql: Sql) -> None:
    quarantined = """
    insert into tollgate.requests (
      id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, charge_nanos, cost_nanos, markup_ppm,
      output_bound, reserved_tokens, created_at, expires_at, settled_at, quarantined
    )
    select 'req_' || n, 'org_1', 'key_1', 'usr_1', 'settled', 'chat', 'm', 0, 1, 1, 0, 1, 1, $1, $1, $1, true
    from generate_series(1, 3) n
    """
    await sql(own_database, "update tollgate.pattern_scan set quarantined_until = $1", NOON)
    await sql(own_database, quarantined, NOON)
    assert await patterns(own_database, sql, NOON + timedelta(seconds=30)) == 0, "it may not be committed yet"
    assert await patterns(own_database, sql, NOON + timedelta(seconds=31)) == 1
    assert await patterns(own_database, sql, NOON + timedelta(seconds=32)) == 0
    event = await sql(own_database, "select to_json(e) from tollgate.security_events e")
    assert json.loads(event).items() >= {"count": 3, "severity": "critical", "org_id": "org_1"}.items()


async def test_who_looks_for_patterns_second_does_not_wait(own_database: str, sql: Sql) -> None:
    first = await asyncpg.connect(own_database)
    async with first.transaction():
        await first.fetchval("select public.tollgate_detect_patterns()")
        second = await sql(own_database, "select public.tollgate_detect_patterns()")
        assert json.loads(second) == {"spotted": 0}
    await first.close()


async def test_old_events_are_dropped_unless_they_are_grave_and_unseen(own_database: str, sql: Sql) -> None:
    await sql(
        own_database,
        """
        insert into tollgate.security_events (
          kind, severity, subject_kind, subject, first_seen_at, last_seen_at, count, hour, count_in_hour,
          acknowledged_at, acknowledged_by
        )
        select kind, severity, subject_kind, subject, at, at, 1, at, 1, ack, ack::text
        from (values
          ('usage_quarantined', 'critical', 'org', 'org_1', interval '91 days', null),
          ('usage_quarantined', 'critical', 'org', 'org_2', interval '91 days', now()),
          ('key_created', 'info', 'key', 'key_1', interval '91 days', null),
          ('key_created', 'info', 'key', 'key_2', interval '89 days', null),
          ('many_failures', 'critical', 'address', 'a1', interval '91 days', null)
        ) v (kind, severity, subject_kind, subject, age, ack), lateral (select now() - age as at)
        """,
    )
    await sql(own_database, "select public.tollgate_detect_patterns()")
    left = await sql(own_database, "select array_agg(subject order by subject) from tollgate.security_events")
    assert left == ["key_2", "org_1"]


@BOTH_DOORS
async def test_acknowledged_is_acknowledged_once_and_in_the_trail(
    door: Door, client: httpx.AsyncClient, person: Any, look: Any, shared_database: str, sql: Sql
) -> None:
    admin, other, address = await person("admin"), await person("admin"), an_address()
    await note(door, failures(address, 3))
    (event,) = await of_address(look, address)
    url = f"{EVENTS}/{event['id']}/acknowledge"
    first = await client.post(url, json={"note": "A load test of ours."}, headers=bearing(admin))
    assert first.status_code == 200
    assert (first.json()["acknowledged_by"], first.json()["note"]) == (admin.user_id, "A load test of ours.")
    again = await client.post(url, json={"note": "Mine!"}, headers=bearing(other))
    assert again.json() == first.json()
    recorded = "select json_agg(details) from tollgate.audit_events where target_id = $1"
    (details,) = json.loads(await sql(shared_database, recorded, event["id"]))
    assert details == {
        "kind": "authentication_failed", "subject": address, "count": 3, "note": "A load test of ours.",
    }  # fmt: skip

    await note(door, failures(address))
    both = await of_address(look, address)
    assert [(one["count"], one["acknowledged_at"] is None) for one in sorted(both, key=lambda one: one["count"])] == [
        (1, True),
        (3, False),
    ]
    assert [one["count"] for one in await of_address(look, address, acknowledged=False)] == [1]
    assert [one["count"] for one in await of_address(look, address, acknowledged=True)] == [3]


async def test_two_admins_at_once_acknowledge_it_once(
    door: Door, client: httpx.AsyncClient, person: Any, look: Any, shared_database: str, sql: Sql
) -> None:
    admins, address = [await person("admin") for _ in range(4)], an_address()
    await note(door, failures(address))
    (event,) = await of_address(look, address)
    url = f"{EVENTS}/{event['id']}/acknowledge"
    answers = await asyncio.gather(*(client.post(url, headers=bearing(admin)) for admin in admins))
    assert len({answer.json()["acknowledged_by"] for answer in answers}) == 1
    assert (
        await sql(shared_database, "select count(*) from tollgate.audit_events where target_id = $1", event["id"]) == 1
    )


@BOTH_DOORS
async def test_a_pattern_that_is_known_is_not_raised_again_within_a_day(
    door: Door, client: httpx.AsyncClient, person: Any, look: Any, shared_database: str, sql: Sql
) -> None:
    admin, someone = await person("admin"), await person()
    counts = []
    await forget_the_last_look(shared_database, sql)
    for hours in (0, 2, 25):
        moment = NOON + timedelta(hours=hours)
        await note(door, uses=uses(someone, 20, moment.isoformat()))
        await patterns(shared_database, sql, moment)
        found = (await look(kind="many_networks", key_id=someone.key_id))["data"]
        counts.append(len(found))
        if hours == 0:
            await client.post(f"{EVENTS}/{found[0]['id']}/acknowledge", headers=bearing(admin))
            acknowledged = "update tollgate.security_events set acknowledged_at = $2 where id = $1"
            await sql(shared_database, acknowledged, found[0]["id"], moment)
    assert counts == [1, 1, 2]


@pytest.mark.parametrize(
    "extra", [{"severity": "info"}, {"count": 0}, {"acknowledged_by": "usr_x"}, {"org_id": "org_x"}, {"role": "admin"}]
)
async def test_nothing_but_a_note_can_be_said(
    door: Door, client: httpx.AsyncClient, person: Any, look: Any, extra: dict[str, Any]
) -> None:
    admin, address = await person("admin"), an_address()
    await note(door, failures(address))
    (event,) = await of_address(look, address)
    url = f"{EVENTS}/{event['id']}/acknowledge"
    answer = await client.post(url, json={"note": "x", **extra}, headers=bearing(admin))
    assert answer.status_code == 400
    assert await of_address(look, address) == [event]


@pytest.mark.parametrize("body", [{"note": "x" * 1001}, {"note": "a\u0000b"}, {"note": 5}, ["note"]])
async def test_a_note_that_makes_no_sense_is_refused(client: httpx.AsyncClient, person: Any, body: Any) -> None:
    admin = await person("admin")
    answer = await client.post(f"{EVENTS}/sec_1/acknowledge", json=body, headers=bearing(admin))
    assert answer.status_code == 400


async def test_an_event_that_is_none_is_not_found(client: httpx.AsyncClient, person: Any) -> None:
    admin = await person("admin")
    for method, path in (("POST", f"{EVENTS}/sec_unknown/acknowledge"), ("GET", f"{EVENTS}/sec_unknown")):
        answer = await client.request(method, path, headers=bearing(admin))
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "security_event")


async def test_only_operators_see_and_acknowledge(client: httpx.AsyncClient, person: Any, look: Any) -> None:
    someone, without, admin = await person(), await person("admin", scopes=rules.MEMBER_SCOPES), await person("admin")
    (event,) = (await look(org_id=someone.org_id))["data"]
    assert (await client.get(f"{EVENTS}/{event['id']}", headers=bearing(admin))).json() == event
    for who in (someone, without):
        for path in (EVENTS, f"{EVENTS}/{event['id']}"):
            assert (await client.get(path, headers=bearing(who))).status_code == 403
        answer = await client.post(f"{EVENTS}/{event['id']}/acknowledge", headers=bearing(who))
        assert answer.status_code == 403
        assert answer.json()["error"]["scope"] == "admin"
    assert (await client.get(EVENTS)).status_code == 401
    assert (await look(org_id=someone.org_id))["data"] == [event]


@pytest.fixture
async def five(door: Door, person: Any, shared_database: str, sql: Sql) -> Person:
    """A person whose org has five events, each of which comes first in one sort order."""
    someone: Person = await person()
    await sql(shared_database, "delete from tollgate.security_events where org_id = $1", someone.org_id)
    kinds = ["ip_refused", "authentication_failed", "limit_exceeded"]
    times = [(5, "2026-01-03"), (9, "2026-01-01"), (1, "2026-01-02")]
    for kind, (count, day) in zip(kinds, times, strict=True):
        at = f"{day}T00:00:00Z"
        await note(door, failures("192.0.2.1", count, at, kind=kind, key_id=someone.key_id))
    for kind, subject in (("org_overdrawn", "org"), ("usage_quarantined", "org")):
        await sql(
            shared_database,
            "select tollgate.raise_event($1, $2, $3, $3, null, 7, '2025-01-01Z', '2026-01-02Z', '{}')",
            kind,
            subject,
            someone.org_id,
        )
    return someone


@pytest.mark.parametrize(
    ("sort", "field"),
    [
        ("last_seen_at", "last_seen_at"),
        ("first_seen_at", "first_seen_at"),
        ("count", "count"),
        ("severity", "severity"),
    ],
)
async def test_each_sort_goes_both_ways_and_by_pages(look: Any, five: Person, sort: str, field: str) -> None:
    grave = ["info", "warning", "critical"]
    for direction in ("desc", "asc"):
        query = {"org_id": five.org_id, "sort": f"{sort}:{direction}"}
        whole = await look(**query)
        assert whole["total"] == len(whole["data"]) == 5
        values = [grave.index(e["severity"]) if sort == "severity" else e[field] for e in whole["data"]]
        assert values == sorted(values, reverse=direction == "desc")
        pages, cursor = [], None
        while True:
            page = await look(**query, limit=2, **({"cursor": cursor} if cursor else {}))
            assert page["total"] == 5
            pages += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert pages == whole["data"]


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ({"kind": "ip_refused"}, {"ip_refused"}),
        ({"severity": "critical"}, {"usage_quarantined"}),
        ({"from": "2026-01-03T00:00:00Z"}, {"ip_refused"}),
        ({"to": "2026-01-01T00:00:00Z"}, {"org_overdrawn", "usage_quarantined"}),
        (
            {"from": "2026-01-01T12:00:00Z", "to": "2026-01-02T12:00:00Z"},
            {"org_overdrawn", "usage_quarantined", "limit_exceeded"},
        ),
        ({"acknowledged": True}, set()),
    ],
)  # fmt: skip
async def test_filters_narrow_the_list(look: Any, five: Person, query: dict[str, Any], kinds: set[str]) -> None:
    page = await look(org_id=five.org_id, **query)
    assert {event["kind"] for event in page["data"]} == kinds
    assert page["total"] == len(kinds)


async def test_another_org_s_events_are_not_among_one_s(look: Any, five: Person, person: Any) -> None:
    other = await person()
    assert {event["org_id"] for event in (await look(org_id=five.org_id))["data"]} == {five.org_id}
    assert {event["key_id"] for event in (await look(key_id=other.key_id))["data"]} == {other.key_id}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"kind": "gossip"}, "kind"),
        ({"severity": "dire"}, "severity"),
        ({"sort": "id"}, "sort"),
        ({"from": "yesterday"}, "from"),
        ({"acknowledged": "perhaps"}, "acknowledged"),
        ({"cursor": "sec_unknown"}, "cursor"),
        ({"org_id": "x" * 301}, "org_id"),
        ({"user_id": "usr_1"}, "user_id"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_by_name(
    client: httpx.AsyncClient, person: Any, query: dict[str, Any], param: str
) -> None:
    admin = await person("admin")
    answer = await client.get(EVENTS, params=query, headers=bearing(admin))
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("invalid_request", param)
