"""/admin/catalog, GET /admin/cache-status and POST /admin/refresh-models."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Path, Query

from tollgate.admin.schemas.catalog import (
    CacheStatus,
    CatalogStatus,
    InstanceCatalog,
    MarkupQuery,
    ModelsQuery,
    PricedModel,
    RefreshedCatalog,
    SharedCatalog,
)
from tollgate.catalog import priced_models, rules, store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.rules import FRESH_SECONDS, OLDEST_SECONDS
from tollgate.core.errors import BadRequest, CatalogUnavailable, NotFound
from tollgate.core.models import Model
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.upstreams.client import Upstreams
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, refusals


def router(gate: Gate, catalogs: Mapping[Environment, Catalog], upstreams: Upstreams, chosen_markup: int) -> Routes:
    """`chosen_markup` is the setting, in ppm."""
    live = catalogs["live"]
    routes = Routes(prefix="/admin")

    @routes.post(
        "/refresh-models",
        summary="Fetch the list of models now",
        description="Refreshes run one at a time. If the list cannot be fetched, the old one is kept.",
        responses=refusals(CatalogUnavailable),
    )
    async def refresh_models(door: Annotated[Door, Depends(gate.open)]) -> RefreshedCatalog:
        source = live.kept_as or ""
        before = await store.snapshot(door, source)
        took_ms = await _refresh(live)
        noted = await store.note_refresh(door, source, before["digest"])
        return RefreshedCatalog(
            models=live.state().models,
            changed=noted["changed"],
            took_ms=took_ms,
            shared=_shared(noted["snapshot"]),
        )

    @routes.get(
        "/cache-status",
        summary="Get the state of the catalog",
        responses=refusals(),
    )
    async def cache_status(door: Annotated[Door, Depends(gate.open)]) -> CacheStatus:
        known = await store.snapshot(door, live.kept_as or "")
        test = catalogs.get("test")
        return CacheStatus(
            ttl_seconds=FRESH_SECONDS,
            oldest_seconds=OLDEST_SECONDS,
            live=CatalogStatus(instance=_instance(live), shared=_shared(known["snapshot"])),
            test=CatalogStatus(instance=_instance(test), shared=None) if test else None,
        )

    @routes.get("/catalog", summary="List the models with prices and routes", responses=refusals(BadRequest, NotFound))
    async def models(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[ModelsQuery, Query()]
    ) -> CountedPage[PricedModel]:
        """The models of live keys, as the instance that answers has them in memory."""
        found = await store.for_operator(door, query.for_org, query.for_plan)
        page = priced_models.page(
            priced(await live.models(), found),
            q=query.q,
            sort=query.sort,
            limit=query.limit,
            cursor=query.cursor,
            offset=query.offset,
        )
        return CountedPage[PricedModel].of(page)

    @routes.get(
        "/catalog/{model_id:path}",
        summary="Get a model with prices and routes",
        responses=refusals(BadRequest, NotFound, CatalogUnavailable),
    )
    async def model(
        door: Annotated[Door, Depends(gate.open)],
        model_id: Annotated[Identifier, Path(description="The id of the model, as the list has it.")],
        query: Annotated[MarkupQuery, Query()],
    ) -> PricedModel:
        found = await store.for_operator(door, query.for_org, query.for_plan)
        shown = priced([one for one in await live.models() if one.id == model_id], found)
        if not shown:
            raise NotFound(kind="model", id=model_id)
        return PricedModel.model_validate(shown[0])

    def priced(models: Iterable[Model], found: dict[str, Any]) -> list[dict[str, Any]]:
        """With the markup and the health that were found."""
        markup = chosen_markup if found["markup_ppm"] is None else found["markup_ppm"]
        breakers = {state.id: state.breakers for state in upstreams.states()}
        return priced_models.shown(models, markup, found["upstreams"], breakers)

    return routes


async def _refresh(catalog: Catalog) -> int:
    """Returns the milliseconds it took. A failure says why, and how many models are left."""
    began = asyncio.get_running_loop().time()
    try:
        await catalog.refresh()
    except CatalogUnavailable:
        state = catalog.state()
        raise CatalogUnavailable(cause=state.last_error, models=state.models) from None
    return round((asyncio.get_running_loop().time() - began) * 1000)


def _instance(catalog: Catalog) -> InstanceCatalog:
    state = catalog.state()
    return InstanceCatalog(health=rules.health_of_instance(state), hit_rate=rules.hit_rate(state), **state._asdict())


def _shared(snapshot: dict[str, Any] | None) -> SharedCatalog | None:
    return SharedCatalog(health=rules.health_of_snapshot(snapshot["age_seconds"]), **snapshot) if snapshot else None
