"""The routes of operators."""

from collections.abc import Mapping

from tollgate.admin.routes import (
    alerts,
    aliases,
    audit,
    backups,
    cache,
    catalog,
    compliance,
    credits,
    deployments,
    fleet,
    hf_tokens,
    hosts,
    keys,
    limits,
    monitor,
    orgs,
    plans,
    reconciliation,
    registered_models,
    registry,
    security,
    system,
    upstream_keys,
    upstreams,
    usage,
    users,
)
from tollgate.alerts.channels import Channels
from tollgate.cache.lookups import Cache
from tollgate.catalog.cache import Catalog
from tollgate.fleet.tasks import Tasks
from tollgate.health.node_exporter import NodeExporter
from tollgate.keys.authentication import WITH_SESSIONS, Gate
from tollgate.keys.rules import Environment
from tollgate.process.machine import Machine
from tollgate.reconciliation.reconciler import Reconciler
from tollgate.settings import Settings
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.health_checks import Checkup
from tollgate.upstreams.openrouter_account import OpenRouterAccount
from tollgate.vault.rules import Vault
from tollgate.vault.upstream_keys import UpstreamKeyHandlers
from tollgate.web.routing import Routes


def router(
    gate: Gate,
    chosen: Settings,
    *,
    catalogs: Mapping[Environment, Catalog],
    outward: Upstreams,
    checkup: Checkup,
    account: OpenRouterAccount,
    completion_cache: Cache,
    tasks: Tasks,
    channels: Channels,
    host: str,
    reconciler: Reconciler,
    machine: Machine,
    prometheus: NodeExporter | None,
) -> Routes:
    routes = Routes(tags=["admin"], dependencies=WITH_SESSIONS, guard=gate.guard_operators)
    routes.take(audit.router(gate))
    routes.take(orgs.router(gate))
    routes.take(users.router(gate, secure=chosen.production))
    routes.take(plans.router(gate))
    routes.take(limits.router(gate))
    routes.take(keys.router(gate, chosen.peppers[0]))
    routes.take(credits.router(gate, chosen))
    routes.take(usage.router(gate))
    routes.take(monitor.router(gate, catalogs, outward, account))
    routes.take(upstreams.router(gate, catalogs["live"], outward, checkup))
    routes.take(catalog.router(gate, catalogs, outward, chosen.markup_ppm))
    routes.take(registry.router(gate, catalogs["live"]))
    routes.take(aliases.router(gate, catalogs["live"]))
    routes.take(cache.router(gate, completion_cache))
    routes.take(security.router(gate))
    routes.take(alerts.router(gate, channels))
    routes.take(compliance.router(gate))
    vault = Vault(chosen.vault_keys)
    routes.take(upstream_keys.router(gate, UpstreamKeyHandlers(vault, chosen.openrouter_base_url)))
    routes.take(hf_tokens.router(gate, vault))
    routes.take(system.router(gate, chosen, host))
    is_configured = chosen.agent_key is not None
    routes.take(hosts.router(gate, catalogs["live"], tasks, configured=is_configured, secure=chosen.production))
    routes.take(deployments.router(gate, catalogs["live"], tasks))
    routes.take(registered_models.router(gate, catalogs["live"], tasks))
    routes.take(fleet.router(gate, machine, prometheus))
    routes.take(reconciliation.router(gate, reconciler))
    routes.take(backups.router(gate))
    return routes
