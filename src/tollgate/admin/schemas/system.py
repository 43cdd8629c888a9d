"""Postgres' own statistics."""

from typing import Literal

from pydantic import BaseModel, Field

from tollgate.web.schemas import Moment


class TableSize(BaseModel):
    table: str
    rows: int = Field(description="As estimated by Postgres.")
    dead_rows: int = Field(description="Rows that are not vacuumed yet.")
    table_bytes: int
    index_bytes: int
    last_vacuum_at: Moment | None
    last_analyze_at: Moment | None


class DatabaseSizes(BaseModel):
    database_bytes: int = Field(description="The whole database, tables that are not Tollgate's included.")
    tables_bytes: int
    indexes_bytes: int
    tables: list[TableSize] = Field(description="Tollgate's tables, largest first.")


class SlowFunction(BaseModel):
    function: str = Field(examples=["tollgate_admit"])
    calls: int
    total_ms: float
    mean_ms: float
    most_ms: float | None = Field(description="The longest call; null where Postgres does not record it.")


class SlowFunctions(BaseModel):
    source: Literal["pg_stat_statements", "pg_stat_user_functions"] | None
    functions: list[SlowFunction] | None = Field(description="Those with the longest total time.")
    reason: str | None = Field(description="Why no statistics are known.")


class UnusedIndex(BaseModel):
    index: str
    table: str
    bytes: int


class MissingIndex(BaseModel):
    table: str
    reason: str


class IndexUse(BaseModel):
    counted_since: Moment | None = Field(description="Null: since the database was created or restored.")
    unused: list[UnusedIndex] = Field(description="Indexes not read since then, unique indexes excepted.")
    missing: list[MissingIndex] = Field(description="Tables with many sequential scans. This is only a hint.")


class ConnectionCounts(BaseModel):
    used: int = Field(description="Connections to all databases of the server.")
    used_here: int
    most: int
    reserved: int = Field(description="Reserved for superusers.")


class OldestTransaction(BaseModel):
    began_at: Moment
    seconds: int
    pid: int
    state: str | None


class Backup(BaseModel):
    archived_at: Moment | None = Field(description="When Postgres last archived a WAL segment.")
    failed_at: Moment | None
    reason: str | None = Field(description="Why it is unknown.")


class DatabaseStatistics(BaseModel):
    schema_version: str = Field(examples=["20261130000000"])
    server_version: str
    sizes: DatabaseSizes
    slowest: SlowFunctions
    indexes: IndexUse
    connections: ConnectionCounts
    oldest_transaction: OldestTransaction | None = Field(description="Without the transaction of this call.")
    sees_all_sessions: bool = Field(description="False: oldest_transaction covers only the sessions of our own role.")
    last_backup: Backup
