"""What GET /admin/monitor tells, part by part."""

from typing import Any

from pydantic import BaseModel, Field, model_validator

from tollgate.core.money import to_credits
from tollgate.keys.rules import masked
from tollgate.web.schemas import Moment


class Population(BaseModel):
    total: int
    usable: int = Field(description="Those that may act: active, and of keys neither disabled, revoked nor expired.")
    active_today: int = Field(description="Those with a request since midnight UTC.")


class Money(BaseModel):
    charge_nanos: int = Field(description="What orgs pay.")
    charge_credits: float
    cost_nanos: int = Field(description="What upstreams take.")
    cost_credits: float
    margin_nanos: int = Field(description="Charge less cost.")
    margin_credits: float

    @model_validator(mode="before")
    @classmethod
    def _reckoned(cls, found: dict[str, Any]) -> dict[str, Any]:
        nanos = {"charge": found["charge_nanos"], "cost": found["cost_nanos"]}
        nanos["margin"] = nanos["charge"] - nanos["cost"]
        return (
            found
            | {f"{name}_nanos": amount for name, amount in nanos.items()}
            | {f"{name}_credits": to_credits(amount) for name, amount in nanos.items()}
        )


class HouseUsed(Money):
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int


class HouseUsedOverTime(BaseModel):
    today: HouseUsed = Field(description="Since midnight UTC.")
    last_7_days: HouseUsed = Field(description="Today and the six days before, in UTC.")
    last_30_days: HouseUsed = Field(description="Today and the 29 days before, in UTC.")


class LastDayLatency(BaseModel):
    requests: int = Field(description="How many were timed: those without an error.")
    average_ms: float | None
    p50_ms: float | None = Field(description="Percentiles are within 5 %.")
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class UpstreamShare(BaseModel):
    upstream: str | None = Field(description="Null: those that reached no upstream.")
    requests: int
    errors: int
    cost_nanos: int


class LastDay(BaseModel):
    requests: int
    errors: int
    error_rate: float | None = Field(description="Of all requests, from 0 to 1; null without any.")
    latency: LastDayLatency = Field(description="From the request to the last byte.")
    first_token: LastDayLatency = Field(description="From the request to the first token of a stream.")
    upstreams: list[UpstreamShare]


class Leader(Money):
    requests: int
    tokens: int


class TopOrg(Leader):
    org_id: str
    name: str | None


class TopModel(Leader):
    model: str


class TopKey(Leader):
    key_id: str
    org_id: str
    name: str | None
    key: str | None = Field(description="Masked.")

    @model_validator(mode="before")
    @classmethod
    def _masked(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"key": masked(found["prefix"], found["last_four"]) if found["prefix"] else None}


class RecentRequest(BaseModel):
    id: str
    created_at: Moment
    org_id: str
    user_id: str
    key_id: str
    model: str
    upstream: str | None
    state: str = Field(description="held, unsettled, settled or released.")
    status: int | None
    error_code: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    charge_nanos: int | None
    cost_nanos: int | None
    first_token_ms: int | None
    duration_ms: int | None


class OpenHolds(BaseModel):
    count: int
    nanos: int
    oldest_at: Moment | None
    unsettled: int = Field(description="Those of them whose cost the sweeper is looking for.")


class OverdrawnOrg(BaseModel):
    org_id: str
    name: str
    balance_nanos: int


class Overdrawn(BaseModel):
    count: int
    nanos: int = Field(description="What they owe together.")
    orgs: list[OverdrawnOrg] = Field(description="The worst of them.")


class SuspendedOrg(BaseModel):
    org_id: str
    name: str
    since: Moment
    reason: str = Field(description="`quarantined_usage` or `operator`.")


class PaidSuspended(BaseModel):
    count: int
    orgs: list[SuspendedOrg] = Field(description="The first of them.")


class Balances(BaseModel):
    nanos: int = Field(description="All balances above zero: what orgs have paid for and not used, holds among it.")


class CatalogHealth(BaseModel):
    models: int
    age_seconds: float | None = Field(description="Since the list was taken; null while there is none.")
    fresh: bool
    hits: int
    misses: int
    refreshes: int
    failures: int
    skipped: int
    last_error: str | None


class UpstreamHealth(BaseModel):
    id: str
    breaker: str = Field(description="closed, open or half; the worst of its models.")
    in_flight: int
    failures: int
    last_error: str | None


class OpenRouterCredit(BaseModel):
    credits: float | None = Field(description="What is left of our own credit at OpenRouter.")
    credits_nanos: int | None
    days_left: float | None = Field(description="At the rate of the last 24 hours; null when that is nothing.")
    reason: str | None = Field(description="Why it is not known.")


class HouseMonitor(BaseModel):
    at: Moment
    orgs: Population
    users: Population
    keys: Population
    usage: HouseUsedOverTime
    last_24_hours: LastDay
    top_orgs: list[TopOrg] = Field(description="By charge, in 30 days.")
    top_models: list[TopModel]
    top_keys: list[TopKey]
    recent_requests: list[RecentRequest] = Field(description="Newest first.")
    open_holds: OpenHolds
    balances: Balances
    overdrawn: Overdrawn
    paid_suspended: PaidSuspended
    catalog: dict[str, CatalogHealth] = Field(description="What this instance knows, for live keys and for test keys.")
    upstreams: list[UpstreamHealth] = Field(description="Those that this instance has asked so far.")
    openrouter: OpenRouterCredit
