"""The protocol of the doors, and which one the settings ask for."""

from typing import TYPE_CHECKING, Any, Protocol

from tollgate.runtime.settings import Settings

if TYPE_CHECKING:
    from tollgate.runtime.http import Http

Json = Any


class Door(Protocol):
    """The way to the database.

    Arguments are strings, integers, booleans or None, or lists and dicts for the jsonb parameters. Every
    function answers with one JSON object.
    A refusal of the function is raised as the error of its code; everything else that goes wrong on the
    way is DatabaseUnavailable, within the deadline. Opens on first use and finds back after an outage.
    """

    async def call(self, function: str, **arguments: Json) -> Json: ...

    async def close(self) -> None: ...


def open_door(settings: Settings, http: "Http") -> Door:
    """The door that the settings name; nothing is connected yet."""
    if settings.database_url is None and settings.supabase_url and settings.supabase_secret_key:
        from tollgate.runtime.database.supabase import SupabaseDoor

        return SupabaseDoor(
            settings.supabase_url,
            settings.supabase_secret_key.get_secret_value(),
            http=http,
            deadline_seconds=settings.database_timeout_seconds,
        )

    from tollgate.runtime.database.postgres import PostgresDoor

    return PostgresDoor(
        database_url(settings),
        pool_size=settings.database_pool_size,
        deadline_seconds=settings.database_timeout_seconds,
    )


def database_url(settings: Settings) -> str:
    """Where Postgres itself listens: as set, or the embedded one's socket."""
    if settings.database_url:
        return settings.database_url.get_secret_value()

    from tollgate.runtime.database import embedded

    return embedded.url(settings.data_folder)
