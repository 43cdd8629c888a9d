"""/user/api-keys: a key's owner and their own keys."""

from typing import Annotated

from fastapi import Depends, Query, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys import store
from tollgate.keys.authentication import Gate
from tollgate.keys.routes import STABLE, Desk, of_one_key
from tollgate.keys.schemas import KeyEventsAsked, NewKey, OwnKeysAsked
from tollgate.keys.shown import ApiKey, KeyEvent, NewSecret
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals


def router(gate: Gate, pepper: str) -> Routes:
    routes = Routes(prefix="/user/api-keys")
    desk = Desk(pepper, "keys")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    plain = refusals(errors.BadRequest)

    @routes.get("", summary="Your keys", responses=plain, openapi_extra=STABLE)
    async def own_api_keys(door: OpenDoor, asked: Annotated[OwnKeysAsked, Query()]) -> Page[ApiKey]:
        return await desk.page(door, asked)

    @routes.post("", summary="Make a key for yourself", status_code=201, responses=plain, openapi_extra=STABLE)
    async def create_own_api_key(door: OpenDoor, asked: NewKey, response: Response) -> NewSecret:
        """It grants no more than the key that makes it. A key with a budget, a quota or limits makes none."""
        return await desk.create(door, asked, None, response)

    @routes.get("/audit-logs", summary="What was done to your org's keys", responses=plain, openapi_extra=STABLE)
    async def api_key_events(door: OpenDoor, asked: Annotated[KeyEventsAsked, Query()]) -> Page[KeyEvent]:
        return Page[KeyEvent].of(await store.key_events(door, asked.filters(), asked.limit))

    routes.take(of_one_key(gate, desk))
    return routes
