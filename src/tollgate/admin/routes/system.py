"""GET /admin/system/database."""

from typing import Annotated

from fastapi import Depends

from tollgate.admin.schemas.system import DatabaseStatistics
from tollgate.database import Door
from tollgate.health import store as health
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/system")

    @routes.get(
        "/database",
        summary="Get the statistics of Postgres",
        responses=refusals(),
        openapi_extra={"x-stability": "experimental"},
    )
    async def database(door: Annotated[Door, Depends(gate.open)]) -> DatabaseStatistics:
        return DatabaseStatistics.model_validate(await health.database(door))

    return routes
