"""Names and ages of backups, and what the messages of Postgres' programs mean. Pure."""

import re
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import unquote, urlsplit

USUAL_DAYS: Final = 7
"""The greatest age of a backup, if not said."""
HARMLESS: Final = re.compile(
    r'schema "(public|supabase_migrations)" already exists'
    r"|role \"[^\"]+\" does not exist"
    r"|unrecognized configuration parameter \"transaction_timeout\""
)
"""Errors of a restore that lose nothing: a new server lacks the roles that call functions, an older one a setting."""
PASSED_OVER: Final = 1
"""The status of pg_restore after errors."""
COMPLETE: Final = ("PostgreSQL database dump complete", "PostgreSQL database cluster dump complete")
"""One of these is in the last lines of a plain dump."""


def file_name(now: datetime) -> str:
    return f"tollgate-{now:%Y%m%dT%H%M%SZ}.dump"


def without_password(url: str) -> tuple[str, str | None]:
    """A program's arguments can be read by every user of the machine, so the password is no part of them."""
    parts = urlsplit(url)
    if parts.password is None:
        return url, None
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{host}").geturl(), unquote(parts.password)


def why(said: str) -> str:
    """Why pg_dump could not write a dump."""
    if "server version mismatch" in said:
        versions = re.search(r"server version: (\S+).*?pg_dump version: (\S+)", said, re.DOTALL)
        server, ours = versions.groups() if versions else ("newer", "older")
        return (
            f"the server is Postgres {server}, and pg_dump is {ours}, which cannot read a newer one: "
            "run the pg_dump of the server's version, as docs/how-to/recover.md shows"
        )
    return next(iter(_errors(said)), "pg_dump said nothing")


def faults_of_restore(said: str, status: int, *, plain: bool) -> list[str]:
    """Of a plain dump, only those of our tables and functions: it may hold what others keep in the database."""
    errors = [error for error in _errors(said) if not HARMLESS.search(error)]
    faults = [error for error in errors if not plain or "tollgate" in error]
    return faults if status in (0, PASSED_OVER) else [*faults, f"the restore ended with status {status}"]


def is_complete(end: str) -> bool:
    """Whether a plain dump with this end was written completely."""
    return any(mark in end for mark in COMPLETE)


def age_fault(as_of: datetime | None, now: datetime, most_days: float) -> str | None:
    if as_of is None:
        return "no row in it says when it was taken"
    if now - as_of <= timedelta(days=most_days):
        return None
    return f"it is {(now - as_of) / timedelta(days=1):.1f} days old, and may be {most_days:g} (--max-age-days)"


def _errors(said: str) -> list[str]:
    """What follows `error:`, without the details below."""
    found = re.findall(r"(?:error|ERROR|FATAL):\s+(.+)", said)
    return [line.strip() for line in found]
