"""/admin/models/registry: which of your own servers serves which model, and at what price."""

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.responses import Response

from tollgate.admin.schemas.registry import PutRoute, RemovedRoute, Route, RouteFilters, Word, WrittenRoute
from tollgate.catalog import store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.routes import visibility
from tollgate.core.errors import BadRequest, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

STABLE = {"x-stability": "stable"}


RouteId = Annotated[Word, Path(description="The route's id.", examples=["rte_019aa5c1d2e37f60"])]


def router(gate: Gate, catalog: Catalog) -> Routes:
    routes = Routes(prefix="/admin/models/registry")

    @routes.get("", summary="Routes to your own servers", responses=refusals(BadRequest), openapi_extra=STABLE)
    async def listed(door: Annotated[Door, Depends(gate.open)], query: Annotated[RouteFilters, Query()]) -> Page[Route]:
        return Page[Route].of(await store.routes(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Let a server of yours serve a model, or change how",
        status_code=201,
        responses={200: {"model": WrittenRoute, "description": "Changed"}, **refusals(BadRequest, NotFound)},
        openapi_extra=STABLE,
    )
    async def put(door: Annotated[Door, Depends(gate.open)], body: PutRoute, response: Response) -> WrittenRoute:
        done = await store.put_route(door, body.changes())
        response.status_code = 201 if done["created"] else 200
        return WrittenRoute(**done["route"], created=done["created"], visible=await visibility(catalog))

    @routes.get("/{route_id}", summary="One route", responses=refusals(BadRequest, NotFound), openapi_extra=STABLE)
    async def one(door: Annotated[Door, Depends(gate.open)], route_id: RouteId) -> Route:
        return Route(**(await store.route(door, route_id))["route"])

    @routes.delete(
        "/{route_id}", summary="Remove a route", responses=refusals(BadRequest, NotFound), openapi_extra=STABLE
    )
    async def remove(door: Annotated[Door, Depends(gate.open)], route_id: RouteId) -> RemovedRoute:
        gone = await store.delete_route(door, route_id)
        return RemovedRoute(id=gone["id"], visible=await visibility(catalog))

    return routes
