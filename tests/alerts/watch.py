"""A database whose rules are evaluated at any time, and what became of it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tollgate.database import Door

Row = dict[str, Any]


class Watch:
    """Time passes only where a test says so. `observed` are the readings of this process."""

    def __init__(self, door: Door, connection: asyncpg.Connection) -> None:
        self.door = door
        self.sql = connection
        self.now = datetime.now(UTC)
        self.observed: dict[tuple[str, str], float] = {}

    async def round(self, seconds: float = 10, process: str = "p1") -> Row:
        self.now += timedelta(seconds=seconds)
        observed = [
            {"signal": signal, "subject": about, "value": value} for (signal, about), value in self.observed.items()
        ]
        found: Row = await self.door.call(
            "tollgate_alert_round", observed=observed, process=process, as_of=self.now.isoformat()
        )
        return found

    async def rows(self, query: str, *arguments: Any) -> list[Row]:
        found = await self.sql.fetchval(f"select coalesce(json_agg(to_jsonb(q)), '[]') from ({query}) q", *arguments)
        return list(json.loads(found))

    async def states(self, rule: str) -> dict[str, str]:
        """The state of the newest alert of a rule, by subject."""
        found = await self.rows("select subject, state from tollgate.alerts where rule_id = $1 order by id", rule)
        return {row["subject"]: row["state"] for row in found}

    async def told(self, event: str = "alerts.changed") -> list[Row]:
        """What deliveries tell, oldest first."""
        return await self.rows(
            "select channel_id, content from tollgate.deliveries where event = $1 order by created_at, id", event
        )

    async def listed(self) -> list[tuple[str, str, str]]:
        """Each alert that was told: rule, subject, state."""
        return [
            (alert["rule"], alert["subject"], alert["state"])
            for told in await self.told()
            for alert in told["content"]["data"]["alerts"]
        ]

    async def channel(self, name: str = "ops", org_id: str | None = None, **fields: Any) -> str:
        """A channel without a secret, for what is told rather than sent."""
        columns = {"id": f"chn_{name}", "kind": "webhook", "name": name, "address": "https://example.com/", **fields}
        columns["org_id"] = org_id
        await self.sql.execute(
            "insert into tollgate.channels select (jsonb_populate_record(null::tollgate.channels, $1::jsonb)).*",
            json.dumps({
                "settings": {}, "severity": "info", "state": "active", "failures": 0, "created_at": "2026-01-01",
                "updated_at": "2026-01-01", **columns,
            }),
        )  # fmt: skip
        return str(columns["id"])
