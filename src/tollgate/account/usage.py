"""/user/usage: an org's own requests, and what each of its keys used. What they cost us is never told."""

from typing import Annotated, Any

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.usage import asked, counted, export, store
from tollgate.usage.answered import Aggregate, KeyUsage, RequestRow, Series
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

MAY_MEET: dict[str, Any] = {
    "responses": refusals(errors.BadRequest),
    "openapi_extra": {"x-stability": "stable"},
}


def router(gate: Gate) -> Routes:
    routes = Routes()
    opened = Depends(gate.open)

    @routes.get("/user/usage", summary="Your org's requests, newest first", **MAY_MEET)
    async def requests(door: Annotated[Door, opened], query: Annotated[asked.OwnRequests, Query()]) -> Page[RequestRow]:
        """A page may be short, even empty, while next_cursor is not null: a call looks at so many requests only."""
        return Page[RequestRow].of(await store.requests(door, query.filters(), query.limit, everyone=False))

    @routes.get(
        "/user/usage/aggregate",
        summary="What your org used, by model, key, user, upstream or day",
        response_model_exclude_unset=True,
        **MAY_MEET,
    )
    async def aggregate(door: Annotated[Door, opened], query: Annotated[asked.OwnAggregate, Query()]) -> Aggregate:
        return Aggregate(**await counted.aggregate(door, query, everyone=False))

    @routes.get("/user/usage/series", summary="What your org used, by minute, hour or day", **MAY_MEET)
    async def series(door: Annotated[Door, opened], query: Annotated[asked.OwnSeries, Query()]) -> Series:
        return Series(**await counted.series(door, query, everyone=False))

    @routes.get(
        "/user/usage/export",
        summary="Your org's requests as a file, as many as there are",
        response_class=StreamingResponse,
        responses=refusals(errors.BadRequest) | export.DOCUMENTED,
        openapi_extra={"x-stability": "stable"},
    )
    async def file(door: Annotated[Door, opened], query: Annotated[asked.OwnFile, Query()]) -> StreamingResponse:
        return await export.response(door, query.format, query.filters(), everyone=False)

    @routes.get("/user/api-keys/usage", summary="What each key of your org used", **MAY_MEET)
    async def of_keys(door: Annotated[Door, opened], query: Annotated[asked.Paged, Query()]) -> Page[KeyUsage]:
        return Page[KeyUsage].of(await store.of_keys(door, query.filters(), query.limit))

    return routes
