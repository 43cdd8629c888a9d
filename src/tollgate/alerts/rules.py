"""What is sent over a channel, and when it is sent again. Pure: time, chance and secrets are arguments."""

import base64
import binascii
import hashlib
import hmac
import html
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from tollgate.alerts.signals import RULES
from tollgate.core.redaction import Redactor

ChannelKind = Literal["webhook", "slack", "pagerduty", "email"]
NEEDED: Final[Mapping[ChannelKind, str]] = {
    "webhook": "url",
    "slack": "url",
    "pagerduty": "secret",
    "email": "mail",
}
"""The field that a new channel of a kind must have."""
NOT_TAKEN: Final[Mapping[ChannelKind, Mapping[str, str]]] = {
    "webhook": {"mail": "is not for webhook"},
    "slack": {"mail": "is not for slack", "secret": "is not for slack: its URL is the secret"},
    "pagerduty": {"mail": "is not for pagerduty"},
    "email": {"url": "is not for email; send mail"},
}
"""The fields that are for other kinds, and what the refusal says of each."""
Event = Literal[
    "balance.low", "key.budget_near", "key.budget_reached", "key.created", "key.expiring", "key.revoked", "key.rotated"
]
"""What owners are told."""
TEST_EVENT: Final = "channel.test"

PAUSES: Final = (15, 60, 300, 1800, 7200, 21_600, 43_200)
"""Seconds before each further attempt: eight attempts in a day."""
JITTER: Final = 0.2
WEBHOOK_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
LEAST_SECRET_BYTES: Final = 24
PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"
MOST_ANSWER: Final = 300
GONE: Final = 410
_redact: Final = Redactor(())


class Outgoing(NamedTuple):
    """An HTTP request."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def mint_secret(randomness: bytes) -> str:
    return WEBHOOK_PREFIX + base64.b64encode(randomness).decode()


def is_secret(text: str) -> bool:
    """Whether a text is a secret of a webhook: whsec_ and at least 24 bytes in base64."""
    try:
        key = base64.b64decode(text.removeprefix(WEBHOOK_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(WEBHOOK_PREFIX) and len(key) >= LEAST_SECRET_BYTES


def signature(secret: str, delivery_id: str, timestamp: int, body: bytes) -> str:
    """As Standard Webhooks says: v1, and HMAC-SHA256 of id, time and body, in base64."""
    key = base64.b64decode(secret.removeprefix(WEBHOOK_PREFIX))
    signed = hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def again_seconds(tries: int, chance: float, status: int | None) -> int | None:
    """The pause after a failed attempt; None after the last. A receiver that is gone (410) is not asked again."""
    if status == GONE or tries > len(PAUSES):
        return None
    return round(PAUSES[tries - 1] * (1 + JITTER * (2 * chance - 1)))


def webhook(url: str, secret: str, delivery: Mapping[str, Any], timestamp: int) -> Outgoing:
    body = json.dumps(delivery["content"], separators=(",", ":"), ensure_ascii=False).encode()
    headers = {
        "webhook-id": delivery["id"],
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, delivery["id"], timestamp, body),
    }
    return Outgoing(url, headers, body)


def slack(secret_url: str, content: Mapping[str, Any]) -> Outgoing:
    text = "\n".join([f"*{headline(content)}*", *lines(content)])
    return Outgoing(secret_url, {}, json.dumps({"text": html.escape(text, quote=False)}).encode())


def pagerduty(url: str, routing_key: str, delivery: Mapping[str, Any]) -> Outgoing:
    """One event opens or resolves one alert, by its id. A test is resolved at once where it is sent."""
    content = delivery["content"]
    alert = next(iter(content["data"].get("alerts", ())), None)
    resolved = alert is None or alert["state"] == "resolved"
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if resolved else "trigger",
        "dedup_key": alert["id"] if alert else delivery["id"],
    }
    if alert and not resolved:
        event["payload"] = {
            "summary": line(alert)[:1024],
            "source": alert["subject"],
            "severity": alert["severity"],
            "timestamp": alert["firing_at"],
            "class": alert["rule"],
            "custom_details": alert,
        }
    return Outgoing(url, {}, json.dumps(event).encode())


def headline(content: Mapping[str, Any]) -> str:
    """The subject of an email, the first line elsewhere."""
    data = content["data"]
    if "alerts" not in data:
        return f"Tollgate: {content['type']}"
    counts = [f"{data[state]} {state}" for state in ("firing", "resolved") if data[state]]
    return f"Tollgate: {', '.join(counts)}"


def lines(content: Mapping[str, Any]) -> list[str]:
    data = content["data"]
    if "alerts" not in data:
        return [f"{name}: {value}" for name, value in data.items()]
    listed = [line(alert) for alert in data["alerts"]]
    left_out = data["firing"] + data["resolved"] - len(listed)
    return [*listed, *([f"and {left_out} more: GET /admin/alerts"] if left_out else [])]


def line(alert: Mapping[str, Any]) -> str:
    rule = RULES.get(alert["rule"])
    told = rule.title if rule else alert["rule"]
    bound = f"{'at least' if alert['comparison'] == 'at_least' else 'below'} {alert['threshold']}"
    return (
        f"{alert['state'].upper()} {alert['severity']}: {told} – {alert['subject']}, "
        f"{alert['signal']} is {alert['value']} (rule {alert['rule']}: {bound})"
    )


def answer_kept(body: bytes) -> str:
    """The beginning of what a receiver answered, as one line without secrets."""
    text = " ".join(body.decode("utf-8", "replace").split())
    return _redact(text)[:MOST_ANSWER]


def attempt(
    at: str, took_ms: int, *, status: int | None = None, error: str | None = None, answer: str = ""
) -> dict[str, Any]:
    return {"at": at, "took_ms": took_ms, "status": status, "error": error, "answer": answer or None}
