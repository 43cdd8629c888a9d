"""GET /user/monitor and GET /user/key/usage."""

from typing import Annotated

from fastapi import Depends

from tollgate.account.schemas.monitor import OwnMonitor, OwnUsage
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.usage import store as usage
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
        "/user/key/usage",
        summary="Get the usage and quota of this key",
        responses=refusals(),
    )
    async def key_usage(door: Annotated[Door, Depends(gate.open)]) -> OwnUsage:
        return OwnUsage.model_validate(await usage.key_usage(door))

    return routes
