"""The responses of GET /user/monitor and GET /user/key/usage."""

from typing import Any

from pydantic import BaseModel, Field, model_validator

from tollgate.account.schemas.profile import AllLimits, OwnBalance
from tollgate.usage.schemas import Aggregate, Series
from tollgate.web.schemas import Amounts, Credits, Moment


class OrgUsage(Amounts):
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    tokens: int
    average_tokens: float | None = Field(description="Tokens by request; null without requests.")
    charge_nanos: int
    charge_credits: Credits
    most_used_model: str | None = Field(description="The model with the most requests.")
    last_request_at: Moment | None

    @model_validator(mode="before")
    @classmethod
    def _with_tokens(cls, found: dict[str, Any]) -> dict[str, Any]:
        tokens = found["prompt_tokens"] + found["completion_tokens"]
        average = tokens / found["requests"] if found["requests"] else None
        return found | {"tokens": tokens, "average_tokens": average}


class OrgUsageOverTime(BaseModel):
    today: OrgUsage = Field(description="Since midnight UTC.")
    this_month: OrgUsage = Field(description="Since the first of the month, UTC.")
    all_time: OrgUsage


class MonitorBudget(Amounts):
    limit_nanos: int
    limit_credits: Credits
    spent_nanos: int
    spent_credits: Credits
    remaining_nanos: int
    remaining_credits: Credits
    resets_at: Moment | None = Field(description="Null: never.")


class MonitorQuota(BaseModel):
    limit: int
    used: int
    remaining: int
    resets_at: Moment | None = Field(description="Null: never.")


class Allowances(BaseModel):
    budget: MonitorBudget | None = Field(description="The key's budget in credits; null: none.")
    tokens_in_month: MonitorQuota | None = Field(description="The key's monthly quota; null: none.")
    tokens_in_all: MonitorQuota | None = Field(description="The key's lifetime quota; null: none.")


class OwnMonitor(OwnBalance):
    at: Moment
    usage: OrgUsageOverTime = Field(description="The usage of the whole org.")
    limits: AllLimits = Field(description="As in /user/limit.")
    allowances: Allowances = Field(description="What this key may still spend and use.")


class OwnOverview(OwnMonitor):
    series: Series
    models: Aggregate = Field(description="The ten models that cost most.")


class OwnUsage(BaseModel):
    org_id: str
    user_id: str
    name: str = Field(description="The name of the key.")
    quota_used: int = Field(
        description="Tokens used this month (UTC). With a quota, tokens reserved by open requests count too."
    )
    quota_monthly: int | None = Field(description="The most tokens a month; null is no quota.")
    quota_reset_at: Moment
    rpm_limit: int | None = Field(
        description="The most requests a minute, by the limit of the key or of the org; null is no limit."
    )
    rpm_remaining: int | None
    total_requests: int
    total_tokens: int
    total_prompt_tokens: int
    total_completion_tokens: int
    first_request_at: Moment | None = Field(description="Only the day is exact once the request itself was deleted.")
    last_request_at: Moment | None

    @model_validator(mode="before")
    @classmethod
    def _with_totals(cls, found: dict[str, Any]) -> dict[str, Any]:
        total = found["total"]
        return found | {
            "total_requests": total["requests"],
            "total_tokens": total["prompt_tokens"] + total["completion_tokens"],
            "total_prompt_tokens": total["prompt_tokens"],
            "total_completion_tokens": total["completion_tokens"],
            "last_request_at": total["last_request_at"],
        }
