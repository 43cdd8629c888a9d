"""Aliases: names of your own for models."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.admin.schemas.registry import DEPRECATED_ON, REPLACEMENT, RETIRES_ON, Day, ServingState
from tollgate.catalog.schemas import Visibility
from tollgate.web.faults import NO_NUL
from tollgate.web.schemas import ChangeBody, Identifier, Moment, PageQuery

MOST_NAMES = 16


class AliasTarget(ChangeBody):
    model: Identifier = Field(description="A model, not another alias.")
    upstream_id: Identifier | None = Field(
        None, description="Only the route to this upstream: an id, or `openrouter`. Default: all routes of the model."
    )
    weight: int = Field(1, ge=1, le=1000, description="The share of keys and sessions that get this target.")


class PutAlias(ChangeBody):
    """Fields that are left out stay as they are. A new alias needs targets."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "fast",
                    "targets": [
                        {"model": "openai/gpt-4o-mini", "weight": 9},
                        {"model": "our/llama", "weight": 1},
                    ],
                    "fallbacks": ["mistralai/mistral-small"],
                }
            ]
        }
    )

    name: Identifier = Field(description="The name that clients use. The name of a model overrides that model.")
    targets: Annotated[list[AliasTarget], Field(min_length=1, max_length=MOST_NAMES)] | None = Field(
        None, description="One of them serves a call: always the same one for the same key or session_id."
    )
    fallbacks: list[Identifier] = Field(
        [], max_length=MOST_NAMES, description="Models that are tried in this order when the target fails."
    )
    description: str = Field("", max_length=500, pattern=NO_NUL)
    deprecated_on: Day | None = Field(None, description=DEPRECATED_ON)
    retires_on: Day | None = Field(None, description=RETIRES_ON)
    replacement: Identifier | None = Field(None, description=REPLACEMENT)
    state: ServingState = "active"


class TargetDetails(BaseModel):
    model: str
    upstream_id: str | None = None
    weight: int


class AliasDetails(BaseModel):
    name: str
    targets: list[TargetDetails]
    fallbacks: list[str]
    description: str
    deprecated_on: str | None
    retires_on: str | None
    replacement: str | None
    state: ServingState
    created_at: Moment
    updated_at: Moment


class ChangedAlias(AliasDetails):
    created: bool = Field(description="Whether the alias is new; otherwise the fields that were sent changed.")
    not_served: list[str] = Field(
        description="The targets and fallbacks that do not exist, or that no upstream serves now. Calls leave them out."
    )
    visible: Visibility


class RemovedAlias(BaseModel):
    name: str
    visible: Visibility


class AliasFilters(PageQuery):
    model: Identifier | None = Field(None, description="Only aliases that may stand for this model.")
    state: ServingState | None = None
    sort: Literal["name:asc", "name:desc", "created_at:asc", "created_at:desc"] = "name:asc"
