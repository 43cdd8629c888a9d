"""/admin/system/*: the figures of hosts, of processes of Tollgate, and of machines that a Prometheus watches."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Query

from tollgate.admin.schemas.deployments import HostQuery
from tollgate.admin.schemas.fleet import (
    THIS,
    FleetQuery,
    FleetSummary,
    GpuDetails,
    HostCapabilities,
    HostSummary,
    HostTrends,
    MachineQuery,
    Processes,
    ProcessSeen,
    PrometheusState,
    Throughput,
    TrendsQuery,
)
from tollgate.core.errors import BadRequest, Conflict, NotFound
from tollgate.database import Door
from tollgate.fleet import rules, store
from tollgate.health import store as health
from tollgate.health.node_exporter import NodeExporter, Unanswered
from tollgate.keys.authentication import Gate
from tollgate.process.clock import now
from tollgate.process.machine import Machine
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

READING = refusals(BadRequest, NotFound)
OF_ONE = refusals(BadRequest, NotFound, Conflict)
SECONDS_OF_A_MINUTE = 60


def router(gate: Gate, machine: Machine, prometheus: NodeExporter | None) -> Routes:
    routes = Routes(prefix="/admin/system")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    AllHosts = Annotated[FleetQuery, Query()]  # noqa: N806
    OneMachine = Annotated[MachineQuery, Query()]  # noqa: N806

    @routes.get("/summary", summary="Get what all hosts have and use", responses=READING)
    async def summary(door: OpenDoor, query: AllHosts) -> FleetSummary:
        hosts = (await store.fleet(door, query.host_id))["hosts"]
        counts = {} if hosts else {"hosts": 0, "hosts_seen": 0}
        return FleetSummary(**rules.summary(hosts or [_as_host(machine)]) | counts)

    @routes.get("/throughput", summary="Get the rates of paid calls", responses=READING)
    async def throughput(door: OpenDoor, query: AllHosts) -> Throughput:
        return Throughput(**(await store.fleet(door, query.host_id))["throughput"])

    @routes.get("/gpus", summary="Get the GPUs of hosts", responses=READING)
    async def gpus(door: OpenDoor, query: AllHosts) -> list[GpuDetails]:
        return [GpuDetails(**gpu) for gpu in rules.gpus((await store.fleet(door, query.host_id))["hosts"])]

    @routes.get("/processes", summary="Get the processes of Tollgate, and what they use", responses=refusals())
    async def processes(door: OpenDoor) -> Processes:
        found = (await health.processes(door))["processes"]
        return Processes(data=[_seen(one, machine) for one in found])

    @routes.get("/host/summary", summary="Get the last figures of a host or process", responses=OF_ONE)
    async def host_summary(door: OpenDoor, query: OneMachine) -> HostSummary:
        if query.instance:
            return await _of_instance(door, query.instance, _known(prometheus))
        host = await _host_to_show(door, query)
        if host is None:
            return _figures(await _process(door, query.process or THIS, machine))
        return HostSummary(**rules.host_summary(host))

    @routes.get("/host/trends", summary="Get the figures of a host or process over time", responses=OF_ONE)
    async def trends(door: OpenDoor, query: Annotated[TrendsQuery, Query()]) -> HostTrends:
        if query.instance:
            return await _trends_of_instance(door, query, query.instance, _known(prometheus))
        if query.process is None:
            try:
                found = await store.trends(door, query.host_id, query.minutes, query.step_s)
                return HostTrends(host_id=found["host_id"], **rules.trends(found["samples"]))
            except Conflict as refusal:
                _raise_unless_there_is_none(refusal)
        name = query.process if query.process not in (None, THIS) else machine.name
        found = await health.process_trends(door, name, query.minutes, query.step_s)
        return HostTrends(host_id=None, process=name, **rules.trends(found["samples"]))

    @routes.get("/capabilities", summary="Get the capabilities of a host or process", responses=OF_ONE)
    async def capabilities(door: OpenDoor, query: OneMachine) -> HostCapabilities:
        host = await _host_to_show(door, query)
        if host is not None:
            return HostCapabilities(host_id=host["id"], capabilities=host["capabilities"])
        found = await _process(door, query.process or THIS, machine)
        return HostCapabilities(
            host_id=None,
            process=found["process"],
            capabilities=machine.abilities() if found["process"] == machine.name else _abilities(found["sample"]),
            prometheus=await _state(prometheus) if prometheus else None,
        )

    return routes


def _known(prometheus: NodeExporter | None) -> NodeExporter:
    if prometheus is None:
        raise BadRequest("instance: PROMETHEUS_URL is not set.", param="instance")
    return prometheus


async def _host(door: Door, query: HostQuery) -> dict[str, Any]:
    found: dict[str, Any] = (await store.host(door, query.host_id))["host"]
    return found


async def _host_to_show(door: Door, query: MachineQuery) -> dict[str, Any] | None:
    """None where a process is meant."""
    if query.process is not None:
        return None
    try:
        return await _host(door, query)
    except Conflict as refusal:
        _raise_unless_there_is_none(refusal)
        return None


def _raise_unless_there_is_none(refusal: Conflict) -> None:
    if refusal.facts.get("reason") != "no_host":
        raise refusal


async def _process(door: Door, name: str, machine: Machine) -> dict[str, Any]:
    """With its last sample. The one that answers looks anew."""
    found = (await health.processes(door))["processes"]
    if name in (THIS, machine.name):
        return {"process": machine.name, "sampled_at": now(), "sample": machine.seen()}
    named = next((one for one in found if one["process"] == name), None)
    if named is None:
        raise NotFound(kind="process", id=name)
    return dict(named)


def _as_host(machine: Machine) -> dict[str, Any]:
    return {"id": None, "contact": None, "sample": machine.seen(), "capabilities": machine.abilities()}


def _seen(found: Mapping[str, Any], machine: Machine) -> ProcessSeen:
    sample = found["sample"]
    return ProcessSeen(
        process=found["process"],
        is_this=found["process"] == machine.name,
        sampled_at=found["sampled_at"],
        figures=_figures(found),
        version=sample.get("version"),
        started_at=sample.get("started_at"),
        kind=sample.get("kind"),
    )


def _figures(found: Mapping[str, Any]) -> HostSummary:
    sample = {**found["sample"], "sampled_at": found["sampled_at"]}
    return HostSummary(
        **rules.host_summary({"id": None, "sample": sample}),
        process=found["process"],
        process_mem_mb=rules.mebibytes(sample.get("process_memory_bytes")),
    )


def _abilities(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What a process said of itself in its last sample."""
    return {name: sample[name] for name in ("kind", "version", "started_at", "cpu_count") if name in sample}


async def _of_instance(door: Door, instance: str, prometheus: NodeExporter) -> HostSummary:
    await health.processes(door)  # recognises the caller
    sample: dict[str, Any] = {}
    reason = None
    try:
        sample = {**await prometheus.sample(instance), "sampled_at": now()}
    except Unanswered as failure:
        reason = str(failure)
    return HostSummary(**rules.host_summary({"id": None, "sample": sample}), instance=instance, reason=reason)


async def _trends_of_instance(door: Door, query: TrendsQuery, instance: str, prometheus: NodeExporter) -> HostTrends:
    await health.processes(door)  # recognises the caller
    samples: list[dict[str, float]] = []
    reason = None
    end = int(now().timestamp())
    try:
        samples = await prometheus.samples(instance, end - query.minutes * SECONDS_OF_A_MINUTE, end, query.step_s)
    except Unanswered as failure:
        reason = str(failure)
    return HostTrends(host_id=None, instance=instance, reason=reason, **rules.trends(samples))


async def _state(prometheus: NodeExporter) -> PrometheusState:
    try:
        return PrometheusState(is_up=True, instances=await prometheus.instances())
    except Unanswered as failure:
        return PrometheusState(is_up=False, instances=[], reason=str(failure))
