"""Makes the door that the settings choose."""

from tollgate.database.door import Door
from tollgate.process.http_client import Http
from tollgate.settings import Settings


def open_door(settings: Settings, http: Http) -> Door:
    """A door; it connects on first use."""
    if settings.database_url is None and settings.supabase_url and settings.supabase_secret_key:
        from tollgate.database.supabase import SupabaseDoor

        return SupabaseDoor(
            settings.supabase_url,
            settings.supabase_secret_key.get_secret_value(),
            http=http,
            deadline_seconds=settings.database_timeout_seconds,
        )

    from tollgate.database.postgres import PostgresDoor

    return PostgresDoor(
        database_url(settings),
        pool_size=settings.database_pool_size,
        deadline_seconds=settings.database_timeout_seconds,
    )


def database_url(settings: Settings) -> str:
    """The URL of Postgres: DATABASE_URL, or the socket of the embedded one."""
    if settings.database_url:
        return settings.database_url.get_secret_value()

    from tollgate.database import embedded

    return embedded.url(settings.data_folder)
