"""Orgs, as operators write and see them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.keys.schemas import CACHE_SETTING, Models
from tollgate.limits.schemas import OPEN_REQUESTS, Limit, WindowLimits
from tollgate.people.schemas import BYOK_FEE, ByokFee, Markup
from tollgate.web.schemas import Amounts, ChangeBody, Credits, Identifier, Line, Moment, Name, PageQuery

OrgStatus = Literal["active", "suspended"]
PaidCalls = Literal["active", "suspended"]
OWN_MARKUP = "0.05 is 5 %, in steps of a millionth; null uses the markup of the plan."


class Org(Amounts):
    id: str
    name: str
    plan: str
    status: OrgStatus
    markup: float | None = Field(description="0.05 charges 5 % above the cost; null uses the markup of the plan.")
    byok_fee_nanos: int | None = Field(description=BYOK_FEE + "Null uses the fee of the plan.")
    byok_fee_credits: Credits | None
    limits: WindowLimits = Field(description="The own limits of the org; null uses the limit of the plan.")
    max_concurrent_requests: int | None = Field(description=OPEN_REQUESTS + "Null uses the bound of the plan.")
    allowed_models: list[str] | None = Field(
        None, description="Patterns of the models that the org may use; * matches any characters. Null is all."
    )
    default_model: str | None = Field(
        None, description="The model or alias of calls that name none; null uses the setting DEFAULT_MODEL."
    )
    open_requests: int = Field(description="How many requests are open now.")
    cache: bool = Field(description=CACHE_SETTING.strip())
    paid_calls: PaidCalls = Field(description="While suspended, paid calls are refused; other calls are served.")
    paid_suspended_at: Moment | None
    paid_suspended_reason: str | None = Field(description="`quarantined_usage` or `operator`.")
    credits: Credits = Field(description="The balance in credits; 1 credit is 1 US dollar.")
    credits_nanos: int = Field(description="The balance in nanos (1e-9 credit).")
    held_nanos: int = Field(description="What open requests hold.")
    held_credits: Credits
    available_nanos: int = Field(description="Balance less held.")
    available_credits: Credits
    users: int = Field(description="How many users the org has.")
    created_at: Moment
    updated_at: Moment


class CreatedOrg(Org):
    same_name: list[str] = Field(
        description="The ids of other orgs with this name (case-insensitive), at most 10. Names need not be unique."
    )


class NewOrg(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Acme", "plan": "pro"}]})

    name: Name
    plan: Name = Field("free", description="The id of a plan.")
    markup: Markup | None = Field(None, description=OWN_MARKUP)


class OrgChanges(ChangeBody):
    """A field that is null or left out stays as it is, except markup, byok_fee_nanos, limits,
    max_concurrent_requests, allowed_models and default_model: there null removes the org's own value."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"markup": 0.05, "limits": {"requests_per_minute": 600}}, {"status": "suspended"}]
        }
    )

    name: Name | None = None
    plan: Name | None = Field(None, description="The id of a plan.")
    status: OrgStatus | None = Field(None, description="Suspending an org stops all its keys at once.")
    markup: Markup | None = Field(None, description=OWN_MARKUP)
    byok_fee_nanos: ByokFee | None = Field(None, description=BYOK_FEE + "Null uses the fee of the plan.")
    limits: WindowLimits | None = Field(
        None, description="Changes the limits that it names; null removes all own limits."
    )
    max_concurrent_requests: Limit | None = Field(None, description=OPEN_REQUESTS + "Null uses the bound of the plan.")
    allowed_models: Models | None = Field(
        None,
        description="The models that the org may use, whatever its keys allow; * matches any characters. Null is all.",
    )
    default_model: Identifier | None = Field(
        None, description="The model or alias of calls that name none. Null uses the setting DEFAULT_MODEL."
    )
    cache: bool | None = Field(None, description=CACHE_SETTING.strip())
    paid_calls: PaidCalls | None = Field(
        None,
        description="Whether paid calls are served. Tollgate suspends them by itself when the reported usage of two "
        "requests within an hour cannot be correct.",
    )


class OrgFilters(PageQuery):
    q: Line | None = Field(None, description="Part of the name (case-insensitive), or the whole id.")
    plan: Line | None = Field(None, description="Only orgs on this plan.")
    status: OrgStatus | None = None
    sort: Literal["created_at:desc", "created_at:asc", "name:asc", "name:desc", "credits:desc", "credits:asc"] = (
        "created_at:desc"
    )


class LookupQuery(BaseModel):
    """A search for a picker."""

    model_config = ConfigDict(extra="forbid")

    q: Line | None = Field(None, description="Part of the name (case-insensitive), or the whole id.")
    limit: int = Field(20, ge=1, le=1000)

    def filters(self, sort: str) -> dict[str, str]:
        return {"sort": sort} | ({"q": self.q} if self.q else {})


class OrgChoice(BaseModel):
    id: str
    name: str


class OrgChoices(BaseModel):
    data: list[OrgChoice]


class Deleted(BaseModel):
    id: str
    deleted: Literal[True]
