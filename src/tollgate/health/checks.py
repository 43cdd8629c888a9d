"""The checks behind the health pages. Each has a timeout, and its result is shared for five seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.database.schema_version import NEEDED
from tollgate.health import redis, store
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import Http, NoAnswer
from tollgate.settings import Settings

log = logs.source("upstream")

FRESH_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0

DatabaseState = Literal["connected", "behind", "unavailable"]
OpenRouterState = Literal["connected", "error", "unavailable", "sandbox", "not_configured"]
RedisState = Literal["connected", "unavailable"]


class Found(NamedTuple):
    """What the database says."""

    state: DatabaseState
    user_count: int | None = None
    upstreams: Mapping[str, int] | None = None
    """Our own, by their last health check; None if unknown."""


Result = TypeVar("Result")


class SharedCheck(Generic[Result]):
    """Runs the check once for all callers within five seconds."""

    def __init__(self, check: Callable[[], Awaitable[Result]], clock: Monotonic) -> None:
        self._check = check
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._result: tuple[float, Result] | None = None

    async def result(self) -> Result:
        async with self._one_at_a_time:
            if self._result is None or self._clock() - self._result[0] >= FRESH_SECONDS:
                self._result = (self._clock(), await self._check())
            return self._result[1]


async def database(door: Door) -> Found:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            found = await store.health(door)
    except (TollgateError, TimeoutError):
        return Found("unavailable")
    state: DatabaseState = "connected" if found["schema_version"] >= NEEDED else "behind"
    return Found(state, found["user_count"], found.get("upstreams"))


async def openrouter(settings: Settings, http: Http) -> OpenRouterState:
    if settings.on_sandbox:
        return "sandbox"
    if settings.openrouter_api_key is None:
        return "not_configured" if settings.production else "sandbox"
    headers = {"authorization": f"Bearer {settings.openrouter_api_key.get_secret_value()}"}
    try:
        answer = await http.ask("GET", f"{settings.openrouter_base_url}/key", TIMEOUT_SECONDS, headers=headers)
    except NoAnswer as error:
        log.warning("openrouter_unavailable", cause=str(error))
        return "unavailable"
    return "connected" if answer.is_success else "error"


async def redis_server(url: str) -> RedisState:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await redis.ping(url)
    except (OSError, TimeoutError, ValueError, redis.RedisRefused):
        return "unavailable"
    return "connected"
