"""GET /admin/monitor: the state of the whole installation, in one call of the database.

Catalogs and upstreams are shown as the instance that answers has them in memory.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends

from tollgate.admin.schemas.monitor import SystemMonitor
from tollgate.catalog.cache import Catalog
from tollgate.core.models import OPENROUTER
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.openrouter_account import AccountCredit, OpenRouterAccount
from tollgate.usage import store as usage
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(
    gate: Gate, catalogs: Mapping[Environment, Catalog], upstreams: Upstreams, account: OpenRouterAccount
) -> Routes:
    routes = Routes(prefix="/admin")

    @routes.get(
        "/monitor",
        summary="Get the state of the whole installation",
        responses=refusals(),
    )
    async def monitor(door: Annotated[Door, Depends(gate.open)]) -> SystemMonitor:
        found = await usage.monitor(door)
        day = found["last_24_hours"]
        return SystemMonitor.model_validate(
            found
            | {
                "last_24_hours": day | {"error_rate": day["errors"] / day["requests"] if day["requests"] else None},
                "catalog": {name: catalog.state()._asdict() for name, catalog in catalogs.items()},
                "upstreams": [state._asdict() for state in upstreams.states()],
                "openrouter": _credit(await account.credit(), day["upstreams"]),
            }
        )

    return routes


def _credit(credit: AccountCredit, shares: list[dict[str, Any]]) -> dict[str, Any]:
    spent = sum(share["cost_nanos"] for share in shares if share["upstream"] == OPENROUTER)
    return {
        "credits_nanos": credit.nanos,
        "days_left": max(0, credit.nanos) / spent if credit.nanos is not None and spent else None,
        "reason": credit.reason,
    }
