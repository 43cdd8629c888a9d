"""GET /admin/system/database and GET /admin/system/settings."""

import platform
from typing import Annotated

from fastapi import Depends

from tollgate import __version__
from tollgate.admin.schemas.system import DatabaseStatistics, SystemSettings, database_kind, in_force
from tollgate.database import Door
from tollgate.database.schema_version import NEEDED
from tollgate.health import store as health
from tollgate.keys.authentication import Gate
from tollgate.settings import Settings
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate, chosen: Settings, host: str) -> Routes:
    routes = Routes(prefix="/admin/system")

    @routes.get(
        "/database",
        summary="Get the statistics of Postgres",
        responses=refusals(),
        openapi_extra={"x-stability": "experimental"},
    )
    async def database(door: Annotated[Door, Depends(gate.open)]) -> DatabaseStatistics:
        return DatabaseStatistics.model_validate(await health.database(door))

    @routes.get("/settings", summary="Get the versions, and the settings in force", responses=refusals())
    async def settings(door: Annotated[Door, Depends(gate.open)]) -> SystemSettings:
        """Of the instance that answers. Of secrets, only whether they are set."""
        return SystemSettings(
            **await health.versions(door),
            version=__version__,
            needed_schema_version=NEEDED,
            python_version=platform.python_version(),
            host=host,
            database=database_kind(chosen),
            settings=in_force(chosen),
        )

    return routes
