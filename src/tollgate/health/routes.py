"""What probes ask: /healthz (alive), /readyz (can serve), /health (how it is)."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from tollgate import __version__
from tollgate.database import Door
from tollgate.health import checks, rules
from tollgate.process import clock
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import Http
from tollgate.settings import Settings
from tollgate.web.routing import Routes


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    failing: list[str] = Field(description="The parts that keep it from serving.")
    parts: dict[str, str] = Field(description="Each part it needs, and its state.")


class Health(BaseModel):
    status: rules.Verdict
    database: checks.DatabaseState = Field(description="`behind`: it needs `make migrate`.")
    openrouter: checks.OpenRouterState
    user_count: int | None = Field(description="Null when hidden by HEALTH_USER_COUNT or unknown.")
    timestamp: datetime
    version: str


def router(settings: Settings, door: Door, http: Http, monotonic: Monotonic) -> Routes:
    routes = Routes(tags=["health"])
    database = checks.Shared(lambda: checks.database(door), monotonic)
    openrouter = checks.Shared(lambda: checks.openrouter(settings, http), monotonic)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    redis = checks.Shared(lambda: checks.redis_server(redis_url), monotonic) if redis_url else None

    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz() -> Alive:
        return Alive()

    @routes.get("/readyz", summary="Can it serve?", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        parts: dict[str, str] = {"database": (await database.finding())[0]}
        if redis is not None:
            parts["redis"] = await redis.finding()
        failing = rules.failing(parts)
        response.status_code = 503 if failing else 200
        return Readiness(status="not_ready" if failing else "ready", failing=failing, parts=parts)

    @routes.get("/health", summary="How is it?", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        state, user_count = await database.finding()
        upstream = await openrouter.finding()
        verdict = rules.verdict(state, upstream)
        response.status_code = 503 if verdict == "unhealthy" else 200
        return Health(
            status=verdict,
            database=state,
            openrouter=upstream,
            user_count=user_count if settings.health_user_count else None,
            timestamp=clock.now(),
            version=__version__,
        )

    return routes
