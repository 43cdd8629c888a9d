"""Usage: the queries for it, and what they return."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from tollgate.usage.rules import Bucket, Format, LatencyBucket, Span
from tollgate.web.older_names import OlderNames
from tollgate.web.schemas import Amounts, CountedPage, Credits, Identifier, Moment, PageQuery, Period, QueryModel, Text

Status = Annotated[
    str, Field(pattern=r"^[1-5](\d\d|xx)$", description="Only this HTTP status; 4xx stands for 400 to 499.")
]
FORMAT = "CSV with a header (RFC 4180), or JSON Lines."
GROUP_DESCRIPTION = "The dimensions to group by. Repeat the parameter for more than one."
RequestId = Annotated[
    Identifier,
    Path(
        description="The id of the request, as in x-tollgate-request-id.", examples=["req_0193a0b1c2d3e4f5a6b7c8d9e0f1"]
    ),
]
SORT_DESCRIPTION = "Default: `start:asc` when grouped by day or month, else `charge:desc`."
MOST_WITH_CONTENT = 100

ExampleNanos = Annotated[int, Field(examples=[1_250_000])]
ExampleCredits = Annotated[Credits, Field(examples=["0.00125"])]


class UsageFilters(Period):
    """The filters that an org may use."""

    model: Text | None = Field(None, description="Only this model, by the name in the request.")
    upstream: Text | None = Field(None, description="Only requests that this upstream served.")
    key_id: Text | None = Field(None, description="Only requests with this key.")
    user_id: Text | None = Field(None, description="Only requests with keys of this user.")

    def over(self, span: Span) -> dict[str, Any]:
        """The filters, over this span instead of the one in the query."""
        return self.model_copy(update={"since": span.since, "until": span.until}).filters()


class OwnOverviewQuery(UsageFilters):
    """The last 24 hours by default."""


class AllUsageFilters(UsageFilters):
    org_id: Text | None = Field(None, description="Only requests of this org.")

    @property
    def has_subject(self) -> bool:
        return bool(self.org_id or self.user_id or self.key_id)

    @property
    def has_model(self) -> bool:
        return bool(self.model or self.upstream)


OwnSort = Literal[
    "start:asc", "start:desc", "requests:desc", "requests:asc", "errors:desc", "errors:asc",
    "tokens:desc", "tokens:asc", "charge:desc", "charge:asc",
]  # fmt: skip
AllSort = Literal[OwnSort, "cost:desc", "cost:asc", "margin:desc", "margin:asc"]


class _RequestFilters(OlderNames, UsageFilters):
    older_names = {"task": "endpoint", "model_id": "model", "from_ts": "from", "to_ts": "to"}  # noqa: RUF012  # not a field

    id: Text | None = Field(None, description="Only the request with this id, as in x-tollgate-request-id.")
    generation_id: Text | None = Field(None, description="Only the request whose answer has this id.")
    endpoint: Text | None = Field(
        None, description="Only this endpoint, such as chat or embeddings. `task` is understood too."
    )
    status: Status | None = None
    state: Literal["held", "unsettled", "settled", "released"] | None = None
    streamed: bool | None = None
    estimated: bool | None = Field(None, description="Whether the charge is an estimate.")
    quarantined: bool | None = Field(None, description="Whether the hold was charged because of impossible figures.")
    cached: bool | None = Field(None, description="Whether the answer came from the completion cache.")
    prompt_cached: bool | None = Field(None, description="Whether the upstream read part of the prompt from its cache.")
    sort: Literal["created_at:desc", "created_at:asc"] | None = Field(None, description="Newest first by default.")


class OwnRequestsQuery(PageQuery, _RequestFilters):
    pass


class AllRequestsQuery(PageQuery, _RequestFilters, AllUsageFilters):
    pass


class OwnExportQuery(_RequestFilters):
    format: Format = Field("csv", description=FORMAT)
    totals: bool = Field(False, description="Add a last row with the id `total` and the sums of tokens and amounts.")


class AllExportQuery(OwnExportQuery, AllUsageFilters):
    pass


class _RefusedFilters(Period):
    model: Text | None = Field(None, description="Only calls of this model, by the name in the request.")
    key_id: Text | None = Field(None, description="Only calls with this key.")
    user_id: Text | None = Field(None, description="Only calls with keys of this user.")
    code: Text | None = Field(None, description="Only refusals with this code, such as quota_exhausted.")
    sort: Literal["start:desc", "start:asc"] | None = Field(None, description="Newest first by default.")


class OwnRefusedQuery(PageQuery, _RefusedFilters):
    pass


class AllRefusedQuery(PageQuery, _RefusedFilters):
    org_id: Text | None = Field(None, description="Only calls of this org.")


class OwnRefusedExportQuery(_RefusedFilters):
    format: Format = Field("csv", description=FORMAT)


class AllRefusedExportQuery(OwnRefusedExportQuery):
    org_id: Text | None = Field(None, description="Only calls of this org.")


class LastRefused(BaseModel):
    """The last of the refused calls."""

    request_id: str | None
    facts: dict[str, Any] = Field(description="The fields of its error, such as what it needed and what was available.")


class RefusedCalls(BaseModel):
    """How often paid calls were refused, by hour, key, model and code."""

    id: str
    start: Moment = Field(description="The start of the hour, in UTC.")
    org_id: str
    user_id: str | None
    key_id: str | None = Field(description="Null, like user_id and model, for those beyond a hundred rows in an hour.")
    model: str | None = Field(description="The name in the request.")
    code: str
    count: int
    first_seen_at: Moment
    last_seen_at: Moment
    last: LastRefused


class RequestQuery(QueryModel):
    include: Literal["content"] | None = Field(
        None,
        description="Includes prompt and answer as LOG_CONTENT keeps them. Each read records an audit event "
        "`content.read`.",
    )


class LogsQuery(AllRequestsQuery):
    include: Literal["content"] | None = Field(
        None,
        description="Includes prompts and answers as LOG_CONTENT keeps them, with at most 100 requests a page. Each "
        "read records an audit event `content.read` for each org.",
    )


class OwnAggregateQuery(PageQuery, UsageFilters):
    by: list[Literal["day", "month", "model", "key", "user", "upstream"]] = Field(
        ["model"], min_length=1, max_length=3, description=GROUP_DESCRIPTION
    )
    sort: OwnSort | None = Field(None, description=SORT_DESCRIPTION)

    @property
    def order(self) -> str:
        return self.sort or default_order(self.by)


class AllAggregateQuery(PageQuery, AllUsageFilters):
    by: list[Literal["day", "month", "model", "key", "user", "org", "upstream"]] = Field(
        ["model"], min_length=1, max_length=3, description=GROUP_DESCRIPTION
    )
    sort: AllSort | None = Field(None, description=SORT_DESCRIPTION)

    @property
    def order(self) -> str:
        return self.sort or default_order(self.by)


class OwnSeriesQuery(UsageFilters):
    bucket: Bucket = Field(
        "hour", description="minute covers at most 6 hours, hour at most 31 days, day at most 731 days."
    )


class AllSeriesQuery(OwnSeriesQuery, AllUsageFilters):
    by: Literal["model", "key", "user", "org", "upstream"] | None = Field(
        None, description="Also the series of the five groups with the highest charge, and of all others together."
    )


class LatencyQuery(AllUsageFilters):
    pass


class LatencySeriesQuery(AllUsageFilters):
    bucket: LatencyBucket = Field(
        "hour",
        description="hour covers at most 7 days, day at most 92 days; with a filter, 1 day and 31 days.",
    )


class RequestRow(Amounts):
    id: str = Field(examples=["req_0193a0b1c2d3e4f5a6b7c8d9e0f1"])
    created_at: Moment
    org_id: str
    user_id: str
    key_id: str
    endpoint: str
    model: str = Field(description="The name in the request, or the model that its alias stood for.")
    alias: str | None = Field(None, description="The alias in the request; null where it named the model itself.")
    served_model: str | None
    upstream: str | None
    state: str = Field(description="held and unsettled are open; settled was charged; released was not charged.")
    status: int | None = Field(description="The HTTP status of the response.")
    error_code: str | None
    streamed: bool
    estimated: bool = Field(description="Whether the charge is an estimate because the upstream reported no cost.")
    quarantined: bool = Field(
        description="Whether the hold was charged because the upstream's figures cannot be correct."
    )
    is_byok: bool = Field(
        description="Whether it went upstream with the org's own key: it was charged the fee, or nothing."
    )
    prompt_tokens: int | None
    completion_tokens: int | None
    cached: bool | None = Field(
        description="Whether the answer came from the completion cache; null where that was not asked."
    )
    cached_tokens: int = Field(description="The tokens of the prompt that the upstream read from its own cache.")
    reasoning_tokens: int = Field(description="The tokens of the completion that were reasoning.")
    charge_nanos: int | None
    charge_credits: Credits | None
    duration_ms: int | None
    first_token_ms: int | None
    generation_id: str | None = Field(description="The id in the answer.")
    settled_at: Moment | None


class PaidRequestRow(RequestRow):
    """A request with the name of its org and what it cost us."""

    org_name: str | None
    cost_nanos: int | None
    cost_credits: Credits | None


class LoggedRequestRow(PaidRequestRow):
    """A request with its content, if the query includes it."""

    prompt: str | None = Field(
        None,
        description="The beginning of the prompt, with secrets redacted; null when it was not kept. Present only with "
        "`include`.",
    )
    answer: str | None = Field(None, description="The same for the first choice of the answer.")


class _Refunded(Amounts):
    refunded_nanos: int = Field(
        description="What operators have refunded of these requests, whenever that was. Charge, cost and margin are "
        "those before refunds. Requests that retention deleted are left out."
    )
    refunded_credits: Credits


class Measures(Amounts):
    """Charges are those of the requests, before refunds."""

    requests: int
    errors: int
    streamed: int
    estimated: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="Of prompt_tokens, those that upstreams read from their own caches.")
    reasoning_tokens: int = Field(description="Of completion_tokens, those that were reasoning.")
    charge_nanos: ExampleNanos
    charge_credits: ExampleCredits


class PaidMeasures(Measures):
    """Measures with our cost and margin."""

    cost_nanos: ExampleNanos
    cost_credits: ExampleCredits
    margin_nanos: ExampleNanos
    margin_credits: ExampleCredits


class _GroupNames(BaseModel):
    org_id: str | None = None
    org_name: str | None = None
    user_id: str | None = None
    user_email: str | None = None
    key_id: str | None = None
    key_name: str | None = None
    model: str | None = None
    upstream: str | None = None
    last_request_at: Moment


class _GroupFields(_GroupNames):
    start: Moment | None = Field(None, description="The start of the day or month, in UTC.")


class Totals(Measures, _Refunded):
    pass


class PaidTotals(PaidMeasures, _Refunded):
    pass


class Group(_GroupFields, Totals):
    """The usage of one group. It has only the fields of the dimensions in `by`."""


class PaidGroup(_GroupFields, PaidTotals):
    """The usage of one group, with our cost and margin."""


class Point(Totals):
    start: Moment


class PaidPoint(PaidTotals):
    start: Moment


class _Counted(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    since: Moment = Field(alias="from", description="The start of the period.")
    until: Moment = Field(alias="to", description="The end of the period, exclusive.")


class Aggregate(CountedPage[Group], _Counted):
    by: list[str]
    totals: Totals = Field(description="Over all groups on all pages.")


class PaidAggregate(CountedPage[PaidGroup], _Counted):
    by: list[str]
    totals: PaidTotals = Field(description="Over all groups on all pages.")


class Series(_Counted):
    bucket: Bucket
    data: list[Point] = Field(description="Oldest first, empty buckets included.")


class GroupPoint(PaidMeasures):
    start: Moment


class SeriesGroup(_GroupNames, PaidMeasures):
    """One group, with the id and the name of what is grouped by, or all others together, with neither."""

    is_rest: bool = Field(description="Whether it is all groups after the first five.")
    data: list[GroupPoint] = Field(description="The same buckets as in the whole series.")


class PaidSeries(_Counted):
    bucket: Bucket
    data: list[PaidPoint] = Field(description="Oldest first, empty buckets included.")
    groups: list[SeriesGroup] | None = Field(description="By charge, the rest last. Null unless `by` asks for them.")


class Percentiles(BaseModel):
    requests: int = Field(description="How many requests were measured: those without an error.")
    average_ms: float | None
    p50_ms: int | None = Field(description="Half of the requests took no longer. Percentiles are accurate to 5 %.")
    p90_ms: int | None
    p95_ms: int | None
    p99_ms: int | None


class Latency(Percentiles, _Counted):
    pass


class LatencyPoint(BaseModel):
    start: Moment
    latency: Percentiles = Field(description="From the request to the last byte.")
    first_token: Percentiles = Field(description="From the request to the first token of a stream.")


class LatencySeries(_Counted):
    bucket: LatencyBucket
    data: list[LatencyPoint] = Field(description="Oldest first, empty buckets included.")


class UsageSummary(Amounts):
    requests: int
    tokens: int
    charge_nanos: ExampleNanos
    charge_credits: ExampleCredits


class KeyUsage(BaseModel):
    id: str
    name: str
    masked_key: str = Field(examples=["tg_live_abcd…wxyz"])
    user_id: str
    environment: str
    status: Literal["active", "disabled", "revoked", "expired"]
    created_at: Moment
    last_used_at: Moment | None
    today: UsageSummary = Field(description="Since midnight UTC.")
    last_30_days: UsageSummary
    all_time: UsageSummary


def default_order(by: list[Any]) -> str:
    return "start:asc" if {"day", "month"} & set(by) else "charge:desc"
