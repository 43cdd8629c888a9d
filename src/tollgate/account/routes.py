"""What a key's owner sees and does: /user/*, one file for each noun."""

from tollgate.account import keys, monitor, profile, transactions, usage
from tollgate.keys.authentication import IN_THE_DOCUMENT, Gate
from tollgate.settings import Settings
from tollgate.web.routing import Routes


def router(gate: Gate, chosen: Settings) -> Routes:
    routes = Routes(tags=["account"], dependencies=IN_THE_DOCUMENT, guard=gate.guard)
    routes.take(profile.router(gate, chosen))
    routes.take(usage.router(gate))  # before the keys: its /user/api-keys/usage is no key's id
    routes.take(keys.router(gate, chosen.peppers[0]))
    routes.take(monitor.router(gate))
    routes.take(transactions.router(gate))
    return routes
