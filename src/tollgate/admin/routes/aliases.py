"""/admin/models/aliases: names of your own for models."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Path, Query
from starlette.responses import Response

from tollgate.admin.schemas.aliases import AliasDetails, AliasFilters, ChangedAlias, PutAlias, RemovedAlias
from tollgate.catalog import store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.routes import visibility
from tollgate.core.errors import BadRequest, CatalogUnavailable, Conflict, ModelNotFound, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, refusals

AliasName = Annotated[Identifier, Path(description="The name of the alias.", examples=["fast"])]


def router(gate: Gate, catalog: Catalog) -> Routes:
    routes = Routes(prefix="/admin/models/aliases")

    @routes.get("", summary="List the aliases", responses=refusals(BadRequest))
    async def listed(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[AliasFilters, Query()]
    ) -> CountedPage[AliasDetails]:
        return CountedPage[AliasDetails].of(await store.aliases(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Create or change an alias",
        status_code=201,
        responses={200: {"model": ChangedAlias, "description": "Changed"}, **refusals(BadRequest, Conflict)},
    )
    async def put(door: Annotated[Door, Depends(gate.open)], body: PutAlias, response: Response) -> ChangedAlias:
        done = await store.put_alias(door, _as_stored(body))
        response.status_code = 201 if done["created"] else 200
        alias, visible = done["alias"], await visibility(catalog)
        not_served = [name for name in _names(alias) if not await _is_served(catalog, name)]
        return ChangedAlias(**alias, created=done["created"], not_served=not_served, visible=visible)

    @routes.get("/{name:path}", summary="Get an alias", responses=refusals(BadRequest, NotFound))
    async def one(door: Annotated[Door, Depends(gate.open)], name: AliasName) -> AliasDetails:
        return AliasDetails(**(await store.alias(door, name))["alias"])

    @routes.delete("/{name:path}", summary="Delete an alias", responses=refusals(BadRequest, NotFound))
    async def remove(door: Annotated[Door, Depends(gate.open)], name: AliasName) -> RemovedAlias:
        gone = await store.delete_alias(door, name)
        return RemovedAlias(name=gone["name"], visible=await visibility(catalog))

    return routes


def _names(alias: Mapping[str, Any]) -> list[str]:
    return [*(target["model"] for target in alias["targets"]), *alias["fallbacks"]]


async def _is_served(catalog: Catalog, name: str) -> bool:
    """Also where the list of models is not known now: that is no reason to warn."""
    try:
        await catalog.find(name)
    except ModelNotFound:
        return False
    except CatalogUnavailable:
        return True
    return True


def _as_stored(body: PutAlias) -> dict[str, Any]:
    """Targets are stored whole, with their default weight."""
    changes = body.changes()
    if body.targets is not None:
        changes["targets"] = [target.model_dump(exclude_none=True) for target in body.targets]
    return changes
