"""Models as GET /v1/models lists them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

USUAL_MODALITIES = "text,embeddings"


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


class Visibility(BaseModel):
    """When a change to upstreams and routes takes effect."""

    here: bool = Field(description="Whether the instance that answered already uses it.")
    elsewhere_within_seconds: int = Field(description="When the last of the other instances will.", examples=[300])
