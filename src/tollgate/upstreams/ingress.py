"""Asks the ingress of a host for something that should not wait for the agent's next sync, or for that sync itself."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from tollgate.core.host_keys import HostKey
from tollgate.core.models import Upstream
from tollgate.process.http_client import USER_AGENT
from tollgate.upstreams import key_variables
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.upstreams.rules import TransportFailed
from tollgate.upstreams.transports import Answer, Transport

CONNECT_SECONDS: Final = 2.0
MOST_ANSWER_BYTES: Final = 512 * 1024
TASKS_PATH: Final = "/agent/tasks"
WAKE_PATH: Final = "/agent/wake"
OK: Final = 200

Outcome = Mapping[str, Any]


class Ingress:
    """The guard that stands before every call of an upstream stands here too."""

    def __init__(self, transport: Transport, guard: Guard, secrets: Mapping[str, str]) -> None:
        self._transport = transport
        self._guard = guard
        self._secrets = secrets

    async def ask(self, ingress_url: str, key: HostKey, task: Mapping[str, Any], seconds: float) -> Outcome | None:
        """How the task ended: `status`, `result` and `error`. None where the ingress could not be asked, or did not
        say: then the agent gets the task with its next sync."""
        return await self._post(ingress_url, TASKS_PATH, key, task, seconds)

    async def wake(self, ingress_url: str, key: HostKey, seconds: float) -> None:
        """Has the agent sync now. Where that fails, its next sync comes within ten seconds."""
        await self._post(ingress_url, WAKE_PATH, key, {}, seconds)

    async def _post(
        self, ingress_url: str, path: str, key: HostKey, body: Mapping[str, Any], seconds: float
    ) -> Outcome | None:
        upstream = Upstream(key.host_id, "openai", ingress_url, host_key=key)
        secret = key_variables.key_of(upstream, self._secrets)
        if secret is None:
            return None
        try:
            self._guard.check(ingress_url)
            async with asyncio.timeout(seconds):
                return await self._outcome(ingress_url + path, secret, json.dumps(body).encode())
        except (TimeoutError, Forbidden, TransportFailed, OSError, ValueError, RecursionError):
            return None

    async def _outcome(self, url: str, secret: str, body: bytes) -> Outcome | None:
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
            "user-agent": USER_AGENT,
        }
        answer = await self._transport.send(
            "POST", url, headers, body, connect_seconds=CONNECT_SECONDS, resolve=self._guard.addresses
        )
        try:
            return _read(answer.status, json.loads(await _bounded(answer)))
        finally:
            await answer.close()


def _read(status: int, said: Any) -> Outcome | None:
    if status == OK:
        return {"status": "done", "result": said, "error": None}
    match said:
        case {"error": {"code": "task_failed", "message": str(message)}}:
            return {"status": "failed", "result": None, "error": message}
    return None


async def _bounded(answer: Answer) -> bytes:
    body = bytearray()
    while piece := await answer.piece():
        body += piece
        if len(body) > MOST_ANSWER_BYTES:
            raise ValueError("The answer is too large.")
    return bytes(body)
