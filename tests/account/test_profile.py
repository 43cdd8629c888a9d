"""GET /user/balance, /user/profile, /user/plan and /user/limit, and PATCH /user/profile."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from completions.paid import HOLD, Watched, an_item
from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.core.money import credits_text
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.settings import read
from turns import within_a_minute

Row = dict[str, Any]


class Home:
    """A client of /user."""

    def __init__(self, http: httpx.AsyncClient, door: Watched, url: str, sql: Callable[..., Any]) -> None:
        self.http = http
        self.door = door
        self.url = url
        self.sql = sql

    async def see(self, someone: Person, what: str, **headers: str) -> httpx.Response:
        sent = {"authorization": f"Bearer {someone.secret}", **headers}
        return await self.http.get(f"/user/{what}", headers=sent)

    async def shown(self, someone: Person, what: str) -> Row:
        answer = await self.see(someone, what)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def change(self, someone: Person, body: Any, status: int = 200) -> Row:
        headers = {"authorization": f"Bearer {someone.secret}"}
        answer = await self.http.patch("/user/profile", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def row(self, someone: Person) -> Row:
        """All rows of the user, the org and the audit events about the user."""
        found = await self.sql(
            self.url,
            "select json_build_object('user', to_jsonb(u), 'org', to_jsonb(o), 'events',"
            " (select count(*) from tollgate.audit_events e where e.target_id = u.id and e.action = 'user.updated'))"
            " from tollgate.users u join tollgate.orgs o on o.id = u.org_id where u.id = $1",
            someone.user_id,
        )
        return dict(json.loads(found))

    async def set(self, someone: Person, statement: str, *arguments: object) -> None:
        await self.sql(self.url, statement, *arguments, someone.org_id)


@pytest.fixture
async def home(door: Door, shared_database: str, sql: Callable[..., Any]) -> AsyncIterator[Home]:
    watched = Watched(door)
    app = create_app(read({"KEY_PEPPER": PEPPER, "MARKUP": "0.05"}), door=watched)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as http:
        yield Home(http, watched, shared_database, sql)


async def grant(someone: Person, nanos: int, reference: str) -> None:
    operator = console(someone.door, "tests")
    await credits.grant(operator, someone.org_id, nanos, source="funding", reason="", reference=reference)


async def test_a_balance_costs_one_call_and_shows_no_key(home: Home, person: Any) -> None:
    someone = await person()
    await grant(someone, HOLD + 7, someone.org_id)
    await home.door.call("tollgate_admit", items=[an_item(someone)])
    home.door.calls.clear()
    answer = await home.see(someone, "balance")
    assert home.door.calls == ["balance"]
    assert someone.secret not in answer.text
    assert answer.json() == {
        "masked_key": f"{someone.secret[:12]}…{someone.secret[-4:]}",
        "credits": credits_text(HOLD + 7),
        "credits_nanos": HOLD + 7,
        "held_nanos": HOLD,
        "held_credits": credits_text(HOLD),
        "available_credits": "0.000000007",
        "available_nanos": 7,
        "org_id": someone.org_id,
        "user_id": someone.user_id,
        "plan": "free",
        "environment": "live",
        "status": "active",
    }


async def test_a_balance_that_is_the_same_is_not_sent_again(home: Home, person: Any) -> None:
    someone = await person()
    first = await home.see(someone, "balance")
    tag = first.headers["etag"]
    assert (await home.see(someone, "balance")).headers["etag"] == tag
    for known in (tag, f"W/{tag}", "*", f'"another", {tag}'):
        answer = await home.see(someone, "balance", **{"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    for unknown in ('"another"', "", tag.strip('"'), f"{tag[:-2]}x"):
        assert (await home.see(someone, "balance", **{"if-none-match": unknown})).status_code == 200
    assert "private" in first.headers["cache-control"]
    assert first.headers["vary"] == "authorization, x-api-key"


async def test_whatever_is_shown_changes_the_tag(home: Home, person: Any) -> None:
    someone, other = await person(), await person()
    tags = [(await home.see(other, "balance")).headers["etag"]]

    async def changed() -> None:
        tags.append((await home.see(someone, "balance", **{"if-none-match": tags[-1]})).headers["etag"])

    await changed()
    await grant(someone, HOLD, someone.org_id)
    await changed()
    await home.door.call("tollgate_admit", items=[an_item(someone)])
    await changed()
    await home.set(someone, "update tollgate.orgs set plan_id = 'pro' where id = $1")
    await changed()
    assert len(set(tags)) == len(tags)


async def test_a_tag_opens_nothing_without_a_key_of_its_own(home: Home, person: Any) -> None:
    someone, other = await person(), await person()
    tag = (await home.see(someone, "balance")).headers["etag"]
    assert (await home.see(other, "balance", **{"if-none-match": tag})).status_code == 200
    assert (await home.http.get("/user/balance", headers={"if-none-match": "*"})).status_code == 401


async def test_a_profile_says_who_the_key_is(home: Home, person: Any) -> None:
    someone = await person(scopes=["chat"])
    profile = await home.shown(someone, "profile")
    assert profile.pop("created_at") == profile.pop("updated_at")
    assert profile == {
        "user_id": someone.user_id,
        "name": "",
        "email": f"{someone.number}@example.com",
        "role": "member",
        "status": "active",
        "org_id": someone.org_id,
        "org_name": "Org",
        "plan": "free",
        "masked_key": f"{someone.secret[:12]}…{someone.secret[-4:]}",
        "environment": "live",
        "scopes": ["chat"],
    }


async def test_people_change_their_name_and_address(home: Home, person: Any) -> None:
    someone = await person()
    address = f"new-{someone.number}@example.com"
    changed = await home.change(someone, {"name": " Ada  L. ", "email": address})
    assert (changed["name"], changed["email"]) == ("Ada  L.", address)
    assert await home.shown(someone, "profile") == changed
    event = json.loads(
        await home.sql(
            home.url,
            "select to_jsonb(e) from tollgate.audit_events e where target_id = $1 and action = 'user.updated'",
            someone.user_id,
        )
    )
    assert (event["actor_key_id"], event["org_id"]) == (someone.key_id, someone.org_id)
    assert event["details"]["name"] == {"was": "", "is": "Ada  L."}
    assert event["details"]["email"]["is"] == address


async def test_what_is_so_already_changes_and_records_nothing(home: Home, person: Any) -> None:
    someone = await person()
    await home.change(someone, {"name": "Ada"})
    before = await home.row(someone)
    for same in ({"name": "Ada"}, {}, {"name": None}, {"email": f"{someone.number}@example.com"}):
        await home.change(someone, same)
    assert await home.row(someone) == before
    assert before["events"] == 1


async def test_nobody_makes_more_of_himself(home: Home, person: Any) -> None:
    """In another system users could choose their own credits when they registered."""
    someone, other = await person(), await person()
    before = await home.row(someone)
    for extra in (
        "role",
        "org_id",
        "status",
        "balance",
        "credits",
        "initial_credits",
        "is_admin",
        "cost",
        "plan",
        "id",
    ):
        error = (await home.change(someone, {"name": "Ada", extra: "admin"}, 400))["error"]
        assert error["param"] == extra
    await home.change(someone, {"user_id": other.user_id, "name": "Ada"}, 400)
    assert await home.row(someone) == before


async def test_an_address_that_is_none_or_another_s_is_refused(home: Home, person: Any) -> None:
    someone, other = await person(), await person()
    before = await home.row(someone)
    for email in ("", "a@", "@b", "a b@c", "a@b@c", "x" * 320 + "@b", "a\0@b", 7, ["a@b"]):
        assert (await home.change(someone, {"email": email}, 400))["error"]["param"] == "email"
    error = (await home.change(someone, {"email": f"{other.number}@EXAMPLE.com"}, 409))["error"]
    assert (error["code"], error["param"]) == ("conflict", "email")
    assert other.user_id not in str(error)
    for name in ("x" * 201, "a\0b", 7):
        assert (await home.change(someone, {"name": name}, 400))["error"]["param"] == "name"
    assert await home.row(someone) == before


@BOTH_DOORS
async def test_one_of_two_gets_an_address_both_want_at_once(home: Home, person: Any) -> None:
    people = [await person() for _ in range(3)]
    wanted = {"email": f"wanted-{people[0].number}@example.com"}

    async def want(someone: Person) -> int:
        headers = {"authorization": f"Bearer {someone.secret}"}
        return (await home.http.patch("/user/profile", json=wanted, headers=headers)).status_code

    assert sorted(await asyncio.gather(*(want(someone) for someone in people))) == [200, 409, 409]


async def test_a_key_that_only_calls_models_cannot_rename_its_owner(home: Home, person: Any) -> None:
    someone = await person(scopes=["chat", "usage"])
    error = (await home.change(someone, {"name": "Ada"}, 403))["error"]
    assert (error["code"], error["scope"]) == ("permission_denied", "keys")
    assert (await home.shown(someone, "profile"))["name"] == ""


async def test_a_plan_is_shown_with_the_limits_that_requests_meet(home: Home, person: Any) -> None:
    someone = await person()
    plan = await home.shown(someone, "plan")
    assert (plan["id"], plan["name"], plan["own_limits"]) == ("free", "Free", False)
    assert (plan["limits"]["requests_per_minute"], plan["limits"]["tokens_per_day"]) == (20, 2_000_000)
    assert "markup" not in str(plan), "it would tell what we paid"
    await home.set(
        someone,
        "update tollgate.orgs set plan_id = 'enterprise', markup_ppm = 125000,"
        " limits = row(7, null, null, null, null, null)::tollgate.limits where id = $1",
    )
    plan = await home.shown(someone, "plan")
    assert (plan["id"], plan["own_limits"]) == ("enterprise", True)
    assert plan["limits"] == dict.fromkeys(plan["limits"], None) | {"requests_per_minute": 7}


@within_a_minute
async def test_the_windows_show_what_is_used_and_what_remains(home: Home, person: Any) -> None:
    someone = await person()
    await grant(someone, 10**9, someone.org_id)
    for _ in range(2):
        item = an_item(someone)
        answers = await home.door.call("tollgate_admit", items=[item])
    granted = answers[item["id"]]["granted"]["limits"]
    windows = await home.shown(someone, "limit")
    assert windows["key"] is None
    for name, limit in (("minute", 20), ("hour", 200), ("day", 1000)):
        window = windows["org"]["requests"][name]
        assert (window["limit"], window["used"], window["remaining"]) == (limit, 2, limit - 2)
        assert window["resets_at"] > windows["at"]
    assert windows["org"]["requests"]["minute"]["remaining"] == granted["requests"]["remaining"]
    assert windows["org"]["tokens"]["minute"]["used"] == 220
    assert windows["org"]["tokens"]["minute"]["remaining"] == granted["tokens"]["remaining"]


async def test_the_limits_show_what_runs_at_once_of_the_org_and_of_a_key_with_a_bound(home: Home, person: Any) -> None:
    someone = await person()
    await grant(someone, 10**9, someone.org_id)
    await home.door.call("tollgate_admit", items=[an_item(someone) for _ in range(2)])
    limits = await home.shown(someone, "limit")
    assert limits["org"]["concurrent"] == {"limit": None, "in_flight": 2, "remaining": None}
    await home.set(someone, "update tollgate.orgs set max_concurrent_requests = 7 where id = $1")
    bounded = "update tollgate.api_keys set max_concurrent_requests = 3, open_requests = 2 where org_id = $1"
    await home.set(someone, bounded)
    limits = await home.shown(someone, "limit")
    assert limits["org"]["concurrent"] == {"limit": 7, "in_flight": 2, "remaining": 5}
    assert limits["key"]["concurrent"] == {"limit": 3, "in_flight": 2, "remaining": 1}
    assert (await home.shown(someone, "plan"))["max_concurrent_requests"] == 7


counts = st.integers(0, 10**9)
buckets = st.tuples(st.integers(-2, 1), counts, counts, counts, counts)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1_800_000_000_000, 1_900_000_000_000),
    st.tuples(buckets, buckets, buckets),
    st.tuples(*[st.one_of(st.none(), st.integers(0, 10**9))] * 6),
)
def test_the_windows_are_counted_as_admissions_count_them(
    shared_database: str, at_ms: int, counted: tuple[Any, ...], limits: tuple[int | None, ...]
) -> None:
    """Admission allows the smallest remainder of all windows."""
    spans = (60_000, 3_600_000, 86_400_000)
    counters = [
        number
        for (age, *numbers), span in zip(counted, spans, strict=True)
        for number in (at_ms // span + age, *numbers)
    ]

    async def ask() -> tuple[Any, Any]:
        connection = await asyncpg.connect(shared_database)
        found = await connection.fetchrow(
            "select tollgate.windows($1, l, $2) as windows, to_jsonb(tollgate.remaining($1, l, $2)) as remaining"
            " from (select row($3, $4, $5, $6, $7, $8)::tollgate.limits as l) l",
            counters,
            at_ms,
            *limits,
        )
        await connection.close()
        return json.loads(found["windows"]), json.loads(found["remaining"] or "{}")

    windows, remaining = asyncio.run(ask())
    for measure in ("requests", "tokens"):
        left = [window["remaining"] for window in windows[measure].values() if window["remaining"] is not None]
        assert (min(left) if left else None) == (None if not left else max(0, remaining[f"{measure}_left"]))
        for window in windows[measure].values():
            assert (window["resets_at"] is None) == (window["used"] == 0)


async def test_an_org_without_limits_and_a_key_with_some(home: Home, person: Any) -> None:
    someone = await person()
    await grant(someone, 10**9, someone.org_id)
    await home.set(someone, "update tollgate.orgs set plan_id = 'enterprise' where id = $1")
    await home.set(
        someone,
        "update tollgate.api_keys set limits = row(null, 3, null, null, null, 500)::tollgate.limits where org_id = $1",
    )
    idle = {"limit": None, "used": 0, "remaining": None, "resets_at": None}
    assert (await home.shown(someone, "limit"))["org"]["tokens"] == {"minute": idle, "hour": idle, "day": idle}
    await home.door.call("tollgate_admit", items=[an_item(someone)])
    windows = await home.shown(someone, "limit")
    used = windows["org"]["requests"]["minute"]
    assert (used["limit"], used["used"], used["remaining"]) == (None, 1, None)
    hour, day = windows["key"]["requests"]["hour"], windows["key"]["tokens"]["day"]
    assert (hour["limit"], hour["used"], hour["remaining"]) == (3, 1, 2)
    assert (day["limit"], day["used"], day["remaining"]) == (500, 110, 390)


@BOTH_DOORS
async def test_every_read_of_oneself_is_one_call(home: Home, person: Any) -> None:
    someone = await person()
    for what in ("balance", "profile", "plan", "limit"):
        home.door.calls.clear()
        assert (await home.see(someone, what)).status_code == 200
        assert len(home.door.calls) == 1
        assert (await home.http.get(f"/user/{what}")).status_code == 401
