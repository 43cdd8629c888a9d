"""/admin/api/models: the models of hosts, for clients of the RK server."""

from typing import Annotated, Any

from fastapi import Body, Depends
from starlette.responses import Response

from tollgate.admin.routes.deployments import effective
from tollgate.admin.schemas.deployments import DeploymentId
from tollgate.admin.schemas.registered_models import FilesToDownload, Instances, NewRegisteredModel, RegisteredModel
from tollgate.catalog.cache import Catalog
from tollgate.core.errors import BadRequest, Conflict, IdempotencyKeyReused, NotFound
from tollgate.database import Door
from tollgate.engines.schemas import Spec
from tollgate.fleet import store
from tollgate.fleet.tasks import Tasks
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.web.routing import Routes
from tollgate.web.schemas import MOST_ON_A_PAGE, refusals

CHANGING = refusals(BadRequest, NotFound, Conflict)


def router(gate: Gate, catalog: Catalog, tasks: Tasks) -> Routes:
    routes = Routes(prefix="/admin/api/models")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    def shown(found: dict[str, Any]) -> RegisteredModel:
        return RegisteredModel.of(found["deployment"])

    @routes.get("", summary="List the models of your hosts, in RK's shape", responses=refusals())
    async def listed(door: OpenDoor) -> list[RegisteredModel]:
        """The newest thousand. GET /admin/models has pages."""
        return [RegisteredModel.of(row) for row in (await store.deployments(door, {}, MOST_ON_A_PAGE))["data"]]

    @routes.post(
        "",
        summary="Add a model to the only host, in RK's shape",
        status_code=201,
        responses=refusals(BadRequest, Conflict, IdempotencyKeyReused),
    )
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewRegisteredModel) -> RegisteredModel:
        """It has no price, so it is not offered until PATCH /admin/models/{id} sets one."""
        given = body.deployment()
        spec = Spec.model_validate(given["spec"]).model_dump(mode="json")
        return shown(await store.create_deployment(door, {**given, "spec": spec}))

    @routes.get(
        "/{deployment_id}", summary="Get a model of a host, in RK's shape", responses=refusals(BadRequest, NotFound)
    )
    async def one(door: OpenDoor, deployment_id: DeploymentId) -> RegisteredModel:
        return shown(await store.deployment(door, deployment_id))

    @routes.delete(
        "/{deployment_id}", summary="Stop a model and delete it, as RK does", status_code=204, responses=CHANGING
    )
    async def delete(door: OpenDoor, deployment_id: DeploymentId) -> Response:
        await store.set_wanted(door, deployment_id, "stopped")
        await effective(catalog, tasks, await store.delete_deployment(door, deployment_id, with_files=False))
        return Response(status_code=204)

    @routes.post("/{deployment_id}/download", summary="Have a host download a model, as RK does", responses=CHANGING)
    async def download(
        door: OpenDoor, deployment_id: DeploymentId, body: Annotated[FilesToDownload | None, Body()] = None
    ) -> RegisteredModel:
        """The model is then loaded by its first call, if it has a price."""
        if body and body.files is not None:
            spec = (await store.deployment(door, deployment_id))["deployment"]["spec"]
            made = Spec.model_validate({**spec, "source": {**spec["source"], "files": body.files}})
            await store.change_deployment(door, deployment_id, {"spec": made.model_dump(mode="json")})
        found = await store.deployment(door, deployment_id)
        if found["deployment"]["wanted"] == "stopped":
            found = await effective(catalog, tasks, await store.set_wanted(door, deployment_id, "on_demand"))
        return shown(found)

    @routes.post("/{deployment_id}/start", summary="Start a model, as RK does", responses=CHANGING)
    async def start(
        door: OpenDoor, deployment_id: DeploymentId, body: Annotated[Instances | None, Body()] = None
    ) -> RegisteredModel:
        return shown(await effective(catalog, tasks, await store.set_wanted(door, deployment_id, "running")))

    @routes.post("/{deployment_id}/stop", summary="Stop a model, as RK does", responses=CHANGING)
    async def stop(door: OpenDoor, deployment_id: DeploymentId) -> RegisteredModel:
        return shown(await effective(catalog, tasks, await store.set_wanted(door, deployment_id, "stopped")))

    return routes
