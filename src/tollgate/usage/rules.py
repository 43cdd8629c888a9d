"""Which time a question is about, and how a request is written into a table."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from tollgate.core.errors import BadRequest
from tollgate.core.money import credits_text
from tollgate.core.spreadsheets import as_text

Bucket = Literal["minute", "hour", "day"]
Format = Literal["csv", "jsonl"]

USUAL: Mapping[Bucket, timedelta] = {
    "minute": timedelta(hours=1),
    "hour": timedelta(days=1),
    "day": timedelta(days=30),
}
"""How far a series goes back when nobody says."""
LONGEST: Mapping[Bucket, timedelta] = {
    "minute": timedelta(hours=6),
    "hour": timedelta(days=31),
    "day": timedelta(days=731),
}
USUAL_AGGREGATE = timedelta(days=30)
USUAL_LATENCY = timedelta(days=1)
LONGEST_LATENCY_OF_PEOPLE = timedelta(days=31)
"""Latencies are kept by model and upstream; those of an org, user or key are read from its requests."""

COLUMNS = (
    *("id", "created_at", "org_id", "user_id", "key_id", "endpoint", "model", "served_model", "upstream"),
    *("state", "status", "error_code", "streamed", "estimated", "quarantined"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "charge_nanos", "charge_credits"),
    *("duration_ms", "first_token_ms", "settled_at"),
)
COLUMNS_OF_COST = ("cost_nanos", "cost_credits", "generation_id")


class Span(NamedTuple):
    since: datetime
    until: datetime | None
    """None is now, by the database's clock."""


def span(since: datetime | None, until: datetime | None, *, usual: timedelta, now: datetime) -> Span:
    chosen = since or _before(until or now, usual)
    if until and until <= chosen:
        raise BadRequest("`to` must come after `from`.", param="to")
    return Span(chosen, until)


def series_span(bucket: Bucket, since: datetime | None, until: datetime | None, *, now: datetime) -> Span:
    chosen = span(since, until, usual=USUAL[bucket], now=now)
    _refuse_longer_than(LONGEST[bucket], chosen, now, f"A series by {bucket}")
    return chosen


def latency_span(since: datetime | None, until: datetime | None, *, of_people: bool, now: datetime) -> Span:
    chosen = span(since, until, usual=USUAL_LATENCY, now=now)
    if of_people:
        _refuse_longer_than(LONGEST_LATENCY_OF_PEOPLE, chosen, now, "The latency of an org, user or key")
    return chosen


def table_row(request: Mapping[str, Any], columns: Iterable[str]) -> list[Any]:
    """The cells of a request: money exactly, and nothing that a spreadsheet would run."""
    nanos = {name: request.get(f"{name}_nanos") for name in ("charge", "cost")}
    exact = {f"{name}_credits": None if amount is None else credits_text(amount) for name, amount in nanos.items()}
    return [_cell({**request, **exact}.get(column)) for column in columns]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return as_text(value) if isinstance(value, str) else value


def _before(moment: datetime, length: timedelta) -> datetime:
    return moment.astimezone(UTC) - length


def _refuse_longer_than(most: timedelta, chosen: Span, now: datetime, what: str) -> None:
    if (chosen.until or now) - chosen.since > most:
        hours = most // timedelta(hours=1)
        told = f"{hours} hours" if most < timedelta(days=1) else f"{most.days} days"
        raise BadRequest(f"{what} covers at most {told}. Ask for a shorter time.", param="from", most_hours=hours)
