"""The response of GET /admin/monitor."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.admin.schemas.cache import CacheFigures
from tollgate.admin.schemas.security import Severity
from tollgate.keys.rules import masked
from tollgate.usage.schemas import PaidMeasures
from tollgate.web.schemas import Amounts, Credits, Moment, Period

AttentionKind = Literal[
    "audit_failed", "quarantined", "expired_holds", "unsettled", "paid_suspended", "overdrawn", "upstream_down",
    "alerts_firing", "security_event", "breaker_open", "stale_catalog", "openrouter_credit_low",
]  # fmt: skip


class Counts(BaseModel):
    total: int
    usable: int = Field(description="Active ones; for keys, those not disabled, revoked or expired.")
    active_today: int = Field(description="Those with a request since midnight UTC.")


class ChargeAndCost(Amounts):
    charge_nanos: int = Field(description="What orgs pay.")
    charge_credits: Credits
    cost_nanos: int = Field(description="What upstreams charge us.")
    cost_credits: Credits
    margin_nanos: int = Field(description="Charge less cost.")
    margin_credits: Credits

    @model_validator(mode="before")
    @classmethod
    def _with_margin(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"margin_nanos": found["charge_nanos"] - found["cost_nanos"]}


class SystemUsage(ChargeAndCost):
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int


class SystemUsageOverTime(BaseModel):
    today: SystemUsage = Field(description="Since midnight UTC.")
    last_7_days: SystemUsage = Field(description="Today and the 6 days before, in UTC.")
    last_30_days: SystemUsage = Field(description="Today and the 29 days before, in UTC.")


class LastDayLatency(BaseModel):
    requests: int = Field(description="How many requests were measured: those without an error.")
    average_ms: float | None
    p50_ms: float | None = Field(description="Percentiles are accurate to 5 %.")
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class UpstreamShare(Amounts):
    upstream: str | None = Field(description="Null for requests that reached no upstream.")
    requests: int
    errors: int
    cost_nanos: int
    cost_credits: Credits


class LastDay(BaseModel):
    requests: int
    errors: int
    error_rate: float | None = Field(description="Errors by requests, from 0 to 1; null without requests.")
    latency: LastDayLatency = Field(description="From the request to the last byte.")
    first_token: LastDayLatency = Field(description="From the request to the first token of a stream.")
    upstreams: list[UpstreamShare]


class TopEntry(ChargeAndCost):
    requests: int
    tokens: int


class TopOrg(TopEntry):
    org_id: str
    name: str | None


class TopModel(TopEntry):
    model: str


class TopKey(TopEntry):
    key_id: str
    org_id: str
    name: str | None
    masked_key: str | None

    @model_validator(mode="before")
    @classmethod
    def _masked(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"masked_key": masked(found["prefix"], found["last_four"]) if found["prefix"] else None}


class RecentRequest(Amounts):
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
    charge_credits: Credits | None
    cost_nanos: int | None
    cost_credits: Credits | None
    first_token_ms: int | None
    duration_ms: int | None


class OpenHolds(Amounts):
    count: int
    held_nanos: int
    held_credits: Credits
    oldest_at: Moment | None
    unsettled: int = Field(description="How many of them have no cost yet; the sweeper asks the upstream for it.")


class OverdrawnOrg(Amounts):
    org_id: str
    name: str
    credits: Credits
    credits_nanos: int


class Overdrawn(Amounts):
    count: int
    overdrawn_nanos: int = Field(description="The sum of all balances below zero, as a positive number.")
    overdrawn_credits: Credits
    orgs: list[OverdrawnOrg] = Field(description="Those with the lowest balances.")


class SuspendedOrg(BaseModel):
    org_id: str
    name: str
    suspended_at: Moment
    reason: str = Field(description="`quarantined_usage` or `operator`.")


class PaidSuspended(BaseModel):
    count: int
    orgs: list[SuspendedOrg] = Field(description="Those suspended first.")


class Balances(Amounts):
    credits: Credits = Field(description="The sum of all balances above zero, holds included.")
    credits_nanos: int


class CatalogHealth(BaseModel):
    models: int
    age_seconds: float | None = Field(description="Since the list was fetched; null without a list.")
    fresh: bool
    hits: int
    misses: int
    refreshes: int
    failures: int
    skipped: int
    last_error: str | None


class UpstreamHealth(BaseModel):
    id: str
    breaker: str = Field(description="closed, open or half: the worst of the breakers of its models.")
    in_flight: int
    failures: int
    last_error: str | None


class OpenRouterCredit(Amounts):
    credits: Credits | None = Field(description="The credit left on our own OpenRouter account.")
    credits_nanos: int | None
    days_left: float | None = Field(
        description="How long the credit lasts at the cost of the last 24 hours; null if that is 0."
    )
    reason: str | None = Field(description="Why the credit is unknown.")


class _WithErrorRate(BaseModel):
    error_rate: float | None = Field(description="Errors by requests, from 0 to 1; null without requests.")

    @model_validator(mode="before")
    @classmethod
    def _with_rate(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"error_rate": found["errors"] / found["requests"] if found["requests"] else None}


class PeriodUsage(_WithErrorRate, PaidMeasures):
    model_config = ConfigDict(populate_by_name=True)

    since: Moment = Field(alias="from")
    until: Moment = Field(alias="to")
    refunded_nanos: int = Field(description="Refunds made in this period, also of earlier charges.")
    refunded_credits: Credits
    latency: LastDayLatency = Field(description="From the request to the last byte.")
    first_token: LastDayLatency = Field(description="From the request to the first token of a stream.")


class OverviewPoint(_WithErrorRate, PaidMeasures):
    start: Moment


class Attention(BaseModel):
    """Something that an operator should look at."""

    kind: AttentionKind
    severity: Severity
    count: int
    message: str
    where: str = Field(description="The page of the console that shows it.", examples=["/admin#/usage?state=unsettled"])
    facts: dict[str, Any]


class Overview(BaseModel):
    at: Moment
    bucket: Literal["hour", "day"]
    period: PeriodUsage
    before: PeriodUsage = Field(description="The period of the same length before.")
    series: list[OverviewPoint] = Field(description="By hour up to 7 days, else by day; oldest first.")
    top_orgs: list[TopOrg] = Field(description="By charge in the period, as the other lists.")
    top_models: list[TopModel]
    top_keys: list[TopKey]
    open_holds: OpenHolds
    balances: Balances
    overdrawn: Overdrawn
    paid_suspended: PaidSuspended
    openrouter: OpenRouterCredit
    attention: list[Attention] = Field(description="The most severe first; empty when all is well.")


class OverviewQuery(Period):
    """The last 24 hours by default."""


class SystemMonitor(BaseModel):
    at: Moment
    orgs: Counts
    users: Counts
    keys: Counts
    usage: SystemUsageOverTime
    last_24_hours: LastDay
    top_orgs: list[TopOrg] = Field(description="By charge over 30 days, as the other lists.")
    top_models: list[TopModel]
    top_keys: list[TopKey]
    recent_requests: list[RecentRequest] = Field(description="Newest first.")
    open_holds: OpenHolds
    balances: Balances
    overdrawn: Overdrawn
    paid_suspended: PaidSuspended
    cache: CacheFigures = Field(description="The completion cache, with the look-ups of today (UTC).")
    catalog: dict[str, CatalogHealth] = Field(description="This instance's catalogs of live keys and of test keys.")
    upstreams: list[UpstreamHealth] = Field(description="The upstreams that this instance has called.")
    openrouter: OpenRouterCredit
