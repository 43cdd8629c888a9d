"""/admin/usage: everyone's requests, with what they cost us; /v1/admin/logs is the same list under its other name."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from tollgate.core import errors
from tollgate.keys.gate import Gate
from tollgate.runtime import clock
from tollgate.runtime.database import Door
from tollgate.runtime.forms import Page, refusals
from tollgate.usage import asked, export, rules, store
from tollgate.usage.answered import Latency, PaidAggregate, PaidRequestRow, PaidSeries

MAY_MEET: dict[str, Any] = {
    "responses": refusals(errors.BadRequest),
    "openapi_extra": {"x-stability": "stable"},
}


def router(gate: Gate) -> APIRouter:
    routes = APIRouter()
    opened = Depends(gate.open)

    @routes.get("/admin/usage", summary="Requests of everyone, newest first", **MAY_MEET)
    async def requests(
        door: Annotated[Door, opened], query: Annotated[asked.AllRequests, Query()]
    ) -> Page[PaidRequestRow]:
        return Page[PaidRequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=True))

    @routes.get("/v1/admin/logs", summary="Requests of everyone, newest first: metadata only", **MAY_MEET)
    async def logs(door: Annotated[Door, opened], query: Annotated[asked.Logs, Query()]) -> Page[PaidRequestRow]:
        return Page[PaidRequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=True))

    @routes.get(
        "/admin/usage/aggregate",
        summary="What was used, by model, key, user, org, upstream or day",
        response_model_exclude_unset=True,
        **MAY_MEET,
    )
    async def aggregate(
        door: Annotated[Door, opened], query: Annotated[asked.WholeAggregate, Query()]
    ) -> PaidAggregate:
        now = clock.now()
        span = rules.span(query.since, query.until, usual=rules.USUAL_AGGREGATE, now=now)
        found = await store.aggregate(
            door, query.by, query.over(span) | {"sort": query.order}, query.limit, everyone=True
        )
        return PaidAggregate(**found, by=query.by, since=span.since, until=span.until or now)

    @routes.get("/admin/usage/series", summary="What was used, by minute, hour or day", **MAY_MEET)
    async def series(door: Annotated[Door, opened], query: Annotated[asked.WholeSeries, Query()]) -> PaidSeries:
        now = clock.now()
        span = rules.series_span(query.bucket, query.since, query.until, now=now)
        found = await store.series(door, query.bucket, query.over(span), everyone=True)
        return PaidSeries(**found, bucket=query.bucket, since=span.since, until=span.until or now)

    @routes.get("/admin/usage/latency", summary="How long requests took", **MAY_MEET)
    async def latency(door: Annotated[Door, opened], query: Annotated[asked.LatencyOf, Query()]) -> Latency:
        return await _latency(door, "whole", query)

    @routes.get("/admin/usage/ttft", summary="How long requests took until their first token", **MAY_MEET)
    async def first_token(door: Annotated[Door, opened], query: Annotated[asked.LatencyOf, Query()]) -> Latency:
        return await _latency(door, "first_token", query)

    @routes.get(
        "/admin/usage/export",
        summary="Requests of everyone as a file, as many as there are",
        response_class=StreamingResponse,
        responses=refusals(errors.BadRequest) | export.DOCUMENTED,
        openapi_extra={"x-stability": "stable"},
    )
    async def file(door: Annotated[Door, opened], query: Annotated[asked.WholeFile, Query()]) -> StreamingResponse:
        return await export.response(door, query.format, query.filters(), everyone=True)

    return routes


async def _latency(door: Door, kind: str, query: asked.LatencyOf) -> Latency:
    now = clock.now()
    span = rules.latency_span(query.since, query.until, of_people=query.of_people, now=now)
    found = await store.latency(door, kind, query.over(span))
    return Latency(**found, since=span.since, until=span.until or now)
