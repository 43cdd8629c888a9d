"""What operators and owners may ask, through both doors."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin.api_client import ApiClient, admin_api, unique
from alerts.receivers import Receiver, receiver
from gateway import ONE_DOOR
from tollgate.alerts import rules

pytestmark = pytest.mark.anyio

ALERTS, HOOKS = "/admin/alerts", "/user/webhooks"
PUBLIC = "https://1.1.1.1/hook"
"""Where nothing is sent in these tests."""


@pytest.fixture
async def api(door: Any, sandbox: Any, person: Any) -> AsyncIterator[ApiClient]:
    async with admin_api(door, sandbox, await person("admin"), VAULT_KEY="ab" * 32) as made:
        yield made


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def test_rules_are_created_changed_reset_and_deleted(api: ApiClient) -> None:
    name = unique("rule")
    body = {"id": name, "signal": "books_faults", "comparison": "at_least", "threshold": 5, "subjects": ["nobody"]}
    made = await api.ask("POST", f"{ALERTS}/rules", 201, json=body)
    assert (made["severity"], made["built_in"], made["clear_threshold"]) == ("warning", False, None)
    assert (await api.refused("POST", f"{ALERTS}/rules", 409, json=body))["reason"] == "exists"
    unknown = await api.refused("POST", f"{ALERTS}/rules", 400, json={**body, "signal": "weather"})
    assert unknown["param"] == "signal"
    changed = await api.ask("PATCH", f"{ALERTS}/rules/{name}", json={"threshold": 7.5, "clear_threshold": 2})
    assert (changed["threshold"], changed["clear_threshold"], changed["subjects"]) == (7.5, 2, ["nobody"])
    found = await api.ask("GET", f"{ALERTS}/rules/{name}")
    assert (found["title"], found["at_start"], found["advice"], found["readings"]["count"]) == (name, None, None, 0)
    wrong = await api.refused("PATCH", f"{ALERTS}/rules/{name}", 400, json={"clear_threshold": 8})
    assert wrong["param"] == "clear_threshold"
    await api.refused("POST", f"{ALERTS}/rules/{name}/reset", 404)
    assert await api.ask("DELETE", f"{ALERTS}/rules/{name}") == {"id": name, "deleted": True}
    assert [action for action, _ in await api.events(name)] == [
        "alert_rule.created", "alert_rule.changed", "alert_rule.deleted"
    ]  # fmt: skip
    await api.ask("DELETE", f"{ALERTS}/rules/latency")
    back = await api.ask("POST", f"{ALERTS}/rules/latency/reset")
    assert (back["built_in"], back["threshold"]) == (True, 120_000)
    listed = await api.pages(f"{ALERTS}/rules", severity="critical", limit=5)
    by_id = {rule["id"]: rule for page in listed for rule in page}
    assert by_id["books"]["title"] == "The books do not agree"
    connections = by_id["database_connections"]["readings"]
    assert (connections["count"], connections["subject"], connections["value"] > 0) == (1, "installation", True)
    assert by_id["database_connections"]["at_start"]["threshold"] == 85


@ONE_DOOR
async def test_an_alert_is_listed_with_its_history_and_acknowledged(
    api: ApiClient, shared_database: str, sql: Any
) -> None:
    name = unique("rule")
    body = {"id": name, "signal": "books_faults", "comparison": "at_least", "threshold": 5, "subjects": ["nobody"]}
    await api.ask("POST", f"{ALERTS}/rules", 201, json=body)
    made = await sql(
        shared_database,
        "insert into tollgate.alerts (rule_id, subject, severity, state, value, pending_at, firing_at) "
        "values ($1, 'nobody', 'warning', 'resolved', 9, now(), now()) returning id",
        name,
    )
    listed = await api.ask("GET", ALERTS, params={"rule_id": name, "acknowledged": "false"})
    (shown,) = listed["data"]
    assert (shown["id"], shown["title"], shown["subject_name"]) == (made, name, None)
    assert (shown["signal"], shown["threshold"], shown["silenced"]) == ("books_faults", 5, False)
    await api.ask("POST", f"{ALERTS}/{made}/acknowledge", json={"note": "mine"})
    again = await api.ask("POST", f"{ALERTS}/{made}/acknowledge", json={"note": "no, mine"})
    assert (again["note"], again["acknowledged_by"]) == ("mine", api.someone.user_id)
    assert (again["rule"]["id"], again["history"], again["silenced"]) == (name, [], False)
    assert (await api.ask("GET", ALERTS, params={"rule_id": name, "acknowledged": "false"}))["total"] == 0
    await api.refused("GET", f"{ALERTS}/alt_nothing", 404)
    await api.ask("DELETE", f"{ALERTS}/rules/{name}")


async def test_silences_are_planned_and_ended(api: ApiClient) -> None:
    body = {
        "reason": "moved",
        "rules": ["latency"],
        "starts_at": "2100-01-01T00:00:00Z",
        "ends_at": "2100-01-02T00:00:00Z",
    }
    made = await api.ask("POST", f"{ALERTS}/silences", 201, json=body)
    assert (made["state"], made["created_by"]) == ("planned", api.someone.user_id)
    wrong = await api.refused("POST", f"{ALERTS}/silences", 400, json={**body, "ends_at": "2099-01-01T00:00:00Z"})
    assert wrong["param"] == "ends_at"
    planned = await api.ask("GET", f"{ALERTS}/silences", params={"state": "planned"})
    assert made["id"] in [silence["id"] for silence in planned["data"]]
    await api.ask("DELETE", f"{ALERTS}/silences/{made['id']}")
    assert [action for action, _ in await api.events(made["id"])] == ["silence.created", "silence.deleted"]


async def test_a_channel_is_created_once_tested_and_its_secret_shown_once(api: ApiClient, hook: Receiver) -> None:
    path, once = f"{ALERTS}/channels", {"authorization": f"Bearer {api.someone.secret}", "idempotency-key": unique("k")}
    body = {"name": "on-call", "kind": "webhook", "url": hook.url}
    made, again = [(await api.http.post(path, json=body, headers=once)).json() for _ in range(2)]
    assert (again["id"], again["secret"], made["last_four"]) == (made["id"], None, made["secret"][-4:])
    found = await api.ask("GET", f"{path}/{made['id']}")
    assert made["secret"] not in json.dumps(found)
    assert "secret" not in found
    told = await api.ask("POST", f"{path}/{made['id']}/test")
    assert (told["state"], told["attempts"][0]["status"]) == ("sent", 200)
    (got,) = hook.received
    signed = rules.signature(made["secret"], told["id"], int(got.headers["webhook-timestamp"]), got.body)
    assert got.headers["webhook-signature"] == signed
    listed = await api.ask("GET", f"{ALERTS}/deliveries", params={"channel_id": made["id"]})
    assert [delivery["id"] for delivery in listed["data"]] == [told["id"]]
    assert (await api.ask("POST", f"{ALERTS}/deliveries/{told['id']}/resend"))["state"] == "waiting"
    moved = await api.ask("PATCH", f"{path}/{made['id']}", json={"url": hook.url + "/2", "severity": "critical"})
    assert moved["secret"] not in (None, made["secret"])  # the old one never reaches another receiver
    await api.ask("POST", f"{path}/{made['id']}/test")
    assert len(hook.received) == 3
    await api.ask("DELETE", f"{path}/{made['id']}")
    await api.refused("GET", f"{path}/{made['id']}", 404)
    actions = [action for action, _ in await api.events(made["id"])]
    assert actions == ["channel.created", "channel.tested", "channel.changed", "channel.tested", "channel.deleted"]


TEN_TESTS = """insert into tollgate.deliveries (channel_id, event, content, state)
select $1, 'channel.test', '{}', 'sent' from generate_series(1, 10) returning id"""
A_MINUTE_AGO = "update tollgate.deliveries set created_at = created_at - interval '1 minute' where channel_id = $1"


@ONE_DOOR
async def test_the_channels_of_one_owner_together_are_tested_ten_times_a_minute(
    api: ApiClient, hook: Receiver, person: Any, shared_database: str, sql: Any
) -> None:
    path, body = f"{ALERTS}/channels", {"name": "on-call", "kind": "webhook", "url": hook.url}
    tested, second = [await api.ask("POST", path, 201, json=body) for _ in range(2)]
    owner = api.of(await person())
    other = await owner.ask("POST", HOOKS, 201, json={"name": "x", "url": PUBLIC})
    await sql(shared_database, TEN_TESTS, other["id"])
    assert (await api.ask("POST", f"{path}/{second['id']}/test"))["state"] == "sent"
    await sql(shared_database, TEN_TESTS, tested["id"])
    for one in (tested, second):
        refused = await api.http.post(
            f"{path}/{one['id']}/test", headers={"authorization": f"Bearer {api.someone.secret}"}
        )
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["limit"]) == (429, "too_many_tests", 10)
        assert 1 <= error["retry_after_seconds"] <= 60
        assert refused.headers["retry-after"] == str(error["retry_after_seconds"])
    await owner.refused("POST", f"{HOOKS}/{other['id']}/test", 429)
    await sql(shared_database, A_MINUTE_AGO, tested["id"])
    await api.ask("POST", f"{path}/{tested['id']}/test")
    for one in (tested, second):
        await api.ask("DELETE", f"{path}/{one['id']}")
    await owner.ask("DELETE", f"{HOOKS}/{other['id']}")


MAIL = {"host": "mail.example.com", "sender": "a@example.com", "recipients": ["b@example.com"]}
REFUSED = [
    ({"kind": "webhook"}, "url"),
    ({"kind": "webhook", "url": PUBLIC, "secret": "whsec_short"}, "secret"),
    ({"kind": "webhook", "url": "http://169.254.169.254/latest"}, "url"),
    ({"kind": "webhook", "url": "http://bo9]6HN"}, "url"),
    ({"kind": "slack", "url": "https://a:99999/x"}, "url"),
    ({"kind": "email", "mail": MAIL | {"host": "["}}, "mail"),
    ({"kind": "webhook", "url": PUBLIC, "mail": MAIL}, "mail"),
    ({"kind": "slack", "url": PUBLIC, "secret": "a-secret-of-slack"}, "secret"),
    ({"kind": "pagerduty"}, "secret"),
    ({"kind": "email"}, "mail"),
    ({"kind": "email", "mail": {**MAIL, "username": "me"}}, "secret"),
    ({"kind": "email", "mail": {**MAIL, "username": "me", "tls": "none"}, "secret": "password"}, "mail"),
]


@ONE_DOOR
async def test_a_channel_that_cannot_work_is_refused(api: ApiClient) -> None:
    for body, param in REFUSED:
        refused = await api.refused("POST", f"{ALERTS}/channels", 400, json={"name": "x", **body})
        assert refused["param"] == param, body


async def test_owners_have_webhooks_of_their_own_events_alone(api: ApiClient, person: Any) -> None:
    mine, theirs = api.of(await person()), api.of(await person())
    made = [await one.ask("POST", HOOKS, 201, json={"name": "x", "url": PUBLIC}) for one in (mine, theirs)]
    refused = await mine.refused("POST", HOOKS, 400, json={"name": "x", "url": "http://127.0.0.1/hook"})
    assert refused["param"] == "url"  # also where operators may
    key = await mine.ask("POST", "/user/api-keys", 201, json={"name": "new"})
    told = await mine.ask("GET", f"{HOOKS}/deliveries")
    assert [(one["event"], one["content"]["data"]["key_id"]) for one in told["data"]] == [("key.created", key["id"])]
    assert (await theirs.ask("GET", f"{HOOKS}/deliveries"))["data"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test")):
        await theirs.refused(method, f"{HOOKS}/{made[0]['id']}{path}", 404)
    delivery = f"{HOOKS}/deliveries/{told['data'][0]['id']}"
    assert await mine.ask("GET", delivery) == told["data"][0]
    await theirs.refused("GET", delivery, 404)
    await theirs.refused("POST", f"{delivery}/resend", 404)
    await api.refused("GET", f"{ALERTS}/channels/{made[0]['id']}", 404)
    await mine.refused("GET", ALERTS, 403)
    changed = await mine.ask("PATCH", f"{HOOKS}/{made[0]['id']}", json={"events": ["balance.low"]})
    assert (changed["events"], changed["secret"]) == (["balance.low"], None)
    await mine.ask("POST", "/user/api-keys", 201, json={"name": "another"})
    assert len((await mine.ask("GET", f"{HOOKS}/deliveries"))["data"]) == 1
    for one, row in zip((mine, theirs), made, strict=True):
        await one.ask("DELETE", f"{HOOKS}/{row['id']}")
