"""GET /healthz, /readyz and /health."""

from starlette.responses import Response

from tollgate import __version__
from tollgate.database import Door
from tollgate.health import checks, rules
from tollgate.health.schemas import Alive, Health, Readiness
from tollgate.process import clock
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import Http
from tollgate.settings import Settings
from tollgate.web.routing import Routes


def router(settings: Settings, door: Door, http: Http, monotonic: Monotonic) -> Routes:
    routes = Routes(tags=["health"])
    database = checks.SharedCheck(lambda: checks.database(door), monotonic)
    openrouter = checks.SharedCheck(lambda: checks.openrouter(settings, http), monotonic)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    redis = checks.SharedCheck(lambda: checks.redis_server(redis_url), monotonic) if redis_url else None

    @routes.get("/healthz", summary="Check that the process is alive")
    async def healthz() -> Alive:
        return Alive()

    @routes.get("/readyz", summary="Check that it can serve requests", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        parts: dict[str, str] = {"database": (await database.result()).state}
        if redis is not None:
            parts["redis"] = await redis.result()
        failing = rules.failing(parts)
        response.status_code = 503 if failing else 200
        return Readiness(status="not_ready" if failing else "ready", failing=failing, parts=parts)

    @routes.get(
        "/health", summary="Get the state of the database and of the upstreams", responses={503: {"model": Health}}
    )
    async def health(response: Response) -> Health:
        found = await database.result()
        upstream = await openrouter.result()
        verdict = rules.verdict(found.state, upstream)
        response.status_code = 503 if verdict == "unhealthy" else 200
        return Health(
            status=verdict,
            database=found.state,
            openrouter=upstream,
            upstreams=found.upstreams,
            user_count=found.user_count if settings.health_user_count else None,
            timestamp=clock.now(),
            version=__version__,
        )

    return routes
