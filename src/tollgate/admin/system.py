"""GET /admin/system/database."""

from typing import Annotated, Literal

from fastapi import Depends
from pydantic import BaseModel, Field

from tollgate.audit import store as audit
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Moment, refusals


class TableSize(BaseModel):
    table: str
    rows: int = Field(description="As Postgres estimates them.")
    dead_rows: int = Field(description="Not vacuumed yet.")
    table_bytes: int
    index_bytes: int
    last_vacuum: Moment | None
    last_analyze: Moment | None


class Sizes(BaseModel):
    database_bytes: int = Field(description="Of the whole database, what is not Tollgate's included.")
    tables_bytes: int
    indexes_bytes: int
    tables: list[TableSize] = Field(description="Tollgate's, largest first.")


class SlowFunction(BaseModel):
    function: str = Field(examples=["tollgate_admit"])
    calls: int
    total_ms: float
    mean_ms: float
    most_ms: float | None = Field(description="Of one call; null where Postgres does not keep it.")


class Slowest(BaseModel):
    source: Literal["pg_stat_statements", "pg_stat_user_functions"] | None
    functions: list[SlowFunction] | None = Field(description="Those that took most time in all.")
    reason: str | None = Field(description="Why there are none.")


class UnusedIndex(BaseModel):
    index: str
    table: str
    bytes: int


class MissingIndex(BaseModel):
    table: str
    reason: str


class Indexes(BaseModel):
    counted_since: Moment | None = Field(description="Null: since the database was made or restored.")
    unused: list[UnusedIndex] = Field(description="Not read since then; those that keep things unique are never here.")
    missing: list[MissingIndex] = Field(description="Tables read whole again and again: a hint, no more.")


class Connections(BaseModel):
    used: int = Field(description="To all databases of the server.")
    used_here: int
    most: int
    reserved: int = Field(description="Of those, for superusers.")


class OldestTransaction(BaseModel):
    began_at: Moment
    seconds: int
    pid: int
    state: str | None


class Backup(BaseModel):
    archived_at: Moment | None = Field(description="When Postgres last handed a piece of its log to the archive.")
    failed_at: Moment | None
    reason: str | None = Field(description="Why nothing is known.")


class DatabaseState(BaseModel):
    schema_version: str = Field(examples=["20261130000000"])
    server_version: str
    sizes: Sizes
    slowest: Slowest
    indexes: Indexes
    connections: Connections
    oldest_transaction: OldestTransaction | None = Field(description="Besides the one of this call.")
    sees_all_sessions: bool = Field(description="False: oldest_transaction is only looked for among our own role's.")
    last_backup: Backup


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/system")

    @routes.get(
        "/database",
        summary="How the database fares, by its own statistics",
        responses=refusals(),
        openapi_extra={"x-stability": "experimental"},
    )
    async def database(door: Annotated[Door, Depends(gate.open)]) -> DatabaseState:
        return DatabaseState.model_validate(await audit.database(door))

    return routes
