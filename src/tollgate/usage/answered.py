"""What is answered about usage."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.usage.rules import Bucket
from tollgate.web.schemas import Page

Nanos = Annotated[int, Field(examples=[1_250_000])]
Credits = Annotated[float, Field(examples=[0.00125])]


class RequestRow(BaseModel):
    id: str = Field(examples=["req_0193a0b1c2d3e4f5a6b7c8d9e0f1"])
    created_at: datetime
    org_id: str
    user_id: str
    key_id: str
    endpoint: str
    model: str = Field(description="As it was asked for.")
    served_model: str | None
    upstream: str | None
    state: str = Field(description="held and unsettled are still open; settled was charged, released was not.")
    status: int | None = Field(description="The HTTP status of the answer.")
    error_code: str | None
    streamed: bool
    estimated: bool = Field(description="Whether the charge is an estimate, since the upstream never told.")
    quarantined: bool = Field(description="Whether the upstream's numbers made no sense and the hold was charged.")
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int
    charge_nanos: int | None
    charge_credits: float | None
    duration_ms: int | None
    first_token_ms: int | None
    settled_at: datetime | None


class PaidRequestRow(RequestRow):
    """With what it cost us."""

    cost_nanos: int | None
    cost_credits: float | None
    generation_id: str | None


class LoggedRequestRow(PaidRequestRow):
    """With what was said, where that was asked for."""

    prompt: str | None = Field(
        None, description="How the prompt begins, its secrets hidden; null where it was not kept. Only with `include`."
    )
    answer: str | None = Field(None, description="The same of the first answer.")


class Measures(BaseModel):
    requests: int
    errors: int
    streamed: int
    estimated: int
    prompt_tokens: int
    completion_tokens: int
    charge_nanos: Nanos
    charge_credits: Credits


class PaidMeasures(Measures):
    """With what it cost us, and what remains."""

    cost_nanos: Nanos
    cost_credits: Credits
    margin_nanos: Nanos
    margin_credits: Credits


class _Grouped(BaseModel):
    start: datetime | None = Field(None, description="Of the day or month, in UTC.")
    org_id: str | None = None
    org_name: str | None = None
    user_id: str | None = None
    user_email: str | None = None
    key_id: str | None = None
    key_name: str | None = None
    model: str | None = None
    upstream: str | None = None
    last_request_at: datetime


class Group(_Grouped, Measures):
    """Usage of one of whatever was told apart; it has the fields of that alone."""


class PaidGroup(_Grouped, PaidMeasures):
    """The same with what it cost us, and what remains."""


class Point(Measures):
    start: datetime


class PaidPoint(PaidMeasures):
    start: datetime


class _Answered(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    since: datetime = Field(alias="from", description="What is counted begins here,")
    until: datetime = Field(alias="to", description="and ends before here.")


class Aggregate(Page[Group], _Answered):
    by: list[str]
    totals: Measures = Field(description="Of all groups on all pages.")


class PaidAggregate(Page[PaidGroup], _Answered):
    by: list[str]
    totals: PaidMeasures = Field(description="Of all groups on all pages.")


class Series(_Answered):
    bucket: Bucket
    data: list[Point] = Field(description="In order of time, with those in which nothing happened.")


class PaidSeries(_Answered):
    bucket: Bucket
    data: list[PaidPoint] = Field(description="In order of time, with those in which nothing happened.")


class Latency(_Answered):
    requests: int = Field(description="How many were measured: those that ended without an error.")
    average_ms: float | None
    p50_ms: int | None = Field(description="Half took no longer, within 5 %.")
    p90_ms: int | None
    p95_ms: int | None
    p99_ms: int | None


class UsedInShort(BaseModel):
    requests: int
    tokens: int
    charge_nanos: Nanos
    charge_credits: Credits


class KeyUsage(BaseModel):
    id: str
    name: str
    key: str = Field(description="Masked.", examples=["tg_live_abcd…wxyz"])
    user_id: str
    environment: str
    status: Literal["active", "disabled", "revoked", "expired"]
    created_at: datetime
    last_used_at: datetime | None
    today: UsedInShort = Field(description="Since midnight, UTC.")
    last_30_days: UsedInShort
    all_time: UsedInShort
