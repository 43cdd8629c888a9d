"""The account in the shapes of OpenRouter's API. Amounts are in credits, and state what the org is charged."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, Field

from tollgate.core.errors import BadRequest
from tollgate.core.money import credits_float
from tollgate.keys import rules as keys
from tollgate.usage.request import attempts_of
from tollgate.web.schemas import Day, Identifier, Line, Moment, QueryModel

NO_LIMIT: Final = 2**53 - 1
"""Where OpenRouter's clients need a number: the largest that all of them read exactly."""
NO_RATE_LIMIT: Final = -1
FREE_PLAN: Final = "free"
PAID_SCOPES: Final = frozenset(("chat", "completions", "embeddings"))
COMPLETED_DAYS: Final = 30
OF_NO_UPSTREAM: Final = "none"
DEPRECATED: Final = "Deprecated. The headers x-ratelimit-* of each paid call say what its limits leave."


class CreditsData(BaseModel):
    total_credits: float = Field(description="All that the org was given: its balance and what it was charged.")
    total_usage: float = Field(description="What the org was charged since it was made.")


class OpenRouterCredits(BaseModel):
    data: CreditsData

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        charged = found["charge_nanos"]
        total = credits_float(found["balance_nanos"] + charged)
        return cls(data=CreditsData(total_credits=total, total_usage=credits_float(charged)))


class KeyBudget(BaseModel):
    scope: Literal["key_limit"] = "key_limit"
    budget_id: None = None
    guardrail_id: None = None
    include_byok: Literal[False] = False
    limit_usd: float
    spend_usd: float
    remaining_usd: float
    reset_interval: str | None
    resets_at: Moment | None

    @classmethod
    def of(cls, key: Mapping[str, Any]) -> Self | None:
        limit, spent = key["budget_nanos"], key["budget_spent_nanos"]
        if limit is None:
            return None
        return cls(
            limit_usd=credits_float(limit),
            spend_usd=credits_float(spent),
            remaining_usd=credits_float(max(0, limit - spent)),
            reset_interval=_reset_of(key),
            resets_at=key["budget_resets_at"],
        )


class DailyRequests(BaseModel):
    limit: int = Field(description=f"The limit of requests a day that has the least left; {NO_LIMIT} without one.")
    used: int
    remaining: int

    @classmethod
    def of(cls, limits: Mapping[str, Any]) -> Self:
        window = _tightest(limits, "day")
        if window is None:
            used = limits["org"]["requests"]["day"]["used"]
            return cls(limit=NO_LIMIT, used=used, remaining=NO_LIMIT)
        return cls(limit=window["limit"], used=window["used"], remaining=window["remaining"])


class RateLimit(BaseModel):
    requests: int = Field(description=f"The limit of requests a minute that has the least left; {NO_RATE_LIMIT}: none.")
    interval: Literal["1m"] = "1m"
    note: str = DEPRECATED


class KeyData(BaseModel):
    label: str = Field(description="The beginning and the end of the secret.")
    limit: float | None = Field(description="The budget of the key; null without one.")
    limit_remaining: float | None
    limit_reset: str | None = Field(description="`daily`, `weekly` or `monthly`; null: never.")
    include_byok_in_limit: Literal[False] = False
    usage: float = Field(description="What the key was charged in all.")
    usage_daily: float = Field(description="Today, in UTC.")
    usage_weekly: float = Field(description="Since Monday, in UTC.")
    usage_monthly: float = Field(description="This month, in UTC.")
    byok_usage: float = 0
    byok_usage_daily: float = 0
    byok_usage_weekly: float = 0
    byok_usage_monthly: float = 0
    is_free_tier: bool = Field(description="Whether the org has the plan `free`.")
    is_management_key: bool = Field(description="Whether the key may manage keys, and may make no paid call.")
    is_provisioning_key: bool = Field(description="The same.")
    expires_at: Moment | None
    creator_user_id: str
    organization_id: str
    workspace_id: None = None
    allowed_data_regions: list[str] = ["global"]
    budgets: list[KeyBudget]
    effective_budget: KeyBudget | None
    free_model_daily_requests: DailyRequests = Field(description="Free models count in the limits like all others.")
    rate_limit: RateLimit


