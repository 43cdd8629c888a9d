"""The alerts of the pictures: rules that fire by real readings, channels of all kinds, silences and deliveries."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx

from pictured import Names
from tollgate.alerts import store
from tollgate.database import Door

OBSERVED = [
    {"signal": "breaker_open", "subject": "openrouter", "value": 1},
    {"signal": "database_answer_ms", "subject": "installation", "value": 6120},
    {"signal": "openrouter_credit_nanos", "subject": "installation", "value": 48_200_000_000},
]
MAIL = {"host": "smtp.example.com", "sender": "tollgate@example.com", "recipients": ["ops@example.com"]}
ANSWERED = {"took_ms": 132, "status": 200, "error": None, "answer": "ok"}
REFUSED = {"took_ms": 87, "status": 503, "error": "HTTP 503", "answer": "upstream connect error <b>or</b> reset 🦊"}
ENDED = """
update tollgate.deliveries d
set state = $2, tries = $3, attempts = $4, ended_at = now(), due_at = now() + interval '1 day'
from tollgate.channels c where c.id = d.channel_id and c.name = $1"""
FAILING = """update tollgate.channels set failures = 8, failed_at = now(), last_error = 'HTTP 503' where name = $1"""
EARLIER = """
update tollgate.alert_scan set scanned_at = scanned_at - interval '1 minute', slow_at = slow_at - interval '1 hour'
"""
LONG_AGO = """
update tollgate.alerts set pending_at = pending_at - interval '3 hours', firing_at = firing_at - interval '2 hours'
where state = 'firing'
"""


def _channels(names: Names) -> list[dict[str, Any]]:
    chat = "https://hooks.chat.example.com/services/T0/B0/secret"
    return [
        {"name": "On-call", "kind": "webhook", "url": "https://on-call.example.com/alerts", "severity": "critical"},
        {"name": "#tollgate in the chat", "kind": "slack", "url": chat},
        {
            "name": "Pager",
            "kind": "pagerduty",
            "secret": "routing-key-of-the-pictures",
            "rules": ["books", "upstream_down"],
        },
        {"name": names.orgs[3], "kind": "email", "mail": MAIL},
        {"name": names.orgs[2], "kind": "webhook", "url": "https://example.com/" + "x" * 60, "state": "disabled"},
    ]


async def fill(url: str, door: Door, http: httpx.AsyncClient, owner: httpx.AsyncClient, names: Names) -> None:
    channels = _channels(names)
    for channel in channels:
        (await http.post("/admin/alerts/channels", json=channel)).raise_for_status()
    hook = {"name": "billing", "url": "https://billing.example.com/tollgate", "events": ["balance.low", "key.expiring"]}
    for webhook in (hook, {"name": names.orgs[2], "url": "https://example.com/" + "x" * 60}):
        (await owner.post("/user/webhooks", json=webhook)).raise_for_status()
    (await owner.post("/user/api-keys", json={"name": "Of the pictures"})).raise_for_status()
    await http.patch("/admin/alerts/rules/database_slow", json={"for_seconds": 3600, "threshold": 4000})
    for rule in ("upstream_down", "breaker_open"):
        await http.patch(f"/admin/alerts/rules/{rule}", json={"for_seconds": 0})
    await http.patch("/admin/alerts/rules/first_token", json={"state": "disabled"})
    await _silences(http, names.orgs[2])
    connection = await asyncpg.connect(url)
    for _ in range(2):
        await connection.execute(EARLIER)
        await store.evaluate(door, OBSERVED, "pictures")
    await connection.execute(LONG_AGO)
    now = datetime.now(UTC).isoformat()
    for name, state, answers in (
        (channels[0]["name"], "sent", [ANSWERED]),
        (channels[1]["name"], "failed", [REFUSED] * 8),
        (channels[2]["name"], "sent", [REFUSED, ANSWERED]),
        ("billing", "sent", [ANSWERED]),
        (names.orgs[2], "failed", [REFUSED]),
    ):
        attempts = json.dumps([{"at": now, **answer} for answer in answers])
        await connection.execute(ENDED, name, state, len(answers), attempts)
    await connection.execute(FAILING, channels[1]["name"])
    await connection.close()
    found = (await http.get("/admin/alerts", params={"state": "firing"})).json()["data"]
    await http.post(f"/admin/alerts/{found[0]['id']}/acknowledge", json={"note": "The disk of the rack is replaced."})


async def _silences(http: httpx.AsyncClient, known: str) -> None:
    now = datetime.now(UTC)
    for reason, starts, hours, matched in (
        ("The rack in Frankfurt is moved.", now + timedelta(days=2), 4, {"rules": ["upstream_down", "host_silent"]}),
        (f"Known: {known}", now, 24, {"rules": ["breaker_open"], "subjects": ["openrouter"]}),
    ):
        times = {"starts_at": starts.isoformat(), "ends_at": (starts + timedelta(hours=hours)).isoformat()}
        (await http.post("/admin/alerts/silences", json={"reason": reason, **times, **matched})).raise_for_status()
