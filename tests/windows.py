"""What tests of the request windows share: their spans, and the functions of the database over one connection."""

import asyncio
import json
from typing import Any

import asyncpg
from hypothesis import HealthCheck, settings

SPANS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
START = 1_800_000_000_000

Counters = tuple[int, ...]

at_ease = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Windows:
    """The windows of one subject, over one connection; records what was admitted."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = self.loop.run_until_complete(asyncpg.connect(url))

    def close(self) -> None:
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()

    def ask(self, sql: str, *arguments: object) -> Any:
        return self.loop.run_until_complete(self.connection.fetchval(sql, *arguments))

    def exceeded(self, counters: Counters | None, most: tuple[int | None, ...], at: int, tokens: int) -> Any:
        sql = "select tollgate.limit_exceeded($1, row($2,$3,$4,$5,$6,$7)::tollgate.limits, $8, $9)"
        answer = self.ask(sql, counters, *most, at, tokens)
        return None if answer is None else json.loads(answer)

    def remaining(self, counters: Counters | None, most: tuple[int | None, ...], at: int) -> list[int | None]:
        """Limit, left and reset of requests, then of tokens."""
        sql = "select tollgate.remaining($1, row($2,$3,$4,$5,$6,$7)::tollgate.limits, $8)"
        found = self.ask(sql, counters, *most, at)
        return [None] * 6 if found is None else list(found.values())

    def take(self, counters: Counters | None, at: int, tokens: int) -> Counters:
        taken: Counters = self.ask("select tollgate.take($1, $2, 1, $3)", counters, at, tokens)
        return taken
