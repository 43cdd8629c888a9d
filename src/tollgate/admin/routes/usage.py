"""/admin/usage: the requests of all orgs, with what they cost us. /admin/logs lists them with their content."""

from typing import Annotated

from fastapi import Depends, Path, Query
from fastapi.responses import StreamingResponse

from tollgate.admin.schemas.usage import PaidRequestLife
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.usage import export, store
from tollgate.usage import routes as usage
from tollgate.usage.request import life
from tollgate.usage.schemas import (
    MOST_WITH_CONTENT,
    AllAggregateQuery,
    AllExportQuery,
    AllRefusedExportQuery,
    AllRefusedQuery,
    AllRequestsQuery,
    AllSeriesQuery,
    Latency,
    LatencyQuery,
    LatencySeries,
    LatencySeriesQuery,
    LoggedRequestRow,
    LogsQuery,
    PaidAggregate,
    PaidRequestRow,
    PaidSeries,
    RefusedCalls,
    RequestId,
    RequestQuery,
)
from tollgate.web.routing import Routes
from tollgate.web.schemas import Identifier, Page, refusals

ERRORS = refusals(errors.BadRequest)


def router(gate: Gate) -> Routes:
    routes = Routes()
    opened = Depends(gate.open)

    @routes.get("/admin/usage", summary="List the requests of all orgs, newest first", responses=ERRORS)
    async def requests(
        door: Annotated[Door, opened], query: Annotated[AllRequestsQuery, Query()]
    ) -> Page[PaidRequestRow]:
        """Each call examines a limited number of requests, so a page may be short or empty while next_cursor is not
        null."""
        return Page[PaidRequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=True))

    @routes.get(
        "/admin/logs",
        summary="List the requests of all orgs, newest first, with prompts and answers if asked for",
        response_model_exclude_unset=True,
        responses=ERRORS,
    )
    async def logs(door: Annotated[Door, opened], query: Annotated[LogsQuery, Query()]) -> Page[LoggedRequestRow]:
        """Each call examines a limited number of requests, so a page may be short or empty while next_cursor is not
        null."""
        if query.include:
            most = min(query.limit, MOST_WITH_CONTENT)
            return Page[LoggedRequestRow].of(await store.contents(door, query.filters(), most))
        return Page[LoggedRequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=True))

    @routes.get("/admin/usage/refused", summary="Count the paid calls of all orgs that were refused", responses=ERRORS)
    async def refused(door: Annotated[Door, opened], query: Annotated[AllRefusedQuery, Query()]) -> Page[RefusedCalls]:
        """Calls refused with 402, 403 or 429, by hour, key, model and code, with the last of each; kept for 30 days.
        Servers write their counts every few seconds, beside a later request."""
        return Page[RefusedCalls].of(await store.refused_calls(door, query.filters(), query.limit, everyone=True))

    @routes.get(
        "/admin/usage/refused/export",
        summary="Export the counts of refused calls of all orgs as a file",
        response_class=StreamingResponse,
        responses=ERRORS | export.DOCUMENTED,
    )
    async def refused_file(
        door: Annotated[Door, opened], query: Annotated[AllRefusedExportQuery, Query()]
    ) -> StreamingResponse:
        return await export.refused_calls(door, query.format, query.filters(), everyone=True)

    @routes.get(
        "/admin/usage/refused/{row_id}",
        summary="Get one count of refused paid calls",
        responses=refusals(errors.BadRequest, errors.NotFound),
    )
    async def refused_one(
        door: Annotated[Door, opened], row_id: Annotated[Identifier, Path(description="The id of the count.")]
    ) -> RefusedCalls:
        return RefusedCalls.model_validate(await store.refused_call(door, row_id))

    @routes.get(
        "/admin/usage/aggregate",
        summary="Sum up usage by model, key, user, org, upstream or day",
        response_model_exclude_unset=True,
        responses=ERRORS,
    )
    async def aggregate(door: Annotated[Door, opened], query: Annotated[AllAggregateQuery, Query()]) -> PaidAggregate:
        return PaidAggregate(**await usage.aggregate(door, query, everyone=True))

    @routes.get("/admin/usage/series", summary="Get usage by minute, hour or day", responses=ERRORS)
    async def series(door: Annotated[Door, opened], query: Annotated[AllSeriesQuery, Query()]) -> PaidSeries:
        return PaidSeries(**await usage.series(door, query, everyone=True, by=query.by))

    @routes.get("/admin/usage/latency", summary="Get the duration of requests", responses=ERRORS)
    async def latency(door: Annotated[Door, opened], query: Annotated[LatencyQuery, Query()]) -> Latency:
        return Latency(**await usage.latency(door, "whole", query))

    @routes.get(
        "/admin/usage/latency/series",
        summary="Get the duration of requests and the time to first token by hour or day",
        responses=ERRORS,
    )
    async def latency_series(
        door: Annotated[Door, opened], query: Annotated[LatencySeriesQuery, Query()]
    ) -> LatencySeries:
        return LatencySeries(**await usage.latency_series(door, query))

    @routes.get("/admin/usage/ttft", summary="Get the time to first token", responses=ERRORS)
    async def first_token(door: Annotated[Door, opened], query: Annotated[LatencyQuery, Query()]) -> Latency:
        return Latency(**await usage.latency(door, "first_token", query))

    @routes.get(
        "/admin/usage/export",
        summary="Export the requests of all orgs as a file",
        response_class=StreamingResponse,
        responses=ERRORS | export.DOCUMENTED,
    )
    async def file(door: Annotated[Door, opened], query: Annotated[AllExportQuery, Query()]) -> StreamingResponse:
        return await export.requests(door, query.format, query.filters(), everyone=True, totals=query.totals)

    @routes.get(
        "/admin/usage/{request_id}",
        summary="Get one request: its hold, attempts, settlement and ledger",
        responses=refusals(errors.BadRequest, errors.NotFound),
    )
    async def one(
        door: Annotated[Door, opened], request_id: RequestId, query: Annotated[RequestQuery, Query()]
    ) -> PaidRequestLife:
        """Attempts are stored from the first one that was not answered at once. Not stored: the routes that were not
        reached, and the time until the first byte of each attempt."""
        found = await store.request(door, request_id, everyone=True, content=query.include == "content")
        return PaidRequestLife.model_validate(life(found, everyone=True))

    return routes
