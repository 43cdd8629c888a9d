"""GET /admin/monitor and /admin/overview: the state of the whole installation, in one call of the database each.

Catalogs and upstreams are shown as the instance that answers has them in memory.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Query

from tollgate.admin.schemas.monitor import Overview, OverviewQuery, SystemMonitor
from tollgate.catalog.cache import Catalog
from tollgate.catalog.rules import seconds_not_refreshed
from tollgate.core.errors import BadRequest
from tollgate.core.models import OPENROUTER
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.process import clock
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.openrouter_account import AccountCredit, OpenRouterAccount
from tollgate.usage import attention, rules
from tollgate.usage import store as usage
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals, rfc3339


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
                "openrouter": _credit(await account.credit(), _spent(day["upstreams"])),
            }
        )

    @routes.get(
        "/overview",
        summary="Compare a period with the one before, and list what needs attention",
        responses=refusals(BadRequest),
    )
    async def overview(door: Annotated[Door, Depends(gate.open)], query: Annotated[OverviewQuery, Query()]) -> Overview:
        """Both periods, the series, the top lists and the list of what to look at, in one call."""
        now = clock.now()
        span = rules.overview_span(query.since, query.until, now=now)
        bucket = rules.overview_bucket(span, now)
        until = rfc3339(span.until) if span.until else None
        found = await usage.overview(door, rfc3339(span.since), until, bucket)
        openrouter = _credit(await account.credit(), found["openrouter_day_nanos"])
        here = attention.of_instance(
            failing=[state.id for state in upstreams.states() if state.breaker == "open"],
            stale_seconds=seconds_not_refreshed(catalogs["live"].state()),
            days_left=openrouter["days_left"],
        )
        shown = attention.shown([*found["attention"], *attention.of_orgs(found), *here])
        return Overview.model_validate(found | {"bucket": bucket, "openrouter": openrouter, "attention": shown})

    return routes


def _spent(shares: list[dict[str, Any]]) -> int:
    return sum(share["cost_nanos"] for share in shares if share["upstream"] == OPENROUTER)


def _credit(credit: AccountCredit, spent: int) -> dict[str, Any]:
    """`spent`: at OpenRouter in the last 24 hours."""
    return {
        "credits_nanos": credit.nanos,
        "days_left": max(0, credit.nanos) / spent if credit.nanos is not None and spent else None,
        "reason": credit.reason,
    }
