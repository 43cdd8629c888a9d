"""/admin/hosts: machines of one's own that run models."""

import secrets
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from starlette.requests import Request

from tollgate.admin.routes.deployments import effective
from tollgate.admin.schemas.hosts import (
    CreatedHost,
    DeletedHost,
    EnrolledAnew,
    Enrolment,
    HostChange,
    HostDetails,
    HostFilters,
    HostId,
    NewHost,
)
from tollgate.catalog.cache import Catalog
from tollgate.catalog.routes import visible
from tollgate.core.errors import BadRequest, Conflict, FleetNotConfigured, IdempotencyKeyReused, NotFound
from tollgate.database import Door
from tollgate.fleet import rules, store
from tollgate.fleet.tasks import Tasks
from tollgate.keys import store as keys
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, refusals


def router(gate: Gate, catalog: Catalog, tasks: Tasks, *, configured: bool, secure: bool) -> Routes:
    """`configured`: AGENT_KEY is set."""
    routes = Routes(prefix="/admin/hosts")
    changing = refusals(BadRequest, NotFound, Conflict)
    enrolling = refusals(BadRequest, NotFound, Conflict, FleetNotConfigured)
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    async def refuse_unconfigured(door: Door) -> None:
        if not configured:
            await keys.identify_operator(door)
            raise FleetNotConfigured

    def enrolment(request: Request, token: str, found: dict[str, Any]) -> Enrolment:
        server = f"{'https' if secure else 'http'}://{request.url.netloc}"
        return Enrolment(token=token, command=rules.command(server, token), expires_at=found["expires_at"])

    async def enrolled_anew(
        request: Request, door: Door, host_id: str, response: Response, *, rotate: bool
    ) -> EnrolledAnew:
        await refuse_unconfigured(door)
        token = rules.token(secrets.token_bytes(rules.RANDOM_BYTES))
        found = await store.new_enrolment(door, host_id, gate.digests(token)[0], rotate=rotate)
        response.headers["cache-control"] = "no-store"
        return EnrolledAnew(**found["host"], enrolment=enrolment(request, token, found["enrolment"]))

    async def with_state(door: Door, host_id: str, state: str) -> HostDetails:
        found = await effective(catalog, tasks, await store.set_host_state(door, host_id, state))
        return HostDetails(**found["host"])

    @routes.get("", summary="List the hosts", responses=refusals(BadRequest))
    async def listed(door: OpenDoor, query: Annotated[HostFilters, Query()]) -> CountedPage[HostDetails]:
        return CountedPage[HostDetails].of(await store.hosts(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Create a host",
        status_code=201,
        responses=refusals(BadRequest, IdempotencyKeyReused, FleetNotConfigured),
    )
    async def create(
        request: Request, door: Annotated[Door, Depends(once(gate))], body: NewHost, response: Response
    ) -> CreatedHost:
        """Answers the command that makes a machine the host. Its token works once, and for an hour."""
        await refuse_unconfigured(door)
        token = rules.token(secrets.token_bytes(rules.RANDOM_BYTES))
        made = await store.create_host(door, body.changes(), gate.digests(token)[0])
        shown = None if made.get("replayed") else enrolment(request, token, made["enrolment"])
        response.headers["cache-control"] = "no-store"
        return CreatedHost(**made["host"], enrolment=shown)

    @routes.get("/{host_id}", summary="Get a host", responses=refusals(BadRequest, NotFound))
    async def one(door: OpenDoor, host_id: HostId) -> HostDetails:
        return HostDetails(**(await store.host(door, host_id))["host"])

    @routes.patch("/{host_id}", summary="Change a host", responses=changing)
    async def change(door: OpenDoor, host_id: HostId, body: HostChange) -> HostDetails:
        return HostDetails(**(await visible(catalog, await store.change_host(door, host_id, body.changes())))["host"])

    @routes.delete("/{host_id}", summary="Delete a host", responses=changing)
    async def delete(
        door: OpenDoor, host_id: HostId, confirm: Annotated[str, Query(description="The id of the host once more.")]
    ) -> DeletedHost:
        """With its models, which must not be wanted. Requests and audit events stay. What a silent machine runs goes
        on there, so retire the host first, or end its engines."""
        if confirm != host_id:
            raise BadRequest("To delete the host, repeat its id in `confirm`.", param="confirm")
        gone = await visible(catalog, await store.delete_host(door, host_id))
        return DeletedHost(id=gone["id"], models=gone["models"])

    @routes.post("/{host_id}/cordon", summary="Cordon a host, so that it gets no new calls", responses=changing)
    async def cordon(door: OpenDoor, host_id: HostId) -> HostDetails:
        """Its models end the calls that they have, and take no new ones."""
        return await with_state(door, host_id, "cordoned")

    @routes.post("/{host_id}/uncordon", summary="Uncordon a host", responses=changing)
    async def uncordon(door: OpenDoor, host_id: HostId) -> HostDetails:
        return await with_state(door, host_id, "active")

    @routes.post("/{host_id}/retire", summary="Retire a host permanently", responses=changing)
    async def retire(door: OpenDoor, host_id: HostId) -> HostDetails:
        """Its key is refused from now on, and its models are no longer offered. Its history stays."""
        return await with_state(door, host_id, "retired")

    @routes.post("/{host_id}/enrolments", summary="Create an enrolment of a host", status_code=201, responses=enrolling)
    async def enrol_again(request: Request, door: OpenDoor, host_id: HostId, response: Response) -> EnrolledAnew:
        """For a host that was never enrolled, or is installed again. Earlier enrolments end now, and the key of the
        host when this one is used."""
        return await enrolled_anew(request, door, host_id, response, rotate=False)

    @routes.post("/{host_id}/rotate", summary="Replace the key of a host", status_code=201, responses=enrolling)
    async def rotate(request: Request, door: OpenDoor, host_id: HostId, response: Response) -> EnrolledAnew:
        """The key ends at once, for the agent and for calls to the ingress. The answer has the command that enrols
        the host again."""
        return await enrolled_anew(request, door, host_id, response, rotate=True)

    return routes
