"""The protocol of the doors."""

from typing import Any, Protocol

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
