"""Asks a host to do something once, and waits for it: through its ingress first, else with its next sync. And wakes its
agent, so that it syncs now."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from tollgate.core.errors import HostSilent, HostTaskFailed
from tollgate.core.host_keys import HostKey
from tollgate.database import Door, Json
from tollgate.fleet import rules, store

PATIENCE_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 1.0
WAKE_SECONDS: Final = 1.0
"""How long an operator waits for an ingress that does not answer."""
LONGEST_REASON: Final = 1000


class Ingress(Protocol):
    async def ask(
        self, ingress_url: str, key: HostKey, task: Mapping[str, Any], seconds: float
    ) -> Mapping[str, Any] | None:
        """None where it did not say how the task ended."""

    async def wake(self, ingress_url: str, key: HostKey, seconds: float) -> None:
        """Never fails: an agent that does not hear it syncs by itself."""


class Tasks:
    def __init__(self, database: Door, ingress: Ingress) -> None:
        self._database = database
        self._ingress = ingress

    async def wake(self, changed: Mapping[str, Any]) -> None:
        """The agent of the host that a change concerns, as the database answered it. Before the response: a serverless
        instance may be frozen after it."""
        if waking := changed.get("waking"):
            key = HostKey(waking["host_id"], waking["key_generation"])
            await self._ingress.wake(waking["ingress_url"], key, WAKE_SECONDS)

    async def result(
        self,
        door: Door,
        kind: str,
        arguments: Mapping[str, Any],
        *,
        host_id: str | None = None,
        deployment_id: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> Json:
        """Raises HostTaskFailed with the reason of the host, and HostSilent."""
        until = asyncio.get_running_loop().time() + patience
        made = (await store.create_task(door, kind, dict(arguments), host_id=host_id, deployment_id=deployment_id))[
            "task"
        ]
        outcome = await self._through_ingress(made, patience / 2) or await self._by_sync(door, made["id"], until)
        if outcome["error"] is not None:
            raise HostTaskFailed(reason=outcome["error"][:LONGEST_REASON], host_id=made["host_id"])
        return outcome["result"]

    async def _through_ingress(self, made: Mapping[str, Any], seconds: float) -> Mapping[str, Any] | None:
        if made["ingress_url"] is None:
            return None
        key = HostKey(made["host_id"], made["key_generation"])
        asked = {name: made[name] for name in ("id", "kind", "arguments")}
        outcome = await self._ingress.ask(made["ingress_url"], key, asked, seconds)
        if outcome is None:
            return None
        stored: dict[str, Any] = rules.storable(dict(outcome))
        await store.end_task(self._database, key, made["id"], stored)
        return stored

    async def _by_sync(self, door: Door, task_id: str, until: float) -> Mapping[str, Any]:
        while asyncio.get_running_loop().time() < until:
            found = (await store.task(door, task_id))["task"]
            if found["state"] != "waiting":
                return {"result": found["result"], "error": found["error"]}
            await asyncio.sleep(PAUSE_SECONDS)
        raise HostSilent
