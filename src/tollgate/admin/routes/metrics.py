"""GET /metrics: the figures of the monitor for Prometheus, in one call of the database.

Daily counters restart at midnight UTC, which `rate()` and `increase()` treat as a restart of the process. Figures of
catalogs and upstreams are those of this instance; all others are those of the whole installation.
"""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends
from starlette.responses import PlainTextResponse

from tollgate.admin.schemas.metrics import of_database, of_instance, render
from tollgate.catalog.cache import Catalog
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.process.loop_lag import LoopLag
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.openrouter_account import OpenRouterAccount
from tollgate.usage import store as usage
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


class Exposition(PlainTextResponse):
    media_type = "text/plain; version=0.0.4"


def router(
    gate: Gate, catalogs: Mapping[Environment, Catalog], upstreams: Upstreams, account: OpenRouterAccount, lag: LoopLag
) -> Routes:
    routes = Routes()

    @routes.get(
        "/metrics",
        summary="Get the figures of the monitor in Prometheus' format",
        responses=refusals(),
        response_class=Exposition,
        openapi_extra={"x-stability": "experimental"},
    )
    async def metrics(door: Annotated[Door, Depends(gate.open)]) -> Exposition:
        found = await usage.monitor(door)
        credit = await account.credit()
        states = {name: catalog.state() for name, catalog in catalogs.items()}
        shared, own = of_database(found, credit), of_instance(states, upstreams.states(), lag.times_blocked)
        return Exposition(render([*shared, *own]))

    return routes
