"""/user/usage: the requests of an org, and what each of its keys used. Our own cost is not shown."""

from typing import Annotated

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from tollgate.account.schemas.usage import OwnRequestLife
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.usage import export, store
from tollgate.usage import routes as usage
from tollgate.usage.request import life
from tollgate.usage.schemas import (
    Aggregate,
    KeyUsage,
    OwnAggregateQuery,
    OwnExportQuery,
    OwnRefusedExportQuery,
    OwnRefusedQuery,
    OwnRequestsQuery,
    OwnSeriesQuery,
    RefusedCalls,
    RequestId,
    RequestRow,
    Series,
)
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Page, PageQuery, refusals

ERRORS = refusals(errors.BadRequest)


def router(gate: Gate) -> Routes:
    routes = Routes()
    opened = Depends(gate.open)

    @routes.get("/user/usage", summary="List your org's requests, newest first", responses=ERRORS)
    async def requests(door: Annotated[Door, opened], query: Annotated[OwnRequestsQuery, Query()]) -> Page[RequestRow]:
        """Each call examines a limited number of requests, so a page may be short or empty while next_cursor is not
        null."""
        return Page[RequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=False))

    @routes.get("/user/usage/refused", summary="Count the paid calls of your org that were refused", responses=ERRORS)
    async def refused(door: Annotated[Door, opened], query: Annotated[OwnRefusedQuery, Query()]) -> Page[RefusedCalls]:
        """Calls refused with 402, 403 or 429, by hour, key, model and code, with the last of each; kept for 30 days.
        Servers write their counts every few seconds, beside a later request."""
        return Page[RefusedCalls].of(await store.refused_calls(door, query.filters(), query.limit, everyone=False))

    @routes.get(
        "/user/usage/refused/export",
        summary="Export the counts of refused calls of your org as a file",
        response_class=StreamingResponse,
        responses=ERRORS | export.DOCUMENTED,
    )
    async def refused_file(
        door: Annotated[Door, opened], query: Annotated[OwnRefusedExportQuery, Query()]
    ) -> StreamingResponse:
        return await export.refused_calls(door, query.format, query.filters(), everyone=False)

    @routes.get(
        "/user/usage/aggregate",
        summary="Sum up your org's usage by model, key, user, upstream or day",
        response_model_exclude_unset=True,
        responses=ERRORS,
    )
    async def aggregate(door: Annotated[Door, opened], query: Annotated[OwnAggregateQuery, Query()]) -> Aggregate:
        return Aggregate(**await usage.aggregate(door, query, everyone=False))

    @routes.get("/user/usage/series", summary="Get your org's usage by minute, hour or day", responses=ERRORS)
    async def series(door: Annotated[Door, opened], query: Annotated[OwnSeriesQuery, Query()]) -> Series:
        return Series(**await usage.series(door, query, everyone=False))

    @routes.get(
        "/user/usage/export",
        summary="Export your org's requests as a file",
        response_class=StreamingResponse,
        responses=ERRORS | export.DOCUMENTED,
    )
    async def file(door: Annotated[Door, opened], query: Annotated[OwnExportQuery, Query()]) -> StreamingResponse:
        return await export.requests(door, query.format, query.filters(), everyone=False, totals=query.totals)

    @routes.get(
        "/user/usage/{request_id}",
        summary="Get one request of your org: its hold, attempts, charge and ledger",
        responses=refusals(errors.BadRequest, errors.NotFound),
    )
    async def one(door: Annotated[Door, opened], request_id: RequestId) -> OwnRequestLife:
        return OwnRequestLife.model_validate(
            life(await store.request(door, request_id, everyone=False), everyone=False)
        )

    @routes.get("/user/api-keys/usage", summary="Get the usage of each key of your org", responses=ERRORS)
    async def of_keys(door: Annotated[Door, opened], query: Annotated[PageQuery, Query()]) -> CountedPage[KeyUsage]:
        return CountedPage[KeyUsage].of(await store.of_keys(door, query.filters(), query.limit))

    return routes
