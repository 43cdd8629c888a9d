"""Routes to your own servers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.admin.schemas import pricing
from tollgate.admin.schemas.pricing import Pricing
from tollgate.catalog.schemas import Visibility
from tollgate.web.schemas import Listed, Moment, Written

MOST_TOKENS = 1_000_000_000


Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]


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
