"""/admin/system/*: the figures of hosts."""

from typing import Annotated, Any

from fastapi import Depends, Query

from tollgate.admin.schemas.deployments import HostQuery
from tollgate.admin.schemas.fleet import (
    FleetQuery,
    FleetSummary,
    GpuDetails,
    HostCapabilities,
    HostSummary,
    HostTrends,
    Throughput,
    TrendsQuery,
)
from tollgate.core.errors import BadRequest, Conflict, NotFound
from tollgate.database import Door
from tollgate.fleet import rules, store
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

READING = refusals(BadRequest, NotFound)
OF_ONE = refusals(BadRequest, NotFound, Conflict)


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/system")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    AllHosts = Annotated[FleetQuery, Query()]  # noqa: N806
    OneHost = Annotated[HostQuery, Query()]  # noqa: N806

    @routes.get("/summary", summary="Get what all hosts have and use", responses=READING)
    async def summary(door: OpenDoor, query: AllHosts) -> FleetSummary:
        return FleetSummary(**rules.summary((await store.fleet(door, query.host_id))["hosts"]))

    @routes.get("/throughput", summary="Get the rates of the paid calls that hosts answer", responses=READING)
    async def throughput(door: OpenDoor, query: AllHosts) -> Throughput:
        return Throughput(**(await store.fleet(door, query.host_id))["throughput"])

    @routes.get("/gpus", summary="Get the GPUs of hosts", responses=READING)
    async def gpus(door: OpenDoor, query: AllHosts) -> list[GpuDetails]:
        return [GpuDetails(**gpu) for gpu in rules.gpus((await store.fleet(door, query.host_id))["hosts"])]

    @routes.get("/host/summary", summary="Get the last figures of a host", responses=OF_ONE)
    async def host_summary(door: OpenDoor, query: OneHost) -> HostSummary:
        return HostSummary(**rules.host_summary(await _host(door, query)))

    @routes.get("/host/trends", summary="Get the figures of a host over time", responses=OF_ONE)
    async def trends(door: OpenDoor, query: Annotated[TrendsQuery, Query()]) -> HostTrends:
        found = await store.trends(door, query.host_id, query.minutes, query.step_s)
        return HostTrends(host_id=found["host_id"], **rules.trends(found["samples"]))

    @routes.get("/capabilities", summary="Get what a host has, and allows", responses=OF_ONE)
    async def capabilities(door: OpenDoor, query: OneHost) -> HostCapabilities:
        host = await _host(door, query)
        return HostCapabilities(host_id=host["id"], capabilities=host["capabilities"])

    return routes


async def _host(door: Door, query: HostQuery) -> dict[str, Any]:
    found: dict[str, Any] = (await store.host(door, query.host_id))["host"]
    return found
