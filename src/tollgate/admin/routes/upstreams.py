"""/admin/upstreams."""

import asyncio
from typing import Annotated, Any

from fastapi import Depends, Query

from tollgate.admin.schemas.upstreams import (
    ChangedUpstream,
    HealthChecks,
    HealthChecksOf,
    NewUpstream,
    PresetDetails,
    PresetList,
    RemovedUpstream,
    UpstreamActivity,
    UpstreamChange,
    UpstreamDetails,
    UpstreamFilters,
    UpstreamHealthCheck,
    UpstreamId,
    UpstreamWithHistory,
)
from tollgate.catalog.cache import Catalog
from tollgate.catalog.routes import visibility
from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.errors import BadRequest, Conflict, IdempotencyKeyReused, NotFound
from tollgate.database import Door
from tollgate.keys import store as keys
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.upstreams import health_checks, store
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.health_checks import Checkup
from tollgate.upstreams.presets import PRESETS, PresetName
from tollgate.web.routing import Routes
from tollgate.web.schemas import MOST_ON_A_PAGE, CountedPage, refusals


def router(gate: Gate, catalog: Catalog, upstreams: Upstreams, checkup: Checkup) -> Routes:
    routes = Routes(prefix="/admin/upstreams")
    details = _Details(upstreams, checkup)

    async def changed(done: dict[str, Any]) -> ChangedUpstream:
        return ChangedUpstream(**details.of(done["upstream"]), visible=await visibility(catalog))

    @routes.get("", summary="List your upstreams", responses=refusals(BadRequest))
    async def listed(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[UpstreamFilters, Query()]
    ) -> CountedPage[UpstreamDetails]:
        found = await store.upstreams(door, query.filters(), query.limit)
        return CountedPage[UpstreamDetails].of({**found, "data": [details.of(row) for row in found["data"]]})

    @routes.post(
        "",
        summary="Create an upstream",
        status_code=201,
        responses=refusals(BadRequest, IdempotencyKeyReused),
    )
    async def make(door: Annotated[Door, Depends(once(gate))], body: NewUpstream) -> ChangedUpstream:
        await keys.identify_operator(door)  # only an operator may make us resolve a host name
        await checkup.refuse_forbidden(body.base_url or "")
        return await changed(await store.make(door, body.changes()))

    @routes.post(
        "/refresh-health",
        summary="Check the health of your upstreams",
        description="Checks a few at a time, each with a timeout of seconds. The results are stored and shown with the "
        "upstream.",
        responses=refusals(BadRequest, NotFound),
    )
    async def refresh_health(
        door: Annotated[Door, Depends(gate.open)], body: HealthChecksOf | None = None
    ) -> HealthChecks:
        wanted = body.ids if body else None
        filters = {} if wanted is None else {"ids": wanted}
        found = (await store.upstreams(door, filters, MOST_ON_A_PAGE))["data"]
        _refuse_unknown(wanted or [], found)
        began = asyncio.get_running_loop().time()
        probes = await checkup.probe([health_checks.of_row(row) for row in found])
        took = asyncio.get_running_loop().time() - began
        kept = (await store.keep_probes(door, [probe._asdict() for probe in probes]))["data"] if probes else []
        reached = {probe.upstream_id for probe in probes}
        return HealthChecks(
            data=[UpstreamHealthCheck(**probe) for probe in kept],
            left_out=[row["id"] for row in found if row["id"] not in reached],
            took_ms=round(took * 1000),
        )

    @routes.get("/presets", summary="List the vendors that can be added by name", responses=refusals())
    async def presets(door: Annotated[Door, Depends(gate.open)]) -> PresetList:
        await keys.identify_operator(door)
        return PresetList(data=[_preset(name) for name in PRESETS])

    @routes.get("/{upstream_id}", summary="Get an upstream", responses=refusals(BadRequest, NotFound))
    async def one(door: Annotated[Door, Depends(gate.open)], upstream_id: UpstreamId) -> UpstreamWithHistory:
        """For its requests and errors over time: GET /admin/usage/series?upstream="""
        return UpstreamWithHistory(**details.of((await store.upstream(door, upstream_id))["upstream"]))

    @routes.patch("/{upstream_id}", summary="Change an upstream", responses=refusals(BadRequest, NotFound))
    async def change(
        door: Annotated[Door, Depends(gate.open)], upstream_id: UpstreamId, body: UpstreamChange
    ) -> ChangedUpstream:
        if body.base_url is not None:
            await keys.identify_operator(door)
            await checkup.refuse_forbidden(body.base_url)
        return await changed(await store.change(door, upstream_id, body.changes()))

    @routes.delete(
        "/{upstream_id}",
        summary="Delete an upstream",
        description="Refused while it has routes, unless `routes` is true. Requests keep its id.",
        responses=refusals(BadRequest, NotFound, Conflict),
    )
    async def remove(
        door: Annotated[Door, Depends(gate.open)],
        upstream_id: UpstreamId,
        with_routes: Annotated[
            bool, Query(alias="routes", description="Whether to delete its routes as well.")
        ] = False,
    ) -> RemovedUpstream:
        gone = await store.delete(door, upstream_id, with_routes=with_routes)
        return RemovedUpstream(id=gone["id"], routes=gone["routes"], visible=await visibility(catalog))

    return routes


class _Details:
    """Adds to a row what this process knows of the upstream."""

    def __init__(self, upstreams: Upstreams, checkup: Checkup) -> None:
        self._upstreams = upstreams
        self._checkup = checkup

    def of(self, row: dict[str, Any]) -> dict[str, Any]:
        seen = {state.id: state for state in self._upstreams.states()}.get(row["id"])
        name = row["secret_name"]
        return {
            **row,
            "secret_is_set": None if name is None else self._checkup.has_secret(name),
            "here": UpstreamActivity(**seen._asdict()) if seen else None,
        }


def _preset(name: PresetName) -> PresetDetails:
    preset = PRESETS[name]
    served = [f"/v1{form.path}" for form in ENDPOINTS.values() if preset.dialect in form.dialects]
    return PresetDetails(preset=name, endpoints=served, **preset._asdict())


def _refuse_unknown(wanted: list[str], found: list[dict[str, Any]]) -> None:
    known = {row["id"] for row in found}
    for upstream_id in wanted:
        if upstream_id not in known:
            raise NotFound(kind="upstream", id=upstream_id)
