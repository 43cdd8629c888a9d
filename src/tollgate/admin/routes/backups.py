"""/admin/backups: those that were created or verified at the console."""

from typing import Annotated

from fastapi import Depends, Query
from fastapi import Path as InPath

from tollgate.admin.schemas.backups import BackupFile, BackupQuery
from tollgate.backups import store
from tollgate.core.errors import BadRequest, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, refusals

OfFile = Annotated[Identifier, InPath(description="SHA-256 of the file.", examples=["0a" * 32])]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/backups")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get(
        "",
        summary="List backups",
        description="Those that `python -m tollgate backup` created or verified with the settings of this server.",
        responses=refusals(BadRequest),
    )
    async def backups(door: OpenDoor, query: Annotated[BackupQuery, Query()]) -> CountedPage[BackupFile]:
        return CountedPage[BackupFile].of(await store.backups(door, query.filters(), query.limit))

    @routes.get("/{digest}", summary="Get a backup", responses=refusals(BadRequest, NotFound))
    async def backup(door: OpenDoor, digest: OfFile) -> BackupFile:
        return BackupFile.model_validate(await store.backup(door, digest))

    return routes
