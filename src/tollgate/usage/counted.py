"""Usage counted, over the time that was asked for or the usual one. `everyone` is for admins."""

from datetime import datetime
from typing import Any

from tollgate.database import Door
from tollgate.process import clock
from tollgate.usage import asked, rules, store


async def aggregate(door: Door, query: asked.OwnAggregate | asked.WholeAggregate, *, everyone: bool) -> dict[str, Any]:
    now = clock.now()
    span = rules.span(query.since, query.until, usual=rules.USUAL_AGGREGATE, now=now)
    filters = query.over(span) | {"sort": query.order}
    found = await store.aggregate(door, query.by, filters, query.limit, everyone=everyone)
    return {**found, "by": query.by, **_over(span, now)}


async def series(door: Door, query: asked.OwnSeries, *, everyone: bool) -> dict[str, Any]:
    now = clock.now()
    span = rules.series_span(query.bucket, query.since, query.until, now=now)
    found = await store.series(door, query.bucket, query.over(span), everyone=everyone)
    return {**found, "bucket": query.bucket, **_over(span, now)}


async def latency(door: Door, kind: str, query: asked.LatencyOf) -> dict[str, Any]:
    now = clock.now()
    span = rules.latency_span(query.since, query.until, of_people=query.of_people, now=now)
    return {**await store.latency(door, kind, query.over(span)), **_over(span, now)}


def _over(span: rules.Span, now: datetime) -> dict[str, datetime]:
    return {"since": span.since, "until": span.until or now}
