"""The account as OpenRouter's clients ask for it, under /api/v1: credits, key, generations and activity."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.account.schemas.openrouter import (
    ActivityQuery,
    GenerationQuery,
    OpenRouterActivity,
    OpenRouterCredits,
    OpenRouterGeneration,
    OpenRouterKey,
)
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.process import clock
from tollgate.usage import store
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

BY = ("day", "model", "upstream")
MOST_ROWS = 100_000


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/api/v1")
    opened = Depends(gate.open)

    @routes.get("/credits", summary="Get the credits of your org, as OpenRouter does", responses=refusals())
    async def credits_of_org(door: Annotated[Door, opened]) -> OpenRouterCredits:
        """Needs the scope `usage`. Exact amounts are in /user/balance."""
        return OpenRouterCredits.of(await store.credits_readout(door))

    @routes.get("/key", summary="Get your key, as OpenRouter does", responses=refusals(errors.NotFound))
    async def key(door: Annotated[Door, opened]) -> OpenRouterKey:
        return OpenRouterKey.of(await store.key_readout(door))

    @routes.get(
        "/generation",
        summary="Get one paid call of your org, as OpenRouter does",
        responses=refusals(errors.BadRequest, errors.NotFound),
    )
    async def generation(
        door: Annotated[Door, opened], query: Annotated[GenerationQuery, Query()]
    ) -> OpenRouterGeneration:
        """404 until the call is settled, and for the id of an upstream that is not among the newest 50,000 calls of
        the org. Needs the scope `usage`."""
        return OpenRouterGeneration.of(await store.generation(door, query.id))

    @routes.get(
        "/activity",
        summary="Get your org's usage of the last 30 completed days, as OpenRouter does",
        responses=refusals(errors.BadRequest),
    )
    async def activity(door: Annotated[Door, opened], query: Annotated[ActivityQuery, Query()]) -> OpenRouterActivity:
        """By day (UTC), model and upstream, the newest day first. Needs the scope `usage`."""
        filters = query.filters_at(clock.now())
        return OpenRouterActivity.of(await store.aggregate(door, BY, filters, MOST_ROWS, everyone=False))

    return routes
