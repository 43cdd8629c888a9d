"""The catalog with prices and routes, for operators."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from tollgate.upstreams.breaker import State as BreakerState
from tollgate.web.schemas import Moment, PageQuery, Text

Health = Literal["up", "down"]


class ModelsQuery(PageQuery):
    q: Text | None = Field(None, description="Part of the id or name.")
    for_org: Text | None = Field(None, description="charged_pricing has the markup of this org. Default: MARKUP.")
    for_plan: Text | None = Field(None, description="charged_pricing has the markup of this plan.")
    sort: Literal[
        "id:asc", "id:desc", "prompt:asc", "prompt:desc", "completion:asc", "completion:desc",
        "context_length:asc", "context_length:desc", "created_at:asc", "created_at:desc",
    ] = Field("id:asc", description="prompt and completion are the prices.")  # fmt: skip


class RouteOfModel(BaseModel):
    upstream_id: str
    upstream_name: str | None
    upstream_model: str = Field(description="The upstream's name for the model.")
    priority: int = Field(description="Lower ones are tried first.")
    weight: int = Field(description="The share of requests among routes of the same priority.")
    pricing: dict[str, str] | None = Field(description="Null without a usable price.")
    context_tokens: int | None
    most_output: int | None
    health: Health | None = Field(description="The last health check; null for OpenRouter and before the first.")
    breaker: BreakerState | None = Field(
        description="On the instance that answered, for this model; null before its first call to the upstream."
    )


class PricedModel(BaseModel):
    id: str
    name: str
    owned_by: str
    created_at: Moment | None
    context_length: int | None
    input_modalities: list[str]
    output_modalities: list[str]
    pricing: dict[str, Any] = Field(description="What the upstream charges: US dollars per token, request or piece.")
    charged_pricing: dict[str, Any] = Field(description="The same with the markup.")
    routes: list[RouteOfModel] = Field(description="In the order in which they are tried.")
