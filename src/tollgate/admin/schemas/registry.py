"""Routes to your own servers."""

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tollgate.admin.schemas import pricing
from tollgate.admin.schemas.pricing import RoutePricing
from tollgate.catalog.schemas import Visibility
from tollgate.web.faults import NO_NUL
from tollgate.web.older_names import OlderNames
from tollgate.web.schemas import PLAIN_DATE, ChangeBody, Identifier, Moment, PageQuery, exactly_one

MOST_TOKENS = 1_000_000_000
TokenCount = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
ServingState = Literal["active", "disabled"]


def _plain(value: object) -> object:
    """Refuses numbers, which pydantic reads as seconds since 1970, and times."""
    if isinstance(value, str) and PLAIN_DATE.fullmatch(value):
        return value
    raise PydanticCustomError("date", "Send a date, such as 2027-01-31")


Day = Annotated[date, Field(ge=date(2000, 1, 1), le=date(9998, 12, 31)), BeforeValidator(_plain)]
DEPRECATED_ON = "Since when clients are asked to leave the model; the header `deprecation` tells them."
RETIRES_ON = (
    "The last day (UTC) of service; the header `sunset` tells clients. Afterwards calls are refused, unless the model "
    "has another route."
)
REPLACEMENT = "The model to use instead. Clients are told; their requests are not redirected."


def _without_end(url: str) -> str:
    return url.rstrip("/")


BaseUrl = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=r"^https?://[!-~]+$",
        description="The address of its API, to which paths such as /chat/completions are appended. Private addresses "
        "need PRIVATE_UPSTREAMS; the metadata addresses of cloud hosts are never allowed.",
        examples=["http://10.0.0.7:8000/v1"],
    ),
    AfterValidator(_without_end),
]


class Architecture(ChangeBody):
    """What goes into the model and comes out of it. A text to a text, where it is not said."""

    modality: Identifier = Field("text->text", examples=["text->rerank"], description="By default, of the two below.")
    input_modalities: list[Identifier] = Field(["text"], max_length=20, examples=[["text"]])
    output_modalities: list[Identifier] = Field(
        ["text"],
        max_length=20,
        examples=[["rerank"]],
        description="Which endpoints GET /v1/models tells: text, embeddings, rerank, moderation, image, speech or "
        "transcription.",
    )
    tokenizer: Identifier = Field("Other", examples=["Llama3"])
    instruct_type: Identifier | None = None


class Listing(ChangeBody):
    """What GET /v1/models shows of a model that OpenRouter does not list. Fields that are left out get defaults."""

    name: str = Field("", max_length=200, pattern=NO_NUL)
    description: str = Field("", max_length=5000, pattern=NO_NUL)
    hugging_face_id: Identifier | None = None
    architecture: Architecture | None = None
    supported_parameters: list[Identifier] = Field([], max_length=100)
    knowledge_cutoff: Identifier | None = None


class PutRoute(OlderNames, ChangeBody):
    older_names = {"served_name": "model"}  # noqa: RUF012  # not a field

    model_config = ConfigDict(
        json_schema_extra={
            **exactly_one("upstream_id", "url"),
            "examples": [
                {
                    "model": "our/llama",
                    "upstream_id": "ups_019aa5c1d2e37f60",
                    "upstream_model": "meta-llama/Llama-3.3-70B-Instruct",
                    "pricing": pricing.EXAMPLE,
                    "context_tokens": 131_072,
                    "priority": 50,
                }
            ],
        }
    )

    model: Identifier = Field(description="The name that clients use. Model and upstream together identify the route.")
    upstream_id: Identifier | None = Field(None, description="The server.")
    url: BaseUrl | None = Field(None, description="In place of upstream_id: the base_url of a server that is there.")
    upstream_model: Identifier | None = Field(None, description="The name on that server. Default: the same name.")
    pricing: RoutePricing | None = Field(None, description="The price before the markup. A new route needs one.")
    context_tokens: TokenCount | None = Field(None, description="The most tokens of prompt and answer together.")
    most_output: TokenCount | None = Field(None, description="The most tokens of an answer.")
    priority: int = Field(
        50, ge=0, le=1000, description="Routes with a lower number come first; OpenRouter's routes have 100."
    )
    weight: int = Field(1, ge=1, le=1000, description="The share of requests among routes of the same priority.")
    listing: Listing = Listing()
    deprecated_on: Day | None = Field(None, description=DEPRECATED_ON)
    retires_on: Day | None = Field(None, description=RETIRES_ON)
    replacement: Identifier | None = Field(None, description=REPLACEMENT)
    state: ServingState = "active"

    @model_validator(mode="after")
    def _has_a_server(self) -> Self:
        if (self.upstream_id is None) is (self.url is None):
            raise PydanticCustomError("server", "Send upstream_id or url")
        return self


class RouteDetails(BaseModel):
    id: str
    model: str
    upstream_id: str
    upstream_name: str
    upstream_model: str
    pricing: dict[str, Any]
    context_tokens: int | None
    most_output: int | None
    priority: int
    weight: int
    listing: dict[str, Any]
    deprecated_on: str | None
    retires_on: str | None
    replacement: str | None
    state: ServingState
    created_at: Moment
    updated_at: Moment


class ChangedRoute(RouteDetails):
    created: bool = Field(description="Whether the route is new; otherwise the fields that were sent changed.")
    visible: Visibility


class RemovedRoute(BaseModel):
    id: str
    visible: Visibility


class RouteFilters(PageQuery):
    model: Identifier | None = Field(None, description="Only routes of this model.")
    upstream_id: Identifier | None = Field(None, description="Only routes to this upstream.")
    state: ServingState | None = None
    sort: Literal["created_at:desc", "created_at:asc", "model:asc", "model:desc"] = "created_at:desc"
