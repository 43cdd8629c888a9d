"""/admin/usage: everyone's requests, with what they cost us; /v1/admin/logs is the same list under its other name,
and the one place where what was said can be read."""

from typing import Annotated, Any

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.usage import asked, counted, export, store
from tollgate.usage.answered import Latency, LoggedRequestRow, PaidAggregate, PaidRequestRow, PaidSeries
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

MAY_MEET: dict[str, Any] = {
    "responses": refusals(errors.BadRequest),
    "openapi_extra": {"x-stability": "stable"},
}


def router(gate: Gate) -> Routes:
    routes = Routes()
    opened = Depends(gate.open)

    @routes.get("/admin/usage", summary="Requests of everyone, newest first", **MAY_MEET)
    async def requests(
        door: Annotated[Door, opened], query: Annotated[asked.AllRequests, Query()]
    ) -> Page[PaidRequestRow]:
        """A page may be short, even empty, while next_cursor is not null: a call looks at so many requests only."""
        return Page[PaidRequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=True))

    @routes.get(
        "/v1/admin/logs",
        summary="Requests of everyone, newest first, and what was said in them where that is asked for",
        response_model_exclude_unset=True,
        **MAY_MEET,
    )
    async def logs(door: Annotated[Door, opened], query: Annotated[asked.Logs, Query()]) -> Page[LoggedRequestRow]:
        """A page may be short, even empty, while next_cursor is not null: a call looks at so many requests only."""
        if query.include:
            most = min(query.limit, asked.MOST_WITH_CONTENT)
            return Page[LoggedRequestRow].of(await store.contents(door, query.filters(), most))
        return Page[LoggedRequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=True))

    @routes.get(
        "/admin/usage/aggregate",
        summary="What was used, by model, key, user, org, upstream or day",
        response_model_exclude_unset=True,
        **MAY_MEET,
    )
    async def aggregate(
        door: Annotated[Door, opened], query: Annotated[asked.WholeAggregate, Query()]
    ) -> PaidAggregate:
        return PaidAggregate(**await counted.aggregate(door, query, everyone=True))

    @routes.get("/admin/usage/series", summary="What was used, by minute, hour or day", **MAY_MEET)
    async def series(door: Annotated[Door, opened], query: Annotated[asked.WholeSeries, Query()]) -> PaidSeries:
        return PaidSeries(**await counted.series(door, query, everyone=True))

    @routes.get("/admin/usage/latency", summary="How long requests took", **MAY_MEET)
    async def latency(door: Annotated[Door, opened], query: Annotated[asked.LatencyOf, Query()]) -> Latency:
        return Latency(**await counted.latency(door, "whole", query))

    @routes.get("/admin/usage/ttft", summary="How long requests took until their first token", **MAY_MEET)
    async def first_token(door: Annotated[Door, opened], query: Annotated[asked.LatencyOf, Query()]) -> Latency:
        return Latency(**await counted.latency(door, "first_token", query))

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
