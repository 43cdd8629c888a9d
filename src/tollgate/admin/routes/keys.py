"""/admin/keys: the keys of all orgs."""

from typing import Annotated

from fastapi import Depends, Query, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.keys.routes import KeyHandlers, of_one_key
from tollgate.keys.schemas import ApiKey, CreatedKey, KeyFilters, NewKeyForUser
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, refusals


def router(gate: Gate, pepper: str) -> Routes:
    routes = Routes(prefix="/admin/keys")
    handlers = KeyHandlers(pepper, "admin")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("", summary="List keys", responses=refusals(errors.BadRequest))
    async def api_keys(door: OpenDoor, query: Annotated[KeyFilters, Query()]) -> CountedPage[ApiKey]:
        return await handlers.page(door, query)

    @routes.post(
        "",
        summary="Create a key for a user",
        status_code=201,
        responses=refusals(errors.NotFound, errors.IdempotencyKeyReused, errors.SecretShownOnce),
    )
    async def create_api_key(
        door: Annotated[Door, Depends(once(gate))], body: NewKeyForUser, response: Response
    ) -> CreatedKey:
        return await handlers.create(door, body, body.user_id, response)

    routes.take(of_one_key(gate, handlers))
    return routes
