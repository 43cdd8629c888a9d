"""What the health pages look at. Each look is bounded, and shared for a while, so a storm of probes costs nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, TypeVar

from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.database.schema_version import NEEDED
from tollgate.health import redis, store
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import Http
from tollgate.settings import Settings

log = logs.source("upstream")

FRESH_SECONDS = 5.0
LOOK_SECONDS = 2.0

DatabaseState = Literal["connected", "behind", "unavailable"]
OpenRouterState = Literal["connected", "error", "unavailable", "sandbox", "not_configured"]
RedisState = Literal["connected", "unavailable"]

Finding = TypeVar("Finding")


class Shared(Generic[Finding]):
    """One look for all who ask within five seconds."""

    def __init__(self, look: Callable[[], Awaitable[Finding]], clock: Monotonic) -> None:
        self._look = look
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._finding: tuple[float, Finding] | None = None

    async def finding(self) -> Finding:
        async with self._one_at_a_time:
            if self._finding is None or self._clock() - self._finding[0] >= FRESH_SECONDS:
                self._finding = (self._clock(), await self._look())
            return self._finding[1]


async def database(door: Door) -> tuple[DatabaseState, int | None]:
    """Its state, and how many users it has."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            found = await store.health(door)
    except (TollgateError, TimeoutError):
        return "unavailable", None
    return "connected" if found["schema_version"] >= NEEDED else "behind", found["user_count"]


async def openrouter(settings: Settings, http: Http) -> OpenRouterState:
    if settings.on_sandbox:
        return "sandbox"
    if settings.openrouter_api_key is None:
        return "not_configured" if settings.production else "sandbox"
    import httpx

    headers = {"authorization": f"Bearer {settings.openrouter_api_key.get_secret_value()}"}
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            answer = await http.client().get(f"{settings.openrouter_base_url}/key", headers=headers)
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        log.warning("openrouter_unavailable", cause=type(error).__name__)
        return "unavailable"
    return "connected" if answer.is_success else "error"


async def redis_server(url: str) -> RedisState:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await redis.ping(url)
    except (OSError, TimeoutError, ValueError, redis.RedisRefused):
        return "unavailable"
    return "connected"
