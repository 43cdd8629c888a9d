"""/admin/models/registry: which of our own servers serves which model, and at what price."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tollgate.admin import pricing, visibility
from tollgate.admin.pricing import Pricing
from tollgate.admin.visibility import Visibility
from tollgate.catalog import store
from tollgate.catalog.cache import Catalog
from tollgate.core.errors import BadRequest, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Listed, Moment, Page, Written, refusals

STABLE = {"x-stability": "stable"}
MOST_TOKENS = 1_000_000_000

Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]
RouteId = Annotated[Word, Path(description="The route's id.", examples=["rte_019aa5c1d2e37f60"])]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
State = Literal["active", "disabled"]


class Architecture(Written):
    modality: Word = Field(examples=["text->text"])
    input_modalities: list[Word] = Field(max_length=20, examples=[["text"]])
    output_modalities: list[Word] = Field(max_length=20, examples=[["text"]])
    tokenizer: Word = Field(examples=["Llama3"])
    instruct_type: Word | None


class Listing(Written):
    """What GET /v1/models says of a model that OpenRouter does not list. What is left out is made up."""

    name: str = Field("", max_length=200, pattern=r"^[^\x00]*$")
    description: str = Field("", max_length=5000, pattern=r"^[^\x00]*$")
    hugging_face_id: Word | None = None
    architecture: Architecture | None = None
    supported_parameters: list[Word] = Field([], max_length=100)
    knowledge_cutoff: Word | None = None


class PutRoute(Written):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "our/llama",
                    "upstream_id": "ups_019aa5c1d2e37f60",
                    "upstream_model": "meta-llama/Llama-3.3-70B-Instruct",
                    "pricing": pricing.EXAMPLE,
                    "context_tokens": 131_072,
                    "priority": 50,
                }
            ]
        }
    )

    model: Word = Field(description="What clients ask for; with the upstream it names the route.")
    upstream_id: Word = Field(description="Which server serves it.")
    upstream_model: Word | None = Field(None, description="Its name there. Default: the same.")
    pricing: Pricing | None = Field(None, description="What it costs before the markup. A new route needs it.")
    context_tokens: Tokens | None = Field(None, description="The longest prompt and answer together.")
    most_output: Tokens | None = Field(None, description="The longest answer.")
    priority: int = Field(50, ge=0, le=1000, description="Lower ones first; OpenRouter's own routes have 100.")
    weight: int = Field(1, ge=1, le=1000, description="The chance among those of one priority.")
    listing: Listing = Listing()
    state: State = "active"


class Route(BaseModel):
    id: str
    model: str
    upstream_id: str
    upstream_model: str
    pricing: dict[str, Any]
    context_tokens: int | None
    most_output: int | None
    priority: int
    weight: int
    listing: dict[str, Any]
    state: State
    created_at: Moment
    updated_at: Moment


class WrittenRoute(Route):
    created: bool = Field(description="Whether it is new; else what was named of it is changed.")
    visible: Visibility


class RemovedRoute(BaseModel):
    id: str
    visible: Visibility


class RouteFilters(Listed):
    model: Word | None = Field(None, description="Only routes of this model.")
    upstream_id: Word | None = Field(None, description="Only routes to this upstream.")
    state: State | None = None
    sort: Literal["created_at:desc", "created_at:asc", "model:asc", "model:desc"] = "created_at:desc"


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
        return WrittenRoute(**done["route"], created=done["created"], visible=await visibility.of_change(catalog))

    @routes.get("/{route_id}", summary="One route", responses=refusals(BadRequest, NotFound), openapi_extra=STABLE)
    async def one(door: Annotated[Door, Depends(gate.open)], route_id: RouteId) -> Route:
        return Route(**(await store.route(door, route_id))["route"])

    @routes.delete(
        "/{route_id}", summary="Remove a route", responses=refusals(BadRequest, NotFound), openapi_extra=STABLE
    )
    async def remove(door: Annotated[Door, Depends(gate.open)], route_id: RouteId) -> RemovedRoute:
        gone = await store.delete_route(door, route_id)
        return RemovedRoute(id=gone["id"], visible=await visibility.of_change(catalog))

    return routes
