"""/admin/models/registry: the routes to your own servers, with their prices."""

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.responses import Response

from tollgate.admin.schemas.registry import ChangedRoute, PutRoute, RemovedRoute, RouteDetails, RouteFilters
from tollgate.catalog import store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.routes import visibility
from tollgate.core.errors import BadRequest, Conflict, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, refusals

RouteId = Annotated[Identifier, Path(description="The id of the route.", examples=["rte_019aa5c1d2e37f60"])]


def router(gate: Gate, catalog: Catalog) -> Routes:
    routes = Routes(prefix="/admin/models/registry")

    @routes.get("", summary="List the routes to your own servers", responses=refusals(BadRequest))
    async def listed(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[RouteFilters, Query()]
    ) -> CountedPage[RouteDetails]:
        return CountedPage[RouteDetails].of(await store.routes(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Create or change a route",
        status_code=201,
        responses={200: {"model": ChangedRoute, "description": "Changed"}, **refusals(BadRequest, NotFound)},
    )
    async def put(door: Annotated[Door, Depends(gate.open)], body: PutRoute, response: Response) -> ChangedRoute:
        done = await store.put_route(door, body.changes())
        response.status_code = 201 if done["created"] else 200
        return ChangedRoute(**done["route"], created=done["created"], visible=await visibility(catalog))

    @routes.get("/{route_id:path}", summary="Get a route", responses=refusals(BadRequest, NotFound))
    async def one(door: Annotated[Door, Depends(gate.open)], route_id: RouteId) -> RouteDetails:
        return RouteDetails(**(await store.route(door, route_id))["route"])

    @routes.delete("/{route_id:path}", summary="Delete a route", responses=refusals(BadRequest, NotFound, Conflict))
    async def remove(door: Annotated[Door, Depends(gate.open)], route_id: RouteId) -> RemovedRoute:
        """A model with one route can be named in place of the id."""
        gone = await store.delete_route(door, route_id)
        return RemovedRoute(id=gone["id"], visible=await visibility(catalog))

    return routes
