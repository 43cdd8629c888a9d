"""/admin/keys: an operator and everybody's keys. Two older names of the same lead here as well."""

from typing import Annotated

from fastapi import Depends, Query, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.routes import STABLE, Desk, of_one_key
from tollgate.keys.schemas import KeysAsked, NewKeyForUser
from tollgate.keys.shown import ApiKey, NewSecret
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

MOUNTS = ("/admin/keys", "/v1/admin/keys", "/admin/api/api-keys")


def router(gate: Gate, pepper: str) -> Routes:
    routes = Routes()
    for mount in MOUNTS:
        routes.take(_of_all_keys(gate, Desk(pepper, "admin")), prefix=mount)
    return routes


def _of_all_keys(gate: Gate, desk: Desk) -> Routes:
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("", summary="All keys", responses=refusals(errors.BadRequest), openapi_extra=STABLE)
    async def api_keys(door: OpenDoor, asked: Annotated[KeysAsked, Query()]) -> Page[ApiKey]:
        return await desk.page(door, asked)

    @routes.post(
        "", summary="Make a key for a user", status_code=201, responses=refusals(errors.NotFound), openapi_extra=STABLE
    )
    async def create_api_key(door: OpenDoor, asked: NewKeyForUser, response: Response) -> NewSecret:
        return await desk.create(door, asked, asked.user_id, response)

    routes.take(of_one_key(gate, desk))
    return routes
