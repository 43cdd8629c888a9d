"""/user/api-keys: the caller's own keys."""

from typing import Annotated

from fastapi import Depends, Query, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys import store
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.keys.routes import KeyHandlers, of_one_key
from tollgate.keys.schemas import ApiKey, CreatedKey, KeyEvent, KeyEventFilters, NewKey, OwnKeyFilters
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Page, refusals


def router(gate: Gate, pepper: str) -> Routes:
    routes = Routes(prefix="/user/api-keys")
    handlers = KeyHandlers(pepper, "keys")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    plain = refusals(errors.BadRequest)
    creating = refusals(errors.BadRequest, errors.IdempotencyKeyReused, errors.SecretShownOnce)

    @routes.get("", summary="List your keys", responses=plain)
    async def own_api_keys(door: OpenDoor, query: Annotated[OwnKeyFilters, Query()]) -> CountedPage[ApiKey]:
        return await handlers.page(door, query)

    @routes.post("", summary="Create a key for yourself", status_code=201, responses=creating)
    async def create_own_api_key(
        door: Annotated[Door, Depends(once(gate))], body: NewKey, response: Response
    ) -> CreatedKey:
        """The new key may do no more than the key of this request. A key with a budget, a quota or limits cannot create
        keys."""
        return await handlers.create(door, body, None, response)

    @routes.get("/audit-logs", summary="List audit events of your org's keys", responses=plain)
    async def api_key_events(door: OpenDoor, query: Annotated[KeyEventFilters, Query()]) -> Page[KeyEvent]:
        return Page[KeyEvent].of(await store.key_events(door, query.filters(), query.limit))

    routes.take(of_one_key(gate, handlers))
    return routes
