"""/user/api-keys over HTTP."""

import asyncio
import io
import itertools
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from journeys.walk import whole_document
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import console
from tollgate.process import logs
from tollgate.settings import read

PATH = "/user/api-keys"


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(read({"KEY_PEPPER": PEPPER, "LOG_LEVEL": "debug"}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as made:
        yield made


def bearing(secret: Person | str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret.secret if isinstance(secret, Person) else secret}"}


async def create(client: httpx.AsyncClient, someone: Person, **body: Any) -> dict[str, Any]:
    answer = await client.post(PATH, json={"name": "Second", **body}, headers=bearing(someone))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def listed(client: httpx.AsyncClient, someone: Person, **query: Any) -> list[dict[str, Any]]:
    """The entries of all pages."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.get(PATH, params=query, headers=bearing(someone))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


async def test_a_made_key_is_shown_once_and_works_as_said(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    answer = await client.post(PATH, json={"name": " Laptop ", "scopes": ["usage", "keys"]}, headers=bearing(someone))
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert rules.is_whole(made["key"])
    assert (made["name"], made["scopes"], made["user_id"], made["status"]) == (
        "Laptop",
        ["usage", "keys"],
        someone.user_id,
        "active",
    )
    shown = (await client.get(f"{PATH}/{made['id']}", headers=bearing(made["key"]))).json()
    assert shown["masked_key"] == f"{made['key'][:12]}…{made['key'][-4:]}"
    assert {name: value for name, value in shown.items() if name != "last_used_at"} == {
        name: value for name, value in made.items() if name not in ("key", "last_used_at")
    }


async def test_a_key_is_live_or_test_as_asked(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    assert (await create(client, someone))["key"].startswith("tg_live_")
    made = await create(client, someone, environment="test")
    assert made["key"].startswith("tg_test_")
    balance = (await client.get("/user/balance", headers=bearing(made["key"]))).json()
    assert balance["environment"] == "test"


async def test_a_budget_is_said_in_credits_or_nanos(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    made = await create(client, someone, budget_credits=0.000000001, budget_reset="monthly")
    assert (made["budget_nanos"], made["budget_credits"], made["budget_spent_nanos"]) == (1, "0.000000001", 0)
    assert made["budget_resets_at"].endswith("-01T00:00:00.000Z")
    path = f"{PATH}/{made['id']}"
    changed = (await client.patch(path, json={"budget_credits": 0.3}, headers=bearing(someone))).json()
    assert changed["budget_nanos"] == 300_000_000
    both = {"budget_credits": 1, "budget_nanos": 1}
    refusal(await client.patch(path, json=both, headers=bearing(someone)), 400, "invalid_request")
    cleared = (await client.patch(path, json={"budget_credits": None}, headers=bearing(someone))).json()
    assert [cleared[name] for name in cleared if name.startswith("budget")] == [None] * 6


async def test_networks_are_normalised_or_refused_with_a_sentence(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    made = await create(client, someone, ip_allowlist=["192.0.2.7", "2001:DB8::/32", "192.0.2.7/32", "0.0.0.0/0"])
    assert made["ip_allowlist"] == ["192.0.2.7/32", "2001:db8::/32", "0.0.0.0/0"]
    for wrong in ("10.0.0.5/8", "2001:db8::1/32"):
        body = {"name": "x", "ip_allowlist": [wrong]}
        error = refusal(await client.post(PATH, json=body, headers=bearing(someone)), 400, "invalid_request")
        assert error["param"] == "ip_allowlist.0"
        assert "host bits set" in error["message"]
        assert wrong not in str(error)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "nul\x00"}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["everything"]}, "scopes.0"),
        ({"name": "x", "environment": "staging"}, "environment"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
        ({"name": "x", "expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "budget_credits": -1}, "budget_credits"),
        ({"name": "x", "budget_credits": 1e-10}, "budget_credits"),
        ({"name": "x", "budget_credits": "NaN"}, "budget_credits"),
        ({"name": "x", "budget_reset": "daily"}, "budget_reset"),
        ({"name": "x", "tokens_in_all": 1.5}, "tokens_in_all"),
        ({"name": "x", "limits": {"requests_per_second": 1}}, "limits.requests_per_second"),
        ({"name": "x", "allowed_models": []}, "allowed_models"),
        ({"name": "x", "metadata": {"a": {"b": 1}}}, "metadata.a"),
        ({"name": "x", "metadata": {"a": "\x00"}}, "metadata.a"),
        ({"name": "x", "role": "admin"}, "scopes"),
        ({"name": "x", "role": "owner"}, "role"),
        ({"name": "x", "role": "member", "scopes": ["chat"]}, "body"),
        ({"name": "x", "label": "y"}, "body"),
        ({"name": "x", "user_id": "usr_other"}, "user_id"),
        ({"name": "x", "org_id": "org_other"}, "org_id"),
        ({"name": "x", "balance": 5}, "balance"),
        ({"name": "x", "is_admin": True}, "is_admin"),
        ({"name": "x", "cost": 0}, "cost"),
        ({"name": "x", "budget_spent_nanos": -9}, "budget_spent_nanos"),
        ({"name": "x", "digest": "00"}, "digest"),
    ],
)
async def test_what_makes_no_sense_or_is_not_the_client_s_to_say_makes_no_key(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any, body: dict[str, Any], param: str
) -> None:
    someone = await person()
    error = refusal(await client.post(PATH, json=body, headers=bearing(someone)), 400, "invalid_request")
    assert f"{error['param']}.".startswith(f"{param}.")
    count = "select count(*) from tollgate.api_keys where user_id = $1"
    assert await sql(shared_database, count, someone.user_id) == 1


async def test_numbers_that_json_does_not_have_are_refused(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    headers = bearing(someone) | {"content-type": "application/json"}
    for number in ("1e400", "NaN", "-Infinity"):
        body = f'{{"name": "x", "metadata": {{"a": {number}}}}}'
        refusal(await client.post(PATH, content=body, headers=headers), 400, "invalid_request")


@pytest.mark.parametrize("field", ["balance", "is_admin", "org_id", "cost", "user_id", "environment", "status"])
async def test_a_change_of_what_is_not_the_client_s_changes_nothing(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any, field: str
) -> None:
    someone = await person()
    row = "select to_jsonb(k) - 'last_used_at' from tollgate.api_keys k where id = $1"
    before = await sql(shared_database, row, someone.key_id)
    body = {"name": "New", field: "admin"}
    answer = await client.patch(f"{PATH}/{someone.key_id}", json=body, headers=bearing(someone))
    assert refusal(answer, 400, "invalid_request")["param"] == field
    assert await sql(shared_database, row, someone.key_id) == before
    role = await sql(shared_database, "select role from tollgate.users where id = $1", someone.user_id)
    assert role == "member"


async def test_a_change_touches_the_key_that_is_named_and_no_other(client: httpx.AsyncClient, person: Any) -> None:
    """An older system disabled the caller's own key whichever was named."""
    someone = await person()
    second = await create(client, someone)
    path = f"{PATH}/{second['id']}"
    await client.patch(path, json={"name": "Renamed", "tokens_in_all": 5}, headers=bearing(someone))
    assert (await client.post(f"{path}/disable", headers=bearing(someone))).json()["status"] == "disabled"
    own = (await client.get(f"{PATH}/{someone.key_id}", headers=bearing(someone))).json()
    assert (own["name"], own["status"], own["tokens_in_all"]) == ("Of the tests", "active", None)
    refusal(await client.get("/user/balance", headers=bearing(second["key"])), 401, "key_disabled")
    assert (await client.post(f"{path}/enable", headers=bearing(someone))).json()["status"] == "active"
    assert (await client.get("/user/balance", headers=bearing(second["key"]))).status_code == 200


async def test_a_revoked_key_is_ended_for_good_and_its_history_stays(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    second = await create(client, someone)
    path = f"{PATH}/{second['id']}"
    for _ in range(2):
        gone = await client.delete(path, headers=bearing(someone))
        assert (gone.status_code, gone.json()["status"]) == (200, "revoked")
    refusal(await client.get("/user/balance", headers=bearing(second["key"])), 401, "key_revoked")
    for work in (
        client.patch(path, json={"name": "x"}, headers=bearing(someone)),
        client.post(f"{path}/rotate", headers=bearing(someone)),
        client.post(f"{path}/enable", headers=bearing(someone)),
    ):
        refusal(await work, 409, "key_is_final")
    events = (await client.get(f"{PATH}/audit-logs", params={"key_id": second["id"]}, headers=bearing(someone))).json()
    assert [event["action"] for event in events["data"]] == ["key.revoked", "key.created"]


async def test_a_key_may_end_itself(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    assert (await client.delete(f"{PATH}/{someone.key_id}", headers=bearing(someone))).json()["status"] == "revoked"
    refusal(await client.get(PATH, headers=bearing(someone)), 401, "key_revoked")


async def test_the_last_of_all_keys_is_ended_like_any(client: httpx.AsyncClient, person: Any) -> None:
    """An older system kept a deleted primary key working."""
    someone = await person()
    second = await create(client, someone, scopes=["keys"])
    await client.delete(f"{PATH}/{someone.key_id}", headers=bearing(second["key"]))
    refusal(await client.get("/user/balance", headers=bearing(someone)), 401, "key_revoked")


async def test_rotation_changes_the_secret_and_the_old_one_ends_as_chosen(
    client: httpx.AsyncClient, person: Any
) -> None:
    """An older system said that it had rotated, and had not; another returned keys that all failed."""
    someone = await person()
    answer = await client.post(f"{PATH}/{someone.key_id}/rotate", json={"grace_hours": 1}, headers=bearing(someone))
    new = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert new["key"] != someone.secret
    assert rules.is_whole(new["key"])
    for secret in (someone.secret, new["key"]):
        assert (await client.get("/user/balance", headers=bearing(secret))).status_code == 200
    second = await client.post(f"{PATH}/{new['id']}/rotate", headers=bearing(new["key"]))
    assert second.status_code == 201
    refusal(await client.get("/user/balance", headers=bearing(new["key"])), 401, "key_expired")
    assert (await client.get("/user/balance", headers=bearing(second.json()["key"]))).status_code == 200


@pytest.mark.parametrize(
    "body", [{"grace_hours": 169}, {"grace_hours": -1}, {"grace_hours": "long"}, {"role": "admin"}]
)
async def test_a_rotation_that_makes_no_sense_rotates_nothing(
    client: httpx.AsyncClient, person: Any, body: dict[str, Any]
) -> None:
    someone = await person()
    path = f"{PATH}/{someone.key_id}"
    refusal(await client.post(f"{path}/rotate", json=body, headers=bearing(someone)), 400, "invalid_request")
    assert (await client.get(path, headers=bearing(someone))).json()["rotated_to"] is None


async def test_an_expired_key_is_refused_not_failed_over(client: httpx.AsyncClient, person: Any) -> None:
    """Older systems let expired keys in, or failed on each request of a key that had an expiry."""
    someone = await person()
    later = await create(client, someone, expires_at="2999-01-01T02:00:00+02:00")
    assert later["expires_at"] == "2999-01-01T00:00:00.000Z"
    assert (await client.get("/user/balance", headers=bearing(later["key"]))).status_code == 200
    expired = await person(expires_at="2020-01-01T00:00:00Z")
    refusal(await client.get("/user/balance", headers=bearing(expired)), 401, "key_expired")


async def test_a_refused_address_is_not_told_the_allowlist(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    second = await create(client, someone, ip_allowlist=["198.51.100.0/24"])
    answer = await client.get("/user/balance", headers=bearing(second["key"]))
    refusal(answer, 403, "ip_not_allowed")
    assert "198.51.100" not in answer.text


async def test_another_s_key_and_one_that_never_was_are_the_same(client: httpx.AsyncClient, person: Any) -> None:
    one, other = await person(), await person()
    headers = bearing(one)
    answers = []
    for key_id in (other.key_id, "key_0000000000000000000000000000", "nothing"):
        path = f"{PATH}/{key_id}"
        for method, url, body in (
            ("GET", path, None),
            ("PATCH", path, {"name": "Mine"}),
            ("DELETE", path, None),
            ("POST", f"{path}/rotate", {"grace_hours": 0}),
            ("POST", f"{path}/disable", None),
            ("POST", f"{path}/enable", None),
        ):
            answer = await client.request(method, url, json=body, headers=headers)
            error = refusal(answer, 404, "not_found")
            assert error.pop("id") == key_id
            answers.append((method, url.removeprefix(path), json.dumps(error).replace(key_id, "<id>")))
    assert len(set(answers)) == 6
    shown = (await client.get(f"{PATH}/{other.key_id}", headers=bearing(other))).json()
    assert (shown["name"], shown["status"]) == ("Of the tests", "active")


async def test_the_list_is_one_s_own_page_by_page_in_any_order(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any
) -> None:
    someone, other = await person(), await person()
    await sql(shared_database, "update tollgate.users set org_id = $1 where id = $2", someone.org_id, other.user_id)
    for name in ("beta", "Alpha", "beta", "gamma"):
        await create(client, someone, name=name)
    used = "update tollgate.api_keys set last_used_at = now() - interval '1 h' where id = $1"
    everything = await listed(client, someone)
    assert {key["user_id"] for key in everything} == {someone.user_id}
    assert len(everything) == 5
    await sql(shared_database, used, everything[1]["id"])
    for sort in ("created_at", "last_used_at", "name"):
        upwards = [key["id"] for key in await listed(client, someone, sort=f"{sort}:asc")]
        assert upwards == [key["id"] for key in await listed(client, someone, sort=f"{sort}:asc", limit=2)]
        downwards = [key["id"] for key in await listed(client, someone, sort=f"{sort}:desc", limit=1)]
        assert downwards == upwards[::-1]
    names = [key["name"] for key in await listed(client, someone, sort="name:asc")]
    assert names == ["Alpha", "beta", "beta", "gamma", "Of the tests"]
    created = [key["created_at"] for key in everything]
    assert created == sorted(created, reverse=True)
    total = (await client.get(PATH, params={"limit": 1}, headers=bearing(someone))).json()["total"]
    assert total == 5


async def test_a_key_that_is_used_between_two_pages_does_not_turn_the_list_back(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any
) -> None:
    someone = await person()
    for _ in range(3):
        await create(client, someone)
    for sort in ("last_used_at:asc", "last_used_at:desc"):
        await sql(
            shared_database,
            "update tollgate.api_keys set last_used_at = created_at - interval '1 h' where user_id = $1",
            someone.user_id,
        )
        seen: list[str] = []
        cursor: dict[str, str] = {}
        for _ in range(4):
            asked = {"sort": sort, "limit": 1, **cursor}
            found = await store.keys(someone.at_the_door(), asked, 1)
            seen += [key["id"] for key in found["data"]]
            cursor = {"cursor": found["next_cursor"]} if found["next_cursor"] else {}
            if not cursor:
                break
            touched = "update tollgate.api_keys set last_used_at = now() where id = $1"
            await sql(shared_database, touched, seen[-1])
        others = [key_id for key_id in seen if key_id != someone.key_id]  # whose own use is noted meanwhile
        assert len(set(others)) == len(others) == 3


async def test_filters_narrow_the_list(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    test = await create(client, someone, name="50%_off", environment="test")
    ended = await create(client, someone, name="Ended")
    await client.delete(f"{PATH}/{ended['id']}", headers=bearing(someone))
    off = await create(client, someone, name="Off")
    await client.post(f"{PATH}/{off['id']}/disable", headers=bearing(someone))
    rotated = await create(client, someone, name="Turned")
    await client.post(f"{PATH}/{rotated['id']}/rotate", headers=bearing(someone))

    async def names(**query: Any) -> list[str]:
        return [key["name"] for key in await listed(client, someone, sort="name:asc", **query)]

    assert await names(status="active") == ["50%_off", "Of the tests", "Turned"]
    assert await names(status="revoked") == ["Ended"]
    assert await names(status="disabled") == ["Off"]
    assert await names(status="expired") == ["Turned"]
    assert await names(environment="test") == ["50%_off"]
    assert await names(q="OF THE") == ["Of the tests"]
    assert await names(q="%_") == ["50%_off"]
    assert await names(q=test["key"][:12]) == ["50%_off"]
    assert await names(q="nothing of the kind") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"sort": "digest"}, "sort"),
        ({"status": "gone"}, "status"),
        ({"environment": "staging"}, "environment"),
        ({"cursor": "key_unknown"}, "cursor"),
        ({"q": "\x00"}, "q"),
        ({"org_id": "org_other"}, "org_id"),
        ({"user_id": "usr_other"}, "user_id"),
        ({"role": "admin"}, "role"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_by_name(
    client: httpx.AsyncClient, person: Any, query: dict[str, Any], param: str
) -> None:
    someone = await person()
    error = refusal(await client.get(PATH, params=query, headers=bearing(someone)), 400, "invalid_request")
    assert error["param"] == param


async def test_another_s_key_is_no_cursor(client: httpx.AsyncClient, person: Any) -> None:
    one, other = await person(), await person()
    answer = await client.get(PATH, params={"cursor": other.key_id}, headers=bearing(one))
    assert refusal(answer, 400, "invalid_request")["param"] == "cursor"


async def test_every_change_is_one_event_with_what_changed_and_a_repetition_none(
    client: httpx.AsyncClient, person: Any
) -> None:
    someone = await person()
    made = await create(client, someone, metadata={"who": "Jane Doe"})
    path = f"{PATH}/{made['id']}"
    for body in (
        {"name": "Renamed", "tokens_in_all": 5},
        {"name": "Renamed", "tokens_in_all": 5},
        {},
        {"metadata": {"who": "John Doe"}},
    ):
        assert (await client.patch(path, json=body, headers=bearing(someone))).status_code == 200
    answer = await client.get(f"{PATH}/audit-logs", params={"key_id": made["id"]}, headers=bearing(someone))
    metadata, change, creation = answer.json()["data"]
    assert [metadata["action"], change["action"], creation["action"]] == ["key.updated", "key.updated", "key.created"]
    assert change["details"] == {"name": {"was": "Second", "is": "Renamed"}, "tokens_in_all": {"was": None, "is": 5}}
    assert change["actor"] == {"kind": "key", "key_id": someone.key_id, "user_id": someone.user_id}
    assert creation["details"]["user_id"] == someone.user_id
    assert "Doe" not in answer.text


async def test_the_events_are_of_the_org_s_keys_alone_page_by_page(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any
) -> None:
    someone, colleague, stranger, admin = await person(), await person(), await person(), await person("admin")
    moved = "update tollgate.users set org_id = $1 where id = $2"
    await sql(shared_database, moved, someone.org_id, colleague.user_id)
    made = await create(client, colleague)
    await create(client, stranger)
    await store.set_key_state(admin.at_the_door(), made["id"], "disabled", "admin")

    async def events(**query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = await client.get(f"{PATH}/audit-logs", params=query, headers=bearing(someone))
            assert answer.status_code == 200, answer.text
            found += answer.json()["data"]
            query["cursor"] = answer.json()["next_cursor"]
            if query["cursor"] is None:
                return found

    everything = await events()
    assert [(event["action"], event["key_id"]) for event in everything] == [
        ("key.disabled", made["id"]),
        ("key.created", made["id"]),
        ("key.created", someone.key_id),
    ]
    assert await events(limit=1) == everything
    assert (everything[0]["ip"], everything[0]["user_agent"]) == (None, None)  # an operator's
    assert everything[1]["ip"] is not None
    since = everything[1]["occurred_at"]
    for query, places in (
        ({"action": "key.created"}, [1, 2]),
        ({"outcome": "refused"}, []),
        ({"key_id": made["id"]}, [0, 1]),
        ({"key_id": stranger.key_id}, []),
        ({"from": since}, [0, 1]),
        ({"to": since}, [2]),
        ({"from": "2000-01-01T00:00:00+02:00", "to": "2999-01-01T00:00:00Z"}, [0, 1, 2]),
    ):
        assert await events(**query) == [everything[place] for place in places], query


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 1001}, "limit"),
        ({"from": "yesterday"}, "from"),
        ({"to": "0001-01-01T00:00:00+14:00"}, "to"),
        ({"outcome": "maybe"}, "outcome"),
        ({"cursor": "evt_unknown"}, "cursor"),
        ({"org_id": "org_other"}, "org_id"),
    ],
)
async def test_events_are_not_asked_for_in_ways_that_make_no_sense(
    client: httpx.AsyncClient, person: Any, query: dict[str, Any], param: str
) -> None:
    someone = await person()
    answer = await client.get(f"{PATH}/audit-logs", params=query, headers=bearing(someone))
    assert refusal(answer, 400, "invalid_request")["param"] == param


async def test_no_secret_is_in_any_log_line_answer_audit_row_or_error(
    client: httpx.AsyncClient, person: Any, shared_database: str, sql: Any
) -> None:
    someone = await person()
    log = io.StringIO()
    logs.configure("debug", [], log)
    made = await create(client, someone, name="Watched")
    path = f"{PATH}/{made['id']}"
    rotated = (await client.post(f"{path}/rotate", json={"grace_hours": 9}, headers=bearing(someone))).json()
    headers = bearing(someone)
    answers = [
        await client.get(PATH, headers=headers),
        await client.get(path, headers=headers),
        await client.get(f"{PATH}/audit-logs", headers=headers),
        await client.patch(path, json={"name": "x"}, headers=headers),
        await client.patch(path, json={"ip_allowlist": [made["key"]]}, headers=headers),
        await client.patch(path, json={"scopes": [made["key"]]}, headers=headers),
        await client.post(f"{path}/rotate", headers=headers),
        await client.get(PATH, headers=bearing(made["key"] + "x")),
        await client.delete(path, headers=headers),
    ]
    rows = await sql(
        shared_database,
        """
        select jsonb_agg(to_jsonb(k))::text || (
          select jsonb_agg(to_jsonb(e))::text from tollgate.audit_events e where e.org_id = $1
        ) from tollgate.api_keys k where k.org_id = $1
        """,
        someone.org_id,
    )
    printed = log.getvalue()
    assert "/user/api-keys" in printed  # there are log lines to look at
    for secret in (someone.secret, made["key"], rotated["key"]):
        for place in (rows, printed, *(answer.text for answer in answers)):
            assert secret not in place
        for place in (printed, *(answer.text for answer in answers)):
            assert rules.digest(secret, PEPPER) not in place
    assert not re.search(r"tg_(live|test)_\w{20}", rows)


async def test_keys_made_at_once_are_all_different(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    made = await asyncio.gather(*(create(client, someone) for _ in range(8)))
    assert len({key["key"] for key in made}) == len({key["id"] for key in made}) == 8


async def test_a_key_s_use_shows_in_its_budget(client: httpx.AsyncClient, customer: Any, door: Door) -> None:
    someone = await customer()
    by = console(door, "tests")
    await store.change_key(by, someone.key_id, {"budget_nanos": 10**9})
    shown = (await client.get(f"{PATH}/{someone.key_id}", headers=bearing(someone))).json()
    assert (shown["budget_spent_nanos"], shown["tokens_used_in_all"], shown["budget_reset"]) == (0, 0, "never")
    assert shown["budget_resets_at"] is None


def test_every_path_says_how_stable_it_is_and_what_it_refuses() -> None:
    document = whole_document()["paths"]
    methods = itertools.chain.from_iterable(
        path.values() for name, path in document.items() if name.startswith(PATH) and not name.endswith("/usage")
    )
    for method in methods:
        assert method["x-stability"] == "stable"
        assert {"400", "401", "403", "503"} <= set(method["responses"])
