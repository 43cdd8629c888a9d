"""GET /user/monitor and GET /v1/me/usage: what a key's owner sees at one look."""

from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel, Field, model_validator

from tollgate.core.money import to_credits
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import masked
from tollgate.limits.schemas import Concurrent
from tollgate.usage import monitor as usage
from tollgate.web.routing import Routes
from tollgate.web.schemas import Moment, refusals


class OrgUsed(BaseModel):
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    tokens: int
    average_tokens: float | None = Field(description="A request; null without any.")
    charge_nanos: int
    charge_credits: float
    most_used_model: str | None = Field(description="What most requests were for.")
    last_request_at: Moment | None

    @model_validator(mode="before")
    @classmethod
    def _reckoned(cls, found: dict[str, Any]) -> dict[str, Any]:
        tokens = found["prompt_tokens"] + found["completion_tokens"]
        return found | {
            "tokens": tokens,
            "average_tokens": tokens / found["requests"] if found["requests"] else None,
            "charge_credits": to_credits(found["charge_nanos"]),
        }


class OrgUsedOverTime(BaseModel):
    today: OrgUsed = Field(description="Since midnight UTC.")
    this_month: OrgUsed = Field(description="Since the first of the month, UTC.")
    all_time: OrgUsed


class OpenWindow(BaseModel):
    limit: int
    used: int = Field(description="Of a sliding window: what is less than a minute, an hour or a day old.")
    remaining: int
    resets_at: Moment | None = Field(description="When all of it is free again if nothing more comes; null if it is.")


class OpenWindows(BaseModel):
    minute: OpenWindow | None = Field(description="Null: no limit.")
    hour: OpenWindow | None
    day: OpenWindow | None


class OpenLimits(BaseModel):
    requests: OpenWindows
    tokens: OpenWindows
    concurrent: Concurrent | None = Field(description="Null: no bound.")


class OpenLimitsOfAll(BaseModel):
    org: OpenLimits = Field(description="Shared by all keys of the org.")
    key: OpenLimits = Field(description="This key's own, within the org's.")


class OpenBudget(BaseModel):
    limit_nanos: int
    spent_nanos: int
    remaining_nanos: int
    resets_at: Moment | None = Field(description="Null: never.")


class OpenQuota(BaseModel):
    limit: int
    used: int
    remaining: int
    resets_at: Moment | None = Field(description="Null: never.")


class Allowances(BaseModel):
    budget: OpenBudget | None = Field(description="Of credits. Null: none, as of the others.")
    tokens_in_month: OpenQuota | None
    tokens_in_all: OpenQuota | None


class OwnMonitor(BaseModel):
    at: Moment
    key: str = Field(description="The key of this request, masked.")
    org_id: str
    user_id: str
    plan: str
    credits: float = Field(description="The balance in credits, for people; 1 credit is 1 US dollar.")
    credits_nanos: int
    held_nanos: int
    available_nanos: int
    usage: OrgUsedOverTime = Field(description="Of the whole org, which pays.")
    limits: OpenLimitsOfAll
    allowances: Allowances = Field(description="What the key itself may still spend and use.")

    @model_validator(mode="before")
    @classmethod
    def _shown(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {
            "key": masked(found["prefix"], found["last_four"]),
            "credits": to_credits(found["balance_nanos"]),
            "credits_nanos": found["balance_nanos"],
            "available_nanos": found["balance_nanos"] - found["held_nanos"],
        }


class OwnUsage(BaseModel):
    org_id: str
    user_id: str
    name: str = Field(description="Of the key.")
    quota_used: int = Field(
        description="Tokens used this month, UTC; with a quota, running requests' reserved ones too."
    )
    quota_monthly: int | None = Field(description="Most tokens a month; null is no quota.")
    quota_reset_at: Moment
    rpm_limit: int | None = Field(
        description="Requests a minute, of the key's own limit or the org's; null is no limit."
    )
    rpm_remaining: int | None
    total_requests: int
    total_tokens: int
    total_prompt_tokens: int
    total_completion_tokens: int
    first_request_at: Moment | None = Field(description="To the day, where the request itself is no longer kept.")
    last_request_at: Moment | None

    @model_validator(mode="before")
    @classmethod
    def _summed(cls, found: dict[str, Any]) -> dict[str, Any]:
        total = found["total"]
        return found | {
            "total_requests": total["requests"],
            "total_tokens": total["prompt_tokens"] + total["completion_tokens"],
            "total_prompt_tokens": total["prompt_tokens"],
            "total_completion_tokens": total["completion_tokens"],
            "last_request_at": total["last_request_at"],
        }


def router(gate: Gate) -> Routes:
    routes = Routes()

    @routes.get(
        "/user/monitor",
        summary="Balance, usage and what remains of the limits, at one look",
        responses=refusals(),
        openapi_extra={"x-stability": "stable"},
    )
    async def monitor(door: Annotated[Door, Depends(gate.open)]) -> OwnMonitor:
        return OwnMonitor.model_validate(await usage.of_org(door))

    @routes.get(
        "/v1/me/usage",
        summary="What this key has used, and may still use",
        responses=refusals(),
        openapi_extra={"x-stability": "stable"},
    )
    async def key_usage(door: Annotated[Door, Depends(gate.open)]) -> OwnUsage:
        return OwnUsage.model_validate(await usage.of_key(door))

    return routes
