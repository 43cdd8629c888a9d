"""What a key's owner sees and does: /user/*, one file for each noun."""

from fastapi import APIRouter

from tollgate.account import keys, monitor, profile, transactions, usage
from tollgate.keys.gate import IN_THE_DOCUMENT, Gate
from tollgate.runtime.settings import Settings


def router(gate: Gate, chosen: Settings) -> APIRouter:
    routes = APIRouter(tags=["account"], dependencies=IN_THE_DOCUMENT)
    routes.include_router(profile.router(gate, chosen))
    routes.include_router(usage.router(gate))  # before the keys: its /user/api-keys/usage is no key's id
    routes.include_router(keys.router(gate, chosen.peppers[0]))
    routes.include_router(monitor.router(gate))
    routes.include_router(transactions.router(gate))
    return routes
