"""What an operator does: /admin/*, one file for each noun."""

from collections.abc import Mapping

from fastapi import APIRouter

from tollgate.admin import (
    audit,
    compliance,
    credits,
    keys,
    limits,
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
) -> APIRouter:
    routes = APIRouter(tags=["admin"], dependencies=IN_THE_DOCUMENT)
    routes.include_router(audit.router(gate))
    routes.include_router(orgs.router(gate))
    routes.include_router(users.router(gate))
    routes.include_router(plans.router(gate))
    routes.include_router(limits.router(gate))
    routes.include_router(keys.router(gate, chosen.peppers[0]))
    routes.include_router(credits.router(gate, chosen))
    routes.include_router(usage.router(gate))
    routes.include_router(monitor.router(gate, catalogs, outward, funds))
    routes.include_router(upstreams.router(gate, catalogs["live"], outward, checkup))
    routes.include_router(models.router(gate, catalogs))
    routes.include_router(security.router(gate))
    routes.include_router(compliance.router(gate))
    routes.include_router(system.router(gate))
    return routes
