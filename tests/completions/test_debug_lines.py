"""LOG_LEVEL=debug says what was decided, tried and batched, and no secret and no prompt."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from completions.paid import Client, app
from gateway import ONE_DOOR, Upstream
from people import Person
from sandbox.serving import a_chat
from tollgate.completions.debug_lines import DebugDoor
from tollgate.core.errors import DatabaseUnavailable, TollgateError
from tollgate.database import Door, Json
from tollgate.process import logs

SECRETS = ("Bearer", "nobody may read this", "digests", "sk-or-v1")


@ONE_DOOR
async def test_a_call_s_decisions_attempts_and_batches_are_written(
    door: Door,
    sandbox: Upstream,
    customer: Callable[..., Awaitable[Person]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    someone, poor = await customer(), await customer(nanos=0)
    body = a_chat("nobody may read this")
    async with app(door, sandbox, LOG_LEVEL="debug") as made:
        clients = [Client(someone, body), Client(poor, body)]
        await asyncio.gather(*(client.call(made) for client in clients))
    text = capsys.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]
    assert not [secret for secret in (*SECRETS, someone.secret, someone.key["digest"]) if secret in text]

    def told(event: str) -> list[dict[str, Any]]:
        return [line for line in lines if line["event"] == event]

    decided = {line["decision"]: line for line in told("admission_decided")}
    assert decided["refusal"]["error_code"] == "insufficient_credits"
    granted = decided["granted"]
    assert "hold_nanos" in granted["granted"]
    assert granted["asked"]["endpoint"] == "chat"
    (ended,) = told("settlement_decided")
    assert ended["paid_request_id"] == granted["paid_request_id"]
    assert ended["ended"]["outcome"] == "settled"
    assert {(line["source"], line["function"]) for line in told("database_call")} >= {
        ("database", "tollgate_admit"),
        ("database", "tollgate_settle"),
    }
    assert sum(line["items"] for line in told("database_call") if line["function"] == "tollgate_admit") == 2
    assert all("org_id" not in line for line in told("database_call") if "items" in line), "a batch is of many orgs"


class Answering:
    """A door that answers, or fails."""

    def __init__(self, answer: Any = None, error: TollgateError | None = None) -> None:
        self._answer, self._error = answer, error

    async def call(self, function: str, **arguments: Json) -> Json:
        if self._error:
            raise self._error
        return self._answer

    async def close(self) -> None:
        """Nothing is open."""


async def test_each_attempt_and_each_failure_of_the_database_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", [])
    attempt = {"upstream": "ups_1", "model": "m", "outcome": "failed", "status": 502, "why": "HTTP 502"}
    item = {"id": "req_1", "outcome": "settled", "attempts": [attempt], "content": {"prompt": "nobody may read this"}}
    await DebugDoor(Answering({"req_1": {"settled": {}}}), lambda: 0.0).call("tollgate_settle", items=[item])
    with pytest.raises(DatabaseUnavailable):
        await DebugDoor(Answering(error=DatabaseUnavailable()), lambda: 0.0).call("tollgate_health")
    text = capsys.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]
    assert "nobody may read this" not in text
    (tried,) = [line for line in lines if line["event"] == "attempt_ended"]
    assert (tried["source"], tried["paid_request_id"], tried["why"]) == ("upstream", "req_1", "HTTP 502")
    failed = lines[-1]
    assert (failed["source"], failed["event"]) == ("database", "database_call")
    assert (failed["function"], failed["error_code"]) == ("tollgate_health", "database_unavailable")
