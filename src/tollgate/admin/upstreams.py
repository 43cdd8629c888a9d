"""/admin/upstreams: servers of our own, kept and looked after over HTTP."""

import asyncio
from typing import Annotated, Any

from fastapi import Depends, Query

from tollgate.admin import visibility
from tollgate.admin.upstream_forms import (
    NewUpstream,
    Probed,
    RemovedUpstream,
    Round,
    RoundOf,
    Seen,
    Upstream,
    UpstreamChange,
    UpstreamFilters,
    UpstreamId,
    WrittenUpstream,
)
from tollgate.catalog.memory import Catalog
from tollgate.core.errors import BadRequest, Conflict, NotFound
from tollgate.keys import store as keys
from tollgate.keys.gate import Gate
from tollgate.runtime.database import Door
from tollgate.runtime.forms import MOST_ON_A_PAGE, Page, refusals
from tollgate.runtime.routing import Routes
from tollgate.upstreams import health, store
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.health import Checkup

STABLE = {"x-stability": "stable"}


def router(gate: Gate, catalog: Catalog, upstreams: Upstreams, checkup: Checkup) -> Routes:
    routes = Routes(prefix="/admin/upstreams")
    show = _Shown(upstreams, checkup)

    async def written(done: dict[str, Any]) -> WrittenUpstream:
        return WrittenUpstream(**show.one(done["upstream"]), visible=await visibility.of_change(catalog))

    @routes.get("", summary="Your own servers", responses=refusals(BadRequest), openapi_extra=STABLE)
    async def listed(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[UpstreamFilters, Query()]
    ) -> Page[Upstream]:
        found = await store.upstreams(door, query.filters(), query.limit)
        return Page[Upstream].of({**found, "data": [show.one(row) for row in found["data"]]})

    @routes.post(
        "",
        summary="Make a server of yours known",
        status_code=201,
        responses=refusals(BadRequest),
        openapi_extra=STABLE,
    )
    async def make(door: Annotated[Door, Depends(gate.open)], body: NewUpstream) -> WrittenUpstream:
        await keys.identify_operator(door)  # nobody else has us look up names
        await checkup.refuse_forbidden(body.base_url)
        return await written(await store.make(door, body.changes()))

    @routes.post(
        "/refresh-health",
        summary="Ask your servers how they are",
        description="A few at a time, each within seconds. What comes of it is kept, and shown with the server.",
        responses=refusals(BadRequest, NotFound),
        openapi_extra=STABLE,
    )
    async def refresh_health(door: Annotated[Door, Depends(gate.open)], body: RoundOf | None = None) -> Round:
        wanted = body.ids if body else None
        filters = {} if wanted is None else {"ids": wanted}
        found = (await store.upstreams(door, filters, MOST_ON_A_PAGE))["data"]
        _refuse_unknown(wanted or [], found)
        began = asyncio.get_running_loop().time()
        probes = await checkup.probe([health.of_row(row) for row in found])
        took = asyncio.get_running_loop().time() - began
        kept = (await store.keep_probes(door, [probe._asdict() for probe in probes]))["data"] if probes else []
        reached = {probe.upstream_id for probe in probes}
        return Round(
            data=[Probed(**probe) for probe in kept],
            left_out=[row["id"] for row in found if row["id"] not in reached],
            took_ms=round(took * 1000),
        )

    @routes.get(
        "/{upstream_id}", summary="One of your servers", responses=refusals(BadRequest, NotFound), openapi_extra=STABLE
    )
    async def one(door: Annotated[Door, Depends(gate.open)], upstream_id: UpstreamId) -> Upstream:
        return Upstream(**show.one((await store.upstream(door, upstream_id))["upstream"]))

    @routes.patch("/{upstream_id}", summary="Change it", responses=refusals(BadRequest, NotFound), openapi_extra=STABLE)
    async def change(
        door: Annotated[Door, Depends(gate.open)], upstream_id: UpstreamId, body: UpstreamChange
    ) -> WrittenUpstream:
        if body.base_url is not None:
            await keys.identify_operator(door)
            await checkup.refuse_forbidden(body.base_url)
        return await written(await store.change(door, upstream_id, body.changes()))

    @routes.delete(
        "/{upstream_id}",
        summary="Remove it",
        description="Refused while routes lead there, unless they are to go with it. Requests keep its id.",
        responses=refusals(BadRequest, NotFound, Conflict),
        openapi_extra=STABLE,
    )
    async def remove(
        door: Annotated[Door, Depends(gate.open)],
        upstream_id: UpstreamId,
        with_routes: Annotated[bool, Query(alias="routes", description="true removes its routes too.")] = False,
    ) -> RemovedUpstream:
        gone = await store.delete(door, upstream_id, with_routes=with_routes)
        return RemovedUpstream(id=gone["id"], routes=gone["routes"], visible=await visibility.of_change(catalog))

    return routes


class _Shown:
    """A row, with what only this process knows of that server."""

    def __init__(self, upstreams: Upstreams, checkup: Checkup) -> None:
        self._upstreams = upstreams
        self._checkup = checkup

    def one(self, row: dict[str, Any]) -> dict[str, Any]:
        seen = {state.id: state for state in self._upstreams.states()}.get(row["id"])
        name = row["secret_name"]
        return {
            **row,
            "secret_is_set": None if name is None else self._checkup.has_secret(name),
            "here": Seen(**seen._asdict()) if seen else None,
        }


def _refuse_unknown(wanted: list[str], found: list[dict[str, Any]]) -> None:
    known = {row["id"] for row in found}
    for upstream_id in wanted:
        if upstream_id not in known:
            raise NotFound(kind="upstream", id=upstream_id)
