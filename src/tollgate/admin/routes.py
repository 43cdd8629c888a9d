"""What an operator does: /admin/*, one file for each noun."""

from collections.abc import Mapping

from tollgate.admin import (
    audit,
    compliance,
    credits,
    keys,
    limits,
    metrics,
    models,
    monitor,
    orgs,
    plans,
    security,
    system,
    upstreams,
    usage,
    users,
)
from tollgate.admin.funds import Funds
from tollgate.catalog.memory import Catalog
from tollgate.keys.gate import IN_THE_DOCUMENT, Gate
from tollgate.keys.rules import Environment
from tollgate.runtime.lag import LoopLag
from tollgate.runtime.routing import Routes
from tollgate.runtime.settings import Settings
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.health import Checkup


def router(
    gate: Gate,
    chosen: Settings,
    *,
    catalogs: Mapping[Environment, Catalog],
    outward: Upstreams,
    checkup: Checkup,
    funds: Funds,
    lag: LoopLag,
) -> Routes:
    routes = Routes(tags=["admin"], dependencies=IN_THE_DOCUMENT, guard=gate.guard_operators)
    routes.take(audit.router(gate))
    routes.take(orgs.router(gate))
    routes.take(users.router(gate))
    routes.take(plans.router(gate))
    routes.take(limits.router(gate))
    routes.take(keys.router(gate, chosen.peppers[0]))
    routes.take(credits.router(gate, chosen))
    routes.take(usage.router(gate))
    routes.take(monitor.router(gate, catalogs, outward, funds))
    routes.take(metrics.router(gate, catalogs, outward, funds, lag))
    routes.take(upstreams.router(gate, catalogs["live"], outward, checkup))
    routes.take(models.router(gate, catalogs))
    routes.take(security.router(gate))
    routes.take(compliance.router(gate))
    routes.take(system.router(gate))
    return routes
