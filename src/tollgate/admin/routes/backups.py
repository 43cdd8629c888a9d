"""/admin/backups: those that were created or verified at the console."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.admin.schemas.backups import BackupFile, BackupQuery
from tollgate.backups import store
from tollgate.core.errors import BadRequest
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, refusals


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/backups")

    @routes.get(
        "",
        summary="List backups",
        description="Those that `python -m tollgate backup` created or verified with the settings of this server.",
        responses=refusals(BadRequest),
    )
    async def backups(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[BackupQuery, Query()]
    ) -> CountedPage[BackupFile]:
        return CountedPage[BackupFile].of(await store.backups(door, query.filters(), query.limit))

    return routes
