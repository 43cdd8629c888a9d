"""What there is to ask for, and at what price: GET /v1/models."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from cachetools import LRUCache
from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from tollgate.catalog import rules, store
from tollgate.catalog.cache import Catalog
from tollgate.catalog.entries import encoded
from tollgate.core.errors import CatalogUnavailable, ModelNotFound
from tollgate.core.models import Model
from tollgate.database import Door
from tollgate.keys.authentication import IN_THE_DOCUMENT, Gate
from tollgate.keys.rules import Environment
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

MOUNTS = ("/v1", "/api/v1", "")
USUAL_MODALITIES = "text,embeddings"
ALL = "all"
MOST_MARKUPS = 8
MOST_LISTED = 100_000


class ListedModel(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str = Field(description="What to send as `model`.", examples=["openai/gpt-4o-mini"])
    object: Literal["model"]
    created: int
    owned_by: str = Field(description="The author's part of the id.", examples=["openai"])
    name: str
    context_length: int | None
    architecture: dict[str, Any]
    pricing: dict[str, Any] = Field(
        description="US dollars per token, request or piece, as this key is charged, markup included. "
        "-1: no fixed price; such a model needs provider.max_price.",
        examples=[{"prompt": "0.0000001575", "completion": "0.00000063"}],
    )
    top_provider: dict[str, Any]
    per_request_limits: dict[str, Any] | None
    supported_parameters: list[str]


class Links(BaseModel):
    next: str | None = Field(description="The path of the next page; null unless `limit` left something out.")


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ListedModel] = Field(description="OpenRouter's fields, all of them, and OpenAI's.")
    total_count: int = Field(description="How many there are on all pages.")
    links: Links


class Filters(BaseModel):
    model_config = ConfigDict(extra="ignore")

    output_modalities: str = Field(
        USUAL_MODALITIES,
        max_length=200,
        description="Only models that put out one of these, separated by commas: text, embeddings, image, audio …; "
        "`all` for every model.",
    )
    usable: bool = Field(False, description="true lists only what this key may use.")
    offset: int = Field(0, ge=0, le=MOST_LISTED, description="How many to leave out at the beginning.")
    limit: int = Field(MOST_LISTED, ge=1, le=MOST_LISTED, description="How many to list. Default: all.")

    @property
    def modalities(self) -> frozenset[str]:
        return frozenset(self.output_modalities.split(","))


class Showcase:
    """A catalogue's models as they are shown, encoded once for each markup."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._models: Sequence[Model] = ()
        self._shown: LRUCache[int, list[bytes]] = LRUCache(MOST_MARKUPS)

    async def chosen(self, filters: Filters, markup_ppm: int, patterns: Sequence[str] | None) -> list[bytes]:
        models = await self.catalog.models()
        wanted = filters.modalities
        return [
            entry
            for model, entry in zip(models, await self._encoded(models, markup_ppm), strict=True)
            if (ALL in wanted or rules.gives(model, wanted))
            and (not filters.usable or rules.allowed(patterns, model.id))
        ]

    async def _encoded(self, models: Sequence[Model], markup_ppm: int) -> list[bytes]:
        """In a thread, for it would hold up everyone else."""
        if models is not self._models:
            self._models = models
            self._shown.clear()
        shown = self._shown.get(markup_ppm)
        if shown is None:
            shown = await asyncio.to_thread(lambda: [_shown(model, markup_ppm) for model in models])
            if models is self._models:
                self._shown[markup_ppm] = shown
        return shown


def router(gate: Gate, catalogs: Mapping[Environment, Catalog], markup_ppm: int) -> Routes:
    """`markup_ppm` is the setting, for orgs and plans without a markup of their own."""
    routes = Routes(tags=["models"], dependencies=IN_THE_DOCUMENT)
    showcases = {environment: Showcase(catalog) for environment, catalog in catalogs.items()}

    async def enter(door: Door) -> tuple[Showcase, int, Sequence[str] | None]:
        """What this key may see, at which markup, and which of it it may use."""
        shopper = await store.shopper(door)
        showcase = showcases.get(shopper["environment"])
        if showcase is None:
            raise CatalogUnavailable
        own = shopper["markup_ppm"]
        return showcase, markup_ppm if own is None else own, shopper["allowed_models"]

    async def models(
        request: Request, door: Annotated[Door, Depends(gate.open)], filters: Annotated[Filters, Query()]
    ) -> Response:
        showcase, markup, patterns = await enter(door)
        chosen = await showcase.chosen(filters, markup, patterns)
        end = filters.offset + filters.limit
        url = request.url.include_query_params(offset=end)
        following = f"{url.path}?{url.query}" if end < len(chosen) else None
        return _json(_page(chosen[filters.offset : end], len(chosen), following))

    async def model(door: Annotated[Door, Depends(gate.open)], author: str, slug: str) -> Response:
        return await named(door, f"{author}/{slug}")

    async def named(door: Annotated[Door, Depends(gate.open)], name: str) -> Response:
        showcase, markup, _ = await enter(door)
        return _json(_shown(await showcase.catalog.find(name), markup))

    for mount in MOUNTS:
        add = partial(
            routes.add_api_route,
            include_in_schema=mount == MOUNTS[0],
            responses=refusals(CatalogUnavailable, ModelNotFound),
            openapi_extra={"x-stability": "stable"},
        )
        add(f"{mount}/models", models, summary="The models there are", response_model=ModelList)
        add(f"{mount}/models/{{author}}/{{slug}}", model, summary="One model", response_model=ListedModel)
        add(f"{mount}/models/{{name}}", named, summary="One model of ours, by its name", response_model=ListedModel)
    return routes


def _shown(model: Model, markup_ppm: int) -> bytes:
    return encoded(rules.shown(model, markup_ppm)).encode()


def _page(shown: Sequence[bytes], total: int, following: str | None) -> bytes:
    rest = {"total_count": total, "links": {"next": following}}
    return b'{"object":"list","data":[%b],%b' % (b",".join(shown), encoded(rest)[1:].encode())


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
