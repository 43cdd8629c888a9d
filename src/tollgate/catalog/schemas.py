"""Models as GET /v1/models lists them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_MODALITIES = "text,embeddings"
MOST_LISTED = 100_000


class ServedEndpoint(BaseModel):
    path: str = Field(examples=["/v1/chat/completions"])
    served: Literal["passed", "translated", "estimated"] = Field(
        description="passed: a server of the model has the endpoint. translated: its servers get a chat completion. "
        "estimated: Tollgate answers by itself."
    )


class Deprecation(BaseModel):
    deprecated_on: str | None = Field(description="Since when clients are asked to use another model.")
    retires_on: str | None = Field(description="The last day (UTC) on which the model is served; null for no end.")
    replacement: str | None = Field(description="The model to use instead.")


class ListedModel(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str = Field(description="The name to send as `model`.", examples=["openai/gpt-4o-mini"])
    object: Literal["model"]
    created: int
    owned_by: str = Field(description="The author's part of the id.", examples=["openai"])
    name: str
    context_length: int | None
    architecture: dict[str, Any]
    pricing: dict[str, Any] = Field(
        description="US dollars per token, request or piece, with the markup that this key is charged. "
        "-1: no fixed price; a request for the model needs provider.max_price.",
        examples=[{"prompt": "0.0000001575", "completion": "0.00000063"}],
    )
    top_provider: dict[str, Any]
    per_request_limits: dict[str, Any] | None
    supported_parameters: list[str]
    endpoints: list[ServedEndpoint] = Field(description="The endpoints at which the model is served.")
    alias_of: list[str] = Field([], description="Of an alias: the models that may answer. Absent for a model.")
    deprecation: Deprecation | None = Field(None, description="Absent while no end is planned.")


class Links(BaseModel):
    next: str | None = Field(description="The path of the next page; null on the last page.")


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ListedModel] = Field(description="All fields of OpenRouter and of OpenAI.")
    total_count: int = Field(description="How many models all pages have.")
    links: Links
    default_model: str | None = Field(description="The model or alias of calls that name none; null: name one.")


class ModelsCounted(BaseModel):
    count: int


class ModelCount(BaseModel):
    data: ModelsCounted


class ModelEndpoint(BaseModel):
    name: str
    model_id: str
    model_name: str
    provider_name: str = Field(description="The id of the upstream.")
    tag: str = Field(description="The same.")
    context_length: int = Field(description="0 where it is not known.")
    max_completion_tokens: int | None
    max_prompt_tokens: None = None
    pricing: dict[str, Any] = Field(description="As GET /v1/models has it, for this upstream.")
    supported_parameters: list[str]
    supports_tool_choice: dict[str, bool]
    supports_implicit_caching: Literal[False] = False
    supports_diarization: Literal[False] = False
    native_tools: dict[str, Any] = {}
    quantization: None = None
    service_tier: None = None
    status: Literal[0] = 0
    latency_last_30m: None = None
    throughput_last_30m: None = None
    uptime_last_5m: None = None
    uptime_last_30m: None = None
    uptime_last_1d: None = None


class EndpointsOfModel(BaseModel):
    id: str
    name: str
    created: int
    description: str
    architecture: dict[str, Any]
    endpoints: list[ModelEndpoint]


class ModelEndpoints(BaseModel):
    data: EndpointsOfModel


class Provider(BaseModel):
    name: str = Field(description="The id of the upstream.")
    slug: str = Field(description="The same.")
    privacy_policy_url: None = None
    terms_of_service_url: None = None
    status_page_url: None = None
    headquarters: None = None
    datacenters: None = None


class Providers(BaseModel):
    data: list[Provider]


class ModalityFilter(BaseModel):
    model_config = ConfigDict(extra="ignore")

    output_modalities: str = Field(
        DEFAULT_MODALITIES,
        max_length=200,
        description="Only models with one of these output modalities, separated by commas: text, embeddings, image, "
        "audio …; `all` lists every model.",
    )

    @property
    def modalities(self) -> frozenset[str]:
        return frozenset(self.output_modalities.split(","))


class PagedModels(ModalityFilter):
    offset: int = Field(0, ge=0, le=MOST_LISTED, description="How many models to skip.")
    limit: int = Field(MOST_LISTED, ge=1, le=MOST_LISTED, description="The most models to list. Default: all.")


class ModelFilters(PagedModels):
    usable: bool = Field(False, description="Whether to list only models that this key may use.")


class Visibility(BaseModel):
    """When a change to upstreams and routes takes effect."""

    here: bool = Field(description="Whether the instance that answered already uses it.")
    elsewhere_within_seconds: int = Field(description="When the last of the other instances will.", examples=[300])
