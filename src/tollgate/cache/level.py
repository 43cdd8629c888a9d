"""Redis in front of Postgres: it only saves reading the bodies of answers there.

Postgres decides whether there is a hit, and of which request, so an answer that Redis still has after it was cleared is
never sent. Whatever fails here is a miss; then Redis is left alone for some seconds.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeVar

from tollgate.process import logs
from tollgate.process.clock import Monotonic

log = logs.source("application")

ANSWER_SECONDS: Final = 0.2
"""The most that one call may take, with the connection."""
REST_SECONDS: Final = 5.0
"""After a failure, Redis is not called for so long."""
MOST_CONNECTIONS: Final = 16

Answer = Mapping[str, Any]
State = Literal["working", "resting"]
Result = TypeVar("Result")


class Kept(NamedTuple):
    """An answer, and the request that it was given to."""

    request_id: str
    answer: Answer


class RedisLevel:
    def __init__(self, url: str, clock: Monotonic) -> None:
        """redis-py is imported by the first call, so that a cold start without Redis does not pay for it."""
        self._url = url
        self._clock = clock
        self._client: Any = None
        self._rests_until = 0.0

    @property
    def state(self) -> State:
        return "resting" if self._clock() < self._rests_until else "working"

    async def get(self, org_id: str, key: str) -> Kept | None:
        found = await self._tried(lambda redis: redis.get(_name(org_id, key)))
        if found is None:
            return None
        try:
            read = json.loads(found)
            return Kept(str(read["request_id"]), dict(read["answer"]))
        except (ValueError, KeyError, TypeError):
            return None

    async def put(self, org_id: str, key: str, kept: Kept, ttl_seconds: int) -> bool:
        written = json.dumps(kept._asdict(), separators=(",", ":"))
        return bool(await self._tried(lambda redis: redis.set(_name(org_id, key), written, ex=max(1, ttl_seconds))))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _tried(self, ask: Callable[[Any], Awaitable[Result]]) -> Result | None:
        if self.state == "resting":
            return None
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await ask(self._opened())
        except (RedisError, OSError, TimeoutError) as error:
            self._rests_until = self._clock() + REST_SECONDS
            log.warning("redis_unavailable", cause=type(error).__name__)
            return None

    def _opened(self) -> Any:
        """A call is repeated once, since Redis may have restarted since the connection was used last."""
        if self._client is None:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            pool = BlockingConnectionPool.from_url(
                self._url, max_connections=MOST_CONNECTIONS, timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 1)
            )
            self._client = Redis.from_pool(pool)
        return self._client


def _name(org_id: str, key: str) -> str:
    return f"tollgate:cache:{org_id}:{key}"
