"""Creates things once for each Idempotency-Key."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Header, Request, Response

from tollgate.database import Door, Json
from tollgate.keys.authentication import Gate

CREATIONS = {
    "tollgate_create_org",
    "tollgate_create_user",
    "tollgate_create_plan",
    "tollgate_create_key",
    "tollgate_put_upstream",
    "tollgate_create_host",
    "tollgate_create_deployment",
    "tollgate_create_channel",
    "tollgate_create_silence",
}
OptionalIdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[ -~]{1,180}$",
        description="A value of your choice, unique to this creation. For 48 hours a repeated request with it gets the "
        "first answer again, with the header `Idempotency-Replayed: true`, and creates nothing.",
    ),
]


class OnceDoor:
    """A door through which each creation goes once for its Idempotency-Key."""

    def __init__(self, door: Door, idempotency_key: str, response: Response) -> None:
        self._door = door
        self._key = idempotency_key
        self._response = response

    async def call(self, function: str, **arguments: Any) -> Json:
        if function not in CREATIONS:
            return await self._door.call(function, **arguments)
        found = await self._door.call(
            "tollgate_create_once", creation=function, arguments=arguments, idempotency_key=self._key
        )
        if found.get("replayed"):
            self._response.headers["idempotency-replayed"] = "true"
        return found

    async def close(self) -> None:
        await self._door.close()


def once(gate: Gate) -> Callable[..., Awaitable[Door]]:
    """A dependency in place of `gate.open`, for routes that create something."""

    async def opened(request: Request, response: Response, idempotency_key: OptionalIdempotencyKey = None) -> Door:
        door = await gate.open(request)
        return door if idempotency_key is None else OnceDoor(door, idempotency_key, response)

    return opened
