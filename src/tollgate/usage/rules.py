"""The period that a query covers, and the cells of an export."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from tollgate.core.errors import BadRequest
from tollgate.core.spreadsheets import as_text

Bucket = Literal["minute", "hour", "day"]
Format = Literal["csv", "jsonl"]
LatencyBucket = Literal["hour", "day"]

DEFAULT_SERIES: Mapping[Bucket, timedelta] = {
    "minute": timedelta(hours=1),
    "hour": timedelta(days=1),
    "day": timedelta(days=30),
}
LONGEST_SERIES: Mapping[Bucket, timedelta] = {
    "minute": timedelta(hours=6),
    "hour": timedelta(days=31),
    "day": timedelta(days=731),
}
LENIENCY = timedelta(minutes=1)
"""`hours` in a query begins a moment before the period is checked."""

DEFAULT_AGGREGATE = timedelta(days=30)
DEFAULT_OVERVIEW = timedelta(days=1)
LONGEST_OVERVIEW = timedelta(days=366)
LONGEST_OVERVIEW_BY_HOUR = timedelta(days=7)
DEFAULT_LATENCY = timedelta(days=1)
LONGEST_LATENCY_OF_SUBJECT = timedelta(days=31)
"""They are stored by the day, and parts of days are computed from the requests."""

LONGEST_LATENCY_SERIES: Mapping[LatencyBucket, timedelta] = {"hour": timedelta(days=7), "day": timedelta(days=92)}
LONGEST_NARROW_LATENCY_SERIES: Mapping[LatencyBucket, timedelta] = {
    "hour": timedelta(days=1),
    "day": timedelta(days=31),
}

COLUMNS = (
    *("id", "created_at", "org_id", "user_id", "key_id", "endpoint", "model", "served_model", "upstream"),
    *("state", "status", "error_code", "streamed", "estimated", "quarantined", "cached"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "charge_nanos", "charge_credits"),
    *("duration_ms", "first_token_ms", "settled_at", "is_byok", "reasoning_tokens"),
)
COLUMNS_OF_COST = ("cost_nanos", "cost_credits", "generation_id")
SUMMED = ("prompt_tokens", "completion_tokens", "cached_tokens", "charge_nanos", "reasoning_tokens")
SUMMED_OF_COST = ("cost_nanos",)
COLUMNS_OF_REFUSED = (
    *("id", "start", "org_id", "user_id", "key_id", "model", "code", "count", "first_seen_at", "last_seen_at", "last"),
)


class Span(NamedTuple):
    since: datetime
    until: datetime | None
    """None is now, by the database's clock."""


def span(since: datetime | None, until: datetime | None, *, default: timedelta, now: datetime) -> Span:
    start = since or _before(until or now, default)
    if until and until <= start:
        raise BadRequest("`to` must be later than `from`.", param="to")
    return Span(start, until)


def series_span(bucket: Bucket, since: datetime | None, until: datetime | None, *, now: datetime) -> Span:
    found = span(since, until, default=DEFAULT_SERIES[bucket], now=now)
    _refuse_longer_than(LONGEST_SERIES[bucket], found, now, f"A series by {bucket}")
    return found


def latency_span(since: datetime | None, until: datetime | None, *, has_subject: bool, now: datetime) -> Span:
    found = span(since, until, default=DEFAULT_LATENCY, now=now)
    if has_subject:
        _refuse_longer_than(LONGEST_LATENCY_OF_SUBJECT, found, now, "The latency of an org, user or key")
    return found


def latency_series_span(
    bucket: LatencyBucket, since: datetime | None, until: datetime | None, *, is_narrow: bool, now: datetime
) -> Span:
    """`is_narrow`: of some requests only. By the hour, their latencies are computed from the requests themselves."""
    found = span(since, until, default=DEFAULT_SERIES[bucket], now=now)
    longest = LONGEST_NARROW_LATENCY_SERIES if is_narrow else LONGEST_LATENCY_SERIES
    _refuse_longer_than(longest[bucket], found, now, f"A series of latencies by {bucket}")
    return found


def overview_span(since: datetime | None, until: datetime | None, *, now: datetime) -> Span:
    found = span(since, until, default=DEFAULT_OVERVIEW, now=now)
    _refuse_longer_than(LONGEST_OVERVIEW, found, now, "The overview")
    return found


def overview_bucket(found: Span, now: datetime) -> Literal["hour", "day"]:
    return "hour" if (found.until or now) - found.since <= LONGEST_OVERVIEW_BY_HOUR + LENIENCY else "day"


def table_row(row: Mapping[str, Any], columns: Iterable[str]) -> list[Any]:
    """The cells of a row, and nothing that a spreadsheet would run."""
    return [_cell(row.get(column)) for column in columns]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
    return as_text(text) if isinstance(text, str) else text


def _before(moment: datetime, length: timedelta) -> datetime:
    return moment.astimezone(UTC) - length


def _refuse_longer_than(most: timedelta, found: Span, now: datetime, what: str) -> None:
    if (found.until or now) - found.since > most + LENIENCY:
        hours = most // timedelta(hours=1)
        limit = f"{hours} hours" if most < timedelta(days=1) else f"{most.days} days"
        raise BadRequest(f"{what} covers at most {limit}. Choose a later `from`.", param="from", most_hours=hours)
