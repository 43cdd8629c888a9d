"""The routes of users: their own org and keys."""

from tollgate.account.routes import keys, monitor, openrouter, profile, transactions, upstream_keys, usage, webhooks
from tollgate.alerts.channels import Channels
from tollgate.keys.authentication import WITH_SESSIONS, Gate
from tollgate.settings import Settings
from tollgate.vault.rules import Vault
from tollgate.vault.upstream_keys import UpstreamKeyHandlers
from tollgate.web.routing import Routes


def router(gate: Gate, chosen: Settings, channels: Channels) -> Routes:
    routes = Routes(tags=["account"], dependencies=WITH_SESSIONS, guard=gate.guard)
    routes.take(profile.router(gate, chosen))
    routes.take(usage.router(gate))  # before the keys, because /user/api-keys/usage would match an id of a key
    routes.take(keys.router(gate, chosen.peppers[0]))
    routes.take(upstream_keys.router(gate, UpstreamKeyHandlers(Vault(chosen.vault_keys), chosen.openrouter_base_url)))
    routes.take(webhooks.router(gate, channels))
    routes.take(monitor.router(gate))
    routes.take(transactions.router(gate))
    routes.take(openrouter.router(gate))
    return routes