class OpenRouterKey(BaseModel):
    data: KeyData

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        key, charged, limits = found["key"], found["charged"], found["limits"]
        budget = KeyBudget.of(key)
        minute = _tightest(limits, "minute")
        manages = "keys" in key["scopes"] and PAID_SCOPES.isdisjoint(key["scopes"])
        return cls(
            data=KeyData(
                label=keys.masked(key["prefix"], key["last_four"]),
                limit=budget and budget.limit_usd,
                limit_remaining=budget and budget.remaining_usd,
                limit_reset=_reset_of(key),
                usage=credits_float(charged["all"]),
                usage_daily=credits_float(charged["day"]),
                usage_weekly=credits_float(charged["week"]),
                usage_monthly=credits_float(charged["month"]),
                is_free_tier=found["plan"] == FREE_PLAN,
                is_management_key=manages,
                is_provisioning_key=manages,
                expires_at=key["expires_at"],
                creator_user_id=key["user_id"],
                organization_id=key["org_id"],
                budgets=[budget] if budget else [],
                effective_budget=budget,
                free_model_daily_requests=DailyRequests.of(limits),
                rate_limit=RateLimit(requests=minute["limit"] if minute else NO_RATE_LIMIT),
            )
        )


class ProviderResponse(BaseModel):
    provider_name: str
    status: int | None = Field(description="200 if the upstream answered; else null.")
    latency: int | None = Field(description="In milliseconds.")


class GenerationData(BaseModel):
    id: str = Field(description="The upstream's id of the generation, or the request's where it has none.")
    request_id: str = Field(description="The id of the request in /user/usage.")
    upstream_id: None = None
    api_type: str
    model: str
    provider_name: str | None = Field(description="The upstream.")
    provider_responses: list[ProviderResponse]
    created_at: Moment
    streamed: bool
    cancelled: bool = Field(description="Whether the client left before the end.")
    finish_reason: str | None = Field(description="`error` for a request that failed. Others are not kept.")
    native_finish_reason: None = None
    total_cost: float = Field(description="The charge.")
    usage: float = Field(description="The charge.")
    upstream_inference_cost: None = None
    cache_discount: None = None
    is_byok: Literal[False] = False
    tokens_prompt: int | None
    tokens_completion: int | None
    native_tokens_prompt: int | None
    native_tokens_completion: int | None
    native_tokens_reasoning: int
    native_tokens_cached: int
    native_tokens_completion_images: None = None
    num_media_prompt: None = None
    num_media_completion: None = None
    num_input_audio_prompt: None = None
    num_search_results: None = None
    num_fetches: None = None
    web_search_engine: None = None
    latency: int | None = Field(description="Until the first token, where that is known, in milliseconds.")
    generation_time: int | None = Field(description="The whole duration in milliseconds.")
    moderation_latency: None = None
    service_tier: None = None
    session_id: None = None
    external_user: None = None
    origin: Literal[""] = ""
    http_referer: None = None
    user_agent: None = None
    app_id: None = None
    router: None = None
    preset_id: None = None
    workspace_id: None = None
    data_region: Literal["global"] = "global"
    response_cache_source_id: None = None


