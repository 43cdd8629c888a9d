"""Plans, as operators write and see them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tollgate.limits.schemas import AT_ONCE, Limit, Limits
from tollgate.people.rules import Line, Markup, Name, Words
from tollgate.web.schemas import Listed, Moment, Written

OWN_MARKUP = "0.05 charges 5 % above the cost, in steps of a millionth; null is the setting MARKUP."


class Plan(BaseModel):
    id: str
    name: str
    description: str
    markup: float | None = Field(description=OWN_MARKUP)
    limits: Limits = Field(description="A null is no limit.")
    max_concurrent_requests: int | None = Field(description=AT_ONCE + "Null is no bound.")
    orgs: int = Field(description="How many orgs are on it.")
    created_at: Moment
    updated_at: Moment


class NewPlan(Written):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "team", "name": "Team", "markup": 0.1, "limits": {"requests_per_minute": 300}}]
        }
    )

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    name: Name
    description: Words = ""
    markup: Markup | None = Field(None, description=OWN_MARKUP)
    limits: Limits = Field(default_factory=Limits, description="A null is no limit.")
    max_concurrent_requests: Limit | None = Field(None, description=AT_ONCE + "Null is no bound.")


class PlanChanges(Written):
    """What is left out stays as it is, as does what is null, but for markup, max_concurrent_requests and
    the single limits."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"tokens_per_day": None}}]})

    name: Name | None = None
    description: Words | None = None
    markup: Markup | None = Field(None, description=OWN_MARKUP)
    limits: Limits | None = Field(None, description="Those named are changed; a null is no limit.")
    max_concurrent_requests: Limit | None = Field(None, description=AT_ONCE + "Null is no bound.")


class PlansAsked(Listed):
    q: Line | None = Field(None, description="Part of the id or name, in capitals or not.")
    sort: Literal["id:asc", "id:desc", "name:asc", "name:desc", "created_at:asc", "created_at:desc"] = "id:asc"


class PlanAssignment(Written):
    """Whom: exactly one of org_id and user_id. A user stands for the org he belongs to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"org_id": "org_0193", "plan": "pro"}]})

    org_id: Line | None = None
    user_id: Line | None = Field(None, description="The org of this user.")
    plan: Name = Field(description="The id of a plan.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.org_id is None) == (self.user_id is None):
            raise ValueError("name exactly one of org_id and user_id")
        return self
