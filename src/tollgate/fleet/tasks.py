"""Asks a host to do something once, and waits for it: through its ingress first, else with its next sync."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tollgate.core.errors import HostSilent, HostTaskFailed
from tollgate.core.host_keys import HostKey
from tollgate.database import Door, Json
from tollgate.fleet import rules, store

PATIENCE_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 1.0
LONGEST_REASON: Final = 1000

Ask = Callable[[str, HostKey, Mapping[str, Any], float], Awaitable[Mapping[str, Any] | None]]
"""Asks an ingress: its URL, the key, the task, and how long to wait. None where it did not say how the task ended."""


class Tasks:
    def __init__(self, database: Door, ask: Ask) -> None:
        self._database = database
        self._ask = ask

    async def result(
        self,
        door: Door,
        kind: str,
        arguments: Mapping[str, Any],
        *,
        host_id: str | None = None,
        deployment_id: str | None = None,
    ) -> Json:
        """Raises HostTaskFailed with the reason of the host, and HostSilent."""
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        made = (await store.create_task(door, kind, dict(arguments), host_id=host_id, deployment_id=deployment_id))[
            "task"
        ]
        outcome = await self._through_ingress(made) or await self._by_sync(door, made["id"], until)
        if outcome["error"] is not None:
            raise HostTaskFailed(reason=outcome["error"][:LONGEST_REASON], host_id=made["host_id"])
        return outcome["result"]

    async def _through_ingress(self, made: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if made["ingress_url"] is None:
            return None
        key = HostKey(made["host_id"], made["key_generation"])
        asked = {name: made[name] for name in ("id", "kind", "arguments")}
        outcome = await self._ask(made["ingress_url"], key, asked, PATIENCE_SECONDS / 2)
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
