"""GET /metrics for Prometheus, in one call of the database.

Figures of the database are those of the whole installation. Its daily counters restart at midnight UTC, which `rate()`
and `increase()` treat as a restart of the process. Requests over HTTP, catalogs and upstreams are of this process.
"""

import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, NamedTuple

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from tollgate.admin.schemas.metrics import of_database, of_http, of_instance, of_machine, render
from tollgate.catalog.cache import Catalog
from tollgate.database import Door
from tollgate.keys.authentication import IN_THE_DOCUMENT, Gate, console
from tollgate.keys.rules import Environment
from tollgate.process.loop_lag import LoopLag
from tollgate.process.machine import Machine
from tollgate.settings import Settings
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.openrouter_account import OpenRouterAccount
from tollgate.usage import store as usage
from tollgate.web.client_address import client_ip, headers_of
from tollgate.web.request_counts import RequestCounts
from tollgate.web.routing import Handler, Routes
from tollgate.web.schemas import refusals

OPEN_METRICS = "application/openmetrics-text"


class Exposition(PlainTextResponse):
    media_type = "text/plain; version=0.0.4"


class OpenMetrics(PlainTextResponse):
    media_type = f"{OPEN_METRICS}; version=1.0.0"


class Figures(NamedTuple):
    """What this process knows."""

    catalogs: Mapping[Environment, Catalog]
    upstreams: Upstreams
    account: OpenRouterAccount
    lag: LoopLag
    counts: RequestCounts
    machine: Machine


class Scrapers:
    """Who may read the metrics without a key: who has the token, and who is in one of the networks."""

    def __init__(self, chosen: Settings) -> None:
        self._token = chosen.metrics_token.get_secret_value().encode() if chosen.metrics_token else None
        self._networks = chosen.networks_of_metrics
        self._trusted_proxy = chosen.trusted_proxy

    def include(self, scope: Scope) -> bool:
        return self._has_token(scope) or self._is_near(scope)

    def _has_token(self, scope: Scope) -> bool:
        offered = headers_of(scope).get("authorization", "").removeprefix("Bearer ")
        return self._token is not None and hmac.compare_digest(offered.encode(), self._token)

    def _is_near(self, scope: Scope) -> bool:
        address = client_ip(scope, self._trusted_proxy) if self._networks else None
        return address is not None and any(ip_address(address) in network for network in self._networks)


def router(gate: Gate, database: Door, chosen: Settings, figures: Figures) -> Routes:
    scrapers = Scrapers(chosen)

    async def guard(request: Request, handle: Handler, reads_body: bool) -> Response:
        if scrapers.include(request.scope):
            return await handle(request)
        return await gate.guard_operators(request, handle, reads_body)

    async def opened(request: Request) -> Door:
        return console(database, "metrics") if scrapers.include(request.scope) else await gate.open(request)

    routes = Routes()

    @routes.get(
        "/metrics",
        summary="Get figures in Prometheus' format",
        responses=refusals(),
        response_class=Exposition,
        openapi_extra={"x-stability": "experimental"},
    )
    async def metrics(request: Request, door: Annotated[Door, Depends(opened)]) -> PlainTextResponse:
        """With METRICS_TOKEN, from METRICS_NETWORKS, or with an operator's key."""
        found = await usage.monitor(door)
        credit = await figures.account.credit()
        states = {name: catalog.state() for name, catalog in figures.catalogs.items()}
        own = of_instance(states, figures.upstreams.states(), figures.lag.times_blocked)
        told = [*of_database(found, credit), *own, *of_machine(figures.machine.seen()), *of_http(figures.counts)]
        if OPEN_METRICS in request.headers.get("accept", ""):
            return OpenMetrics(render(told, open_metrics=True))
        return Exposition(render(told))

    guarded = Routes(tags=["admin"], dependencies=IN_THE_DOCUMENT, guard=guard)
    guarded.take(routes)
    return guarded
