"""The interface of both doors."""

from typing import Any, Protocol

Json = Any


class Door(Protocol):
    """A client of the database.

    Arguments are strings, integers, booleans or None, or lists and dicts for jsonb parameters. Every function returns
    one JSON object. A refusal of the function is raised as the error with its code. If the database cannot be reached
    or does not answer in time, DatabaseUnavailable is raised. A door connects on first use, and again after an outage.
    """

    async def call(self, function: str, **arguments: Json) -> Json: ...

    async def close(self) -> None: ...