class OpenRouterGeneration(BaseModel):
    data: GenerationData

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        charge = credits_float(found["charge_nanos"] or 0)
        prompt, completion = found["prompt_tokens"], found["completion_tokens"]
        first, duration = found["first_token_ms"], found["duration_ms"]
        return cls(
            data=GenerationData(
                id=found["generation_id"] or found["id"],
                request_id=found["id"],
                api_type="embeddings" if found["endpoint"] == "embeddings" else "completions",
                model=found["served_model"] or found["model"],
                provider_name=found["upstream"],
                provider_responses=[_response(attempt) for attempt in attempts_of(found)],
                created_at=found["created_at"],
                streamed=found["streamed"],
                cancelled=found["error_code"] == "client_gone",
                finish_reason="error" if found["error_code"] else None,
                total_cost=charge,
                usage=charge,
                tokens_prompt=prompt,
                tokens_completion=completion,
                native_tokens_prompt=prompt,
                native_tokens_completion=completion,
                native_tokens_reasoning=found["reasoning_tokens"],
                native_tokens_cached=found["cached_tokens"],
                latency=duration if first is None else first,
                generation_time=duration,
            )
        )


class GenerationQuery(QueryModel):
    id: Identifier = Field(description="The `id` of an answer, its `x-generation-id`, or its `x-tollgate-request-id`.")


class ActivityRow(BaseModel):
    date: str = Field(description="The day, in UTC.", examples=["2026-11-01"])
    model: str
    model_permaslug: str = Field(description="The model.")
    endpoint_id: str = Field(description="The upstream.")
    provider_name: str = Field(description=f"The upstream; `{OF_NO_UPSTREAM}` for calls that reached none.")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = Field(description="Included in completion_tokens.")
    cached_tokens: int = Field(description="Included in prompt_tokens.")
    usage: float = Field(description="What the org was charged.")
    byok_usage_inference: float = 0


class OpenRouterActivity(BaseModel):
    data: list[ActivityRow]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        return cls(data=[_activity(group) for group in found["data"]])


class ActivityQuery(QueryModel):
    date: Day | None = Field(None, description="Only this day: one of the last 30 completed days, in UTC.")
    api_key_hash: Line | None = Field(None, description="Only this key of the org, by its id. Tollgate has no hashes.")
    user_id: Line | None = Field(None, description="Only this user of the org.")

    def filters_at(self, now: datetime) -> dict[str, Any]:
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        since = today - timedelta(days=COMPLETED_DAYS)
        if self.date is None:
            period = since, today
        elif since <= self.date < today:
            period = self.date, self.date + timedelta(days=1)
        else:
            raise BadRequest(f"date: send a day from {since:%Y-%m-%d} to before {today:%Y-%m-%d}.", param="date")
        begin, end = (moment.isoformat() for moment in period)
        chosen = {"key_id": self.api_key_hash, "user_id": self.user_id}
        return {"from": begin, "to": end, "sort": "start:desc"} | {k: v for k, v in chosen.items() if v is not None}


def _reset_of(key: Mapping[str, Any]) -> str | None:
    return None if key["budget_nanos"] is None or key["budget_reset"] == "never" else key["budget_reset"]


def _tightest(limits: Mapping[str, Any], window: str) -> Mapping[str, Any] | None:
    """Of the org's, the user's and the key's, the limit of requests with the least left."""
    counted = [limits[subject]["requests"][window] for subject in ("org", "user", "key") if limits[subject]]
    limited = [one for one in counted if one["limit"] is not None]
    return min(limited, key=lambda one: (one["remaining"], one["limit"]), default=None)


def _response(attempt: Mapping[str, Any]) -> ProviderResponse:
    status = 200 if attempt["outcome"] == "answered" else None
    return ProviderResponse(provider_name=attempt["upstream"], status=status, latency=attempt["duration_ms"])


def _activity(group: Mapping[str, Any]) -> ActivityRow:
    upstream = group["upstream"] or OF_NO_UPSTREAM
    return ActivityRow(
        date=group["start"][:10],
        model=group["model"],
        model_permaslug=group["model"],
        endpoint_id=upstream,
        provider_name=upstream,
        requests=group["requests"],
        prompt_tokens=group["prompt_tokens"],
        completion_tokens=group["completion_tokens"],
        reasoning_tokens=group["reasoning_tokens"],
        cached_tokens=group["cached_tokens"],
        usage=credits_float(group["charge_nanos"]),
    )
