"""GET /user/monitor, /user/overview and GET /user/key/usage."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.account.schemas.monitor import OwnMonitor, OwnOverview, OwnUsage
from tollgate.core.errors import BadRequest
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.usage import routes as usage_routes
from tollgate.usage import store as usage
from tollgate.usage.schemas import OwnOverviewQuery
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate) -> Routes:
    routes = Routes()

    @routes.get(
        "/user/monitor",
        summary="Get balance, usage and limits in one call",
        responses=refusals(),
    )
    async def monitor(door: Annotated[Door, Depends(gate.open)]) -> OwnMonitor:
        return OwnMonitor.model_validate(await usage.own_monitor(door))

    @routes.get(
        "/user/overview",
        summary="Get balance, limits, usage over time and by model in one call",
        response_model_exclude_unset=True,
        responses=refusals(BadRequest),
    )
    async def overview(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[OwnOverviewQuery, Query()]
    ) -> OwnOverview:
        """/user/monitor, with the series and the models of a period: the last 24 hours by default."""
        return OwnOverview.model_validate(await usage_routes.own_overview(door, query))

    @routes.get(
        "/user/key/usage",
        summary="Get the usage and quota of this key",
        responses=refusals(),
    )
    async def key_usage(door: Annotated[Door, Depends(gate.open)]) -> OwnUsage:
        return OwnUsage.model_validate(await usage.key_usage(door))

    return routes
