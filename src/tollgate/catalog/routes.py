"""GET /v1/models: the models, their prices and their upstreams."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

from cachetools import LRUCache
from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from tollgate.catalog import readouts, rules, store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.entries import encoded
from tollgate.catalog.rules import FRESH_SECONDS
from tollgate.catalog.schemas import (
    ListedModel,
    ModalityFilter,
    ModelCount,
    ModelEndpoints,
    ModelFilters,
    ModelList,
    PagedModels,
    Providers,
    Visibility,
)
from tollgate.core.errors import CatalogUnavailable, ModelNotFound
from tollgate.core.models import Model
from tollgate.database import Door
from tollgate.keys.authentication import IN_THE_DOCUMENT, Gate
from tollgate.keys.rules import Environment
from tollgate.process import logs
from tollgate.web.aliases import asked_path
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

ALL = "all"
MOST_MARKUPS = 8


class EncodedModels:
    """The listings of a catalog, encoded once for each markup."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._models: Sequence[Model] = ()
        self._shown: LRUCache[int, list[bytes]] = LRUCache(MOST_MARKUPS)

    async def chosen(self, filters: ModelFilters, access: "Access") -> list[bytes]:
        models = await self.catalog.models()
        wanted = filters.modalities
        return [
            entry
            for model, entry in zip(models, await self._encoded(models, access.markup_ppm), strict=True)
            if (ALL in wanted or rules.gives(model, wanted))
            and rules.may_use(access.of_org, model)
            and (not filters.usable or rules.may_use(access.of_key, model))
        ]

    async def _encoded(self, models: Sequence[Model], markup_ppm: int) -> list[bytes]:
        """Encodes in a thread, because it would block the event loop."""
        if models is not self._models:
            self._models = models
            self._shown.clear()
        shown = self._shown.get(markup_ppm)
        if shown is None:
            shown = await asyncio.to_thread(lambda: [_shown(model, markup_ppm) for model in models])
            if models is self._models:
                self._shown[markup_ppm] = shown
        return shown


class Access(NamedTuple):
    """What a caller sees of the catalog."""

    markup_ppm: int
    of_org: Sequence[str] | None
    """Patterns of the models that the org may use; the others are not listed."""
    of_key: Sequence[str] | None
    default_model: str | None


def router(
    gate: Gate, catalogs: Mapping[Environment, Catalog], markup_ppm: int, default_model: str | None = None
) -> Routes:
    """`markup_ppm` and `default_model` are the settings, for orgs without their own."""
    routes = Routes(tags=["models"], dependencies=IN_THE_DOCUMENT, guard=gate.guard)
    encoded_models = {environment: EncodedModels(catalog) for environment, catalog in catalogs.items()}

    async def access_of(door: Door) -> tuple[EncodedModels, Access]:
        """The models of the key's environment, and what it sees of them."""
        access = await store.model_access(door)
        models_of_key = encoded_models.get(access["environment"])
        if models_of_key is None:
            raise CatalogUnavailable
        own = access["markup_ppm"]
        return models_of_key, Access(
            markup_ppm if own is None else own,
            access.get("allowed_models_of_org"),
            access["allowed_models"],
            access.get("default_model") or default_model,
        )

    async def visible(door: Door, name: str) -> tuple[Model, Access]:
        models_of_key, access = await access_of(door)
        found = rules.as_model(await models_of_key.catalog.find(name))
        if not rules.may_use(access.of_org, found):
            raise ModelNotFound(param="model", model=name)
        logs.note(model_read=found.id)
        return found, access

    async def models(
        request: Request, door: Annotated[Door, Depends(gate.open)], filters: Annotated[ModelFilters, Query()]
    ) -> Response:
        models_of_key, access = await access_of(door)
        chosen = await models_of_key.chosen(filters, access)
        if filters.offset:  # a further page
            logs.note(model_read=f"?{request.url.query}")
        end = filters.offset + filters.limit
        query = request.url.include_query_params(offset=end).query
        following = f"{asked_path(request.scope)}?{query}" if end < len(chosen) else None
        return _json(_page(chosen[filters.offset : end], len(chosen), following, access.default_model))

    async def count(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[ModalityFilter, Query()]
    ) -> dict[str, Any]:
        models_of_key, access = await access_of(door)
        listed = ModelFilters(output_modalities=filters.output_modalities)
        return {"data": {"count": len(await models_of_key.chosen(listed, access))}}

    async def usable(
        request: Request, door: Annotated[Door, Depends(gate.open)], filters: Annotated[PagedModels, Query()]
    ) -> Response:
        return await models(request, door, ModelFilters(**filters.model_dump(), usable=True))

    async def endpoints(door: Annotated[Door, Depends(gate.open)], author: str, slug: str) -> dict[str, Any]:
        found, access = await visible(door, f"{author}/{slug}")
        return {"data": readouts.endpoints(found, access.markup_ppm)}

    async def providers(door: Annotated[Door, Depends(gate.open)]) -> dict[str, Any]:
        """The upstreams that serve the models. OpenRouter is one of them, whatever providers it has."""
        models_of_key, _ = await access_of(door)
        return {"data": readouts.providers(await models_of_key.catalog.models())}

    async def model(door: Annotated[Door, Depends(gate.open)], author: str, slug: str) -> Response:
        return await named(door, f"{author}/{slug}")

    async def named(door: Annotated[Door, Depends(gate.open)], name: str) -> Response:
        found, access = await visible(door, name)
        return _json(_shown(found, access.markup_ppm))

    add = partial(routes.add_api_route, responses=refusals(CatalogUnavailable, ModelNotFound))
    add("/v1/models", models, summary="List models", response_model=ModelList)
    add("/v1/models/count", count, summary="Count the models", response_model=ModelCount)
    add("/v1/models/user", usable, summary="List the models that your key may use", response_model=ModelList)
    add("/v1/models/{author}/{slug}", model, summary="Get a model", response_model=ListedModel)
    add("/v1/models/{name}", named, summary="Get a model without an author", response_model=ListedModel)
    add(
        "/v1/models/{author}/{slug}/endpoints",
        endpoints,
        summary="Get the upstreams of a model, with their prices",
        response_model=ModelEndpoints,
    )
    add("/api/v1/providers", providers, summary="List the upstreams, as OpenRouter does", response_model=Providers)
    return routes


async def visibility(catalog: Catalog) -> Visibility:
    """Reads upstreams and routes again, here at once; the other instances do so when their catalogs expire."""
    return Visibility(here=await catalog.reread(), elsewhere_within_seconds=FRESH_SECONDS)


async def visible(catalog: Catalog, found: dict[str, Any]) -> dict[str, Any]:
    """What the database answered to a change. Where it changed routes, they are read again here."""
    if found.get("routes_changed"):
        await catalog.reread()
    return found


def _shown(model: Model, markup_ppm: int) -> bytes:
    return encoded(rules.shown(model, markup_ppm)).encode()


def _page(shown: Sequence[bytes], total: int, following: str | None, default_model: str | None) -> bytes:
    rest = {"total_count": total, "links": {"next": following}, "default_model": default_model}
    return b'{"object":"list","data":[%b],%b' % (b",".join(shown), encoded(rest)[1:].encode())


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
