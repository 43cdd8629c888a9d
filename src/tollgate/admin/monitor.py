"""GET /admin/monitor: the whole house at one look.

One call of the database. What the catalogues and the breakers say is of this instance alone, from its memory.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends

from tollgate.admin.funds import Funds, Left
from tollgate.admin.monitor_forms import HouseMonitor
from tollgate.catalog.cache import Catalog
from tollgate.core.models import OPENROUTER
from tollgate.core.money import to_credits
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.upstreams.client import Upstreams
from tollgate.usage import monitor as usage
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate, catalogs: Mapping[Environment, Catalog], upstreams: Upstreams, funds: Funds) -> Routes:
    routes = Routes(prefix="/admin")

    @routes.get(
        "/monitor",
        summary="The whole house at one look",
        responses=refusals(),
        openapi_extra={"x-stability": "stable"},
    )
    async def monitor(door: Annotated[Door, Depends(gate.open)]) -> HouseMonitor:
        found = await usage.of_all(door)
        day = found["last_24_hours"]
        return HouseMonitor.model_validate(
            found
            | {
                "last_24_hours": day | {"error_rate": day["errors"] / day["requests"] if day["requests"] else None},
                "catalog": {name: catalog.state()._asdict() for name, catalog in catalogs.items()},
                "upstreams": [state._asdict() for state in upstreams.states()],
                "openrouter": _credit(await funds.left(), day["upstreams"]),
            }
        )

    return routes


def _credit(left: Left, shares: list[dict[str, Any]]) -> dict[str, Any]:
    spent = sum(share["cost_nanos"] for share in shares if share["upstream"] == OPENROUTER)
    return {
        "credits": to_credits(left.nanos) if left.nanos is not None else None,
        "credits_nanos": left.nanos,
        "days_left": max(0, left.nanos) / spent if left.nanos is not None and spent else None,
        "reason": left.reason,
    }
