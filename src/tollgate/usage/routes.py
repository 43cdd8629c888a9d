"""What the routes of usage share: counts over the period of the query, or over the default one.

`everyone` counts all orgs, for operators; else the org of the caller.
"""

from datetime import datetime
from typing import Any

from tollgate.database import Door
from tollgate.process import clock
from tollgate.usage import rules, schemas, store


async def aggregate(
    door: Door, query: schemas.OwnAggregateQuery | schemas.AllAggregateQuery, *, everyone: bool
) -> dict[str, Any]:
    now = clock.now()
    span = rules.span(query.since, query.until, default=rules.DEFAULT_AGGREGATE, now=now)
    filters = query.over(span) | {"sort": query.order}
    found = await store.aggregate(door, query.by, filters, query.limit, everyone=everyone)
    return {**found, "by": query.by, **_over(span, now)}


async def series(door: Door, query: schemas.OwnSeriesQuery, *, everyone: bool, by: str | None = None) -> dict[str, Any]:
    now = clock.now()
    span = rules.series_span(query.bucket, query.since, query.until, now=now)
    filters = query.over(span) | ({"by": by} if by else {})
    found = await store.series(door, query.bucket, filters, everyone=everyone)
    return {**found, "bucket": query.bucket, **_over(span, now)}


async def own_overview(door: Door, query: schemas.OwnOverviewQuery) -> dict[str, Any]:
    now = clock.now()
    span = rules.overview_span(query.since, query.until, now=now)
    bucket = rules.overview_bucket(span, now)
    over = _over(span, now)
    found = await store.own_overview(door, bucket, query.over(span))
    series = {**found["series"], "bucket": bucket, **over}
    return {**found, "series": series, "models": {**found["models"], "by": ["model"], **over}}


async def latency(door: Door, kind: str, query: schemas.LatencyQuery) -> dict[str, Any]:
    now = clock.now()
    span = rules.latency_span(query.since, query.until, has_subject=query.has_subject, now=now)
    return {**await store.latency(door, kind, query.over(span)), **_over(span, now)}


async def latency_series(door: Door, query: schemas.LatencySeriesQuery) -> dict[str, Any]:
    now = clock.now()
    span = rules.latency_series_span(
        query.bucket, query.since, query.until, is_narrow=query.has_subject or query.has_model, now=now
    )
    found = await store.latency_series(door, query.bucket, query.over(span))
    return {**found, "bucket": query.bucket, **_over(span, now)}


def _over(span: rules.Span, now: datetime) -> dict[str, datetime]:
    return {"since": span.since, "until": span.until or now}
