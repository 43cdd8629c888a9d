"""Plans, as operators write and see them."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from tollgate.limits.schemas import OPEN_REQUESTS, Limit, WindowLimits
from tollgate.people.schemas import BYOK_FEE, ByokFee, Markup
from tollgate.web.faults import NO_NUL
from tollgate.web.schemas import Amounts, ChangeBody, Credits, Line, Moment, Name, PageQuery, exactly_one

Description = Annotated[str, Field(max_length=2000, pattern=NO_NUL)]
PLAN_MARKUP = "0.05 charges 5 % above the cost, in steps of a millionth; null uses the setting MARKUP."
PLAN_FEE = BYOK_FEE + "Null uses the setting BYOK_FEE."


class Plan(Amounts):
    id: str
    name: str
    description: str
    markup: float | None = Field(description=PLAN_MARKUP)
    byok_fee_nanos: int | None = Field(description=PLAN_FEE)
    byok_fee_credits: Credits | None
    limits: WindowLimits = Field(description="Null is no limit.")
    max_concurrent_requests: int | None = Field(description=OPEN_REQUESTS + "Null is no bound.")
    orgs: int = Field(description="How many orgs are on the plan.")
    created_at: Moment
    updated_at: Moment


class NewPlan(ChangeBody):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "team", "name": "Team", "markup": 0.1, "limits": {"requests_per_minute": 300}}]
        }
    )

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    name: Name
    description: Description = ""
    markup: Markup | None = Field(None, description=PLAN_MARKUP)
    byok_fee_nanos: ByokFee | None = Field(None, description=PLAN_FEE)
    limits: WindowLimits = Field(default_factory=WindowLimits, description="Null is no limit.")
    max_concurrent_requests: Limit | None = Field(None, description=OPEN_REQUESTS + "Null is no bound.")


class PlanChanges(ChangeBody):
    """A field that is null or left out stays as it is, except markup, byok_fee_nanos, max_concurrent_requests and the
    single limits: there null removes the value."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"tokens_per_day": None}}]})

    name: Name | None = None
    description: Description | None = None
    markup: Markup | None = Field(None, description=PLAN_MARKUP)
    byok_fee_nanos: ByokFee | None = Field(None, description=PLAN_FEE)
    limits: WindowLimits | None = Field(None, description="Changes the limits that it names; null is no limit.")
    max_concurrent_requests: Limit | None = Field(None, description=OPEN_REQUESTS + "Null is no bound.")


class PlanFilters(PageQuery):
    q: Line | None = Field(None, description="Part of the id or name (case-insensitive).")
    sort: Literal["id:asc", "id:desc", "name:asc", "name:desc", "created_at:asc", "created_at:desc"] = "id:asc"


class PlanAssignment(ChangeBody):
    """The org and its new plan. Send exactly one of org_id and user_id; a user_id stands for the org of that user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"org_id": "org_0193", "plan": "pro"}],
            **exactly_one("org_id", "user_id"),
        }
    )

    org_id: Line | None = None
    user_id: Line | None = Field(None, description="The org of this user.")
    plan: Name = Field(description="The id of a plan.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.org_id is None) == (self.user_id is None):
            raise ValueError("send exactly one of org_id and user_id")
        return self
