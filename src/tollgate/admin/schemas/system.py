"""Postgres' own statistics, versions, and the settings in force."""

import re
from typing import Literal, get_args

from pydantic import BaseModel, Field, SecretStr
from pydantic.fields import FieldInfo

from tollgate.settings import Settings
from tollgate.web.schemas import Moment

USER_IN_ADDRESS = re.compile(r"(://)[^/@\s]*@")


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


DatabaseKind = Literal["postgres", "supabase", "embedded"]


class SettingInForce(BaseModel):
    name: str = Field(examples=["LOG_LEVEL"])
    value: str | None = Field(description="As the environment would state it; null when not set, and for secrets.")
    default: str | None = Field(description="Null without one.")
    is_secret: bool
    is_set: bool = Field(description="Whether the value is not the default.")
    description: str


class SystemSettings(BaseModel):
    version: str = Field(description="Of Tollgate.")
    schema_version: str
    needed_schema_version: str = Field(description="The oldest that this version works with.")
    python_version: str
    postgres_version: str
    host: str = Field(description="vercel, railway, heroku, lambda or server.")
    database: DatabaseKind
    settings: list[SettingInForce]


def database_kind(chosen: Settings) -> DatabaseKind:
    if chosen.database_url:
        return "postgres"
    return "supabase" if chosen.supabase_url else "embedded"


def in_force(chosen: Settings) -> list[SettingInForce]:
    return [_in_force(field, getattr(chosen, name)) for name, field in Settings.model_fields.items()]


def _in_force(field: FieldInfo, value: object) -> SettingInForce:
    is_secret = isinstance(value, SecretStr) or SecretStr in (field.annotation, *get_args(field.annotation))
    return SettingInForce(
        name=str(field.alias),
        value=None if is_secret else _written(value),
        default=None if is_secret else _written(field.default),
        is_secret=is_secret,
        is_set=value != field.default,
        description=str(field.description),
    )


def _written(value: object) -> str | None:
    """Without the user and password of an address."""
    if value is None:
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return USER_IN_ADDRESS.sub(r"\1", text)
