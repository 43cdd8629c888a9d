"""/admin/models: the models on hosts of one's own."""

import asyncio
from typing import Annotated, Any

from fastapi import Body, Depends, Query
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tollgate.admin.schemas.deployments import (
    BaseDirBody,
    BaseDirDetails,
    DeletedDeployment,
    DeploymentChange,
    DeploymentDetails,
    DeploymentFilters,
    DeploymentId,
    DeploymentMetrics,
    DeploymentMetricsList,
    DeploymentReadiness,
    DiagnosedLogs,
    DryRun,
    DryRunBody,
    FolderQuery,
    FoldersQuery,
    HostQuery,
    HubConfigQuery,
    LogsQuery,
    NewDeployment,
    PhaseChangeDetails,
    Start,
    TestedDeployment,
    Told,
)
from tollgate.catalog.cache import Catalog
from tollgate.catalog.routes import visible
from tollgate.core.errors import BadRequest, Conflict, HostSilent, HostTaskFailed, IdempotencyKeyReused, NotFound
from tollgate.database import Door
from tollgate.engines.schemas import Spec
from tollgate.fleet import rules, store
from tollgate.fleet.tasks import Tasks
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.process import clock
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, PageQuery, refusals

ONE = refusals(BadRequest, NotFound)
CHANGING = refusals(BadRequest, NotFound, Conflict)
ASKING = refusals(BadRequest, NotFound, Conflict, HostTaskFailed, HostSilent)
LOGS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": DiagnosedLogs,
        "description": "The log as plain text, or with `diagnose` with what is wrong",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}
LIST_OF_NAMES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A list of names", "content": {"application/json": {}}}
}

FACTS_SECONDS = 6.0
"""How long a dry-run waits for what the files say."""


def router(gate: Gate, catalog: Catalog, tasks: Tasks) -> Routes:
    routes = Routes(prefix="/admin/models")
    routes.take(_of_all(gate, catalog, tasks))
    routes.take(_of_hosts(gate, tasks))
    routes.take(_of_one(gate, catalog, tasks))
    routes.take(_life(gate, catalog, tasks))
    routes.take(_asked(gate, tasks))
    return routes


async def effective(catalog: Catalog, tasks: Tasks, found: dict[str, Any]) -> dict[str, Any]:
    """What the database answered to a change: routes are read again here, and the host is told, before the response."""
    await asyncio.gather(visible(catalog, found), tasks.wake(found))
    return found


async def read_facts(door: Door, tasks: Tasks, spec: Spec, host_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """What the files of a path say, or why that is not known. Files of the hub are not there before the download."""
    if spec.source.type != "path":
        return None, None
    asked = {"source": spec.source.model_dump(mode="json")}
    try:
        return await tasks.result(door, "facts", asked, host_id=host_id, patience=FACTS_SECONDS), None
    except HostTaskFailed as failed:
        return None, str(failed.facts["reason"])
    except HostSilent as silent:
        return None, silent.message


def _of_all(gate: Gate, catalog: Catalog, tasks: Tasks) -> Routes:
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("", summary="List the models on your hosts", responses=refusals(BadRequest))
    async def listed(door: OpenDoor, query: Annotated[DeploymentFilters, Query()]) -> CountedPage[DeploymentDetails]:
        return CountedPage[DeploymentDetails].of(await store.deployments(door, query.filters(), query.limit))

    @routes.post(
        "",
        summary="Add a model to a host",
        status_code=201,
        responses=refusals(BadRequest, NotFound, Conflict, IdempotencyKeyReused),
    )
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewDeployment) -> DeploymentDetails:
        return shown(await effective(catalog, tasks, await store.create_deployment(door, body.changes())))

    @routes.post("/dry-run", summary="Show how a new model would be started", responses=CHANGING)
    async def dry_run(door: OpenDoor, body: DryRunBody) -> DryRun:
        """Nothing is started or stored. The memory is estimated from `facts`, as inspect-folder and hf-config tell
        them. Without facts, the host reads the files of a path."""
        host = (await store.host(door, body.host_id))["host"]
        facts, unread = body.facts.model_dump() if body.facts else None, None
        if facts is None and host["contact"] == "seen":
            facts, unread = await read_facts(door, tasks, body.spec, host["id"])
        return DryRun(**rules.dry_run(body.spec, facts, host["capabilities"], unread))

    @routes.get("/metrics", summary="Get the figures of the engines", responses=refusals())
    async def metrics(door: OpenDoor) -> DeploymentMetricsList:
        """As each agent sent them last."""
        found = (await store.metrics(door))["data"]
        return DeploymentMetricsList(data=[DeploymentMetrics(**rules.metrics(row)) for row in found])

    return routes


def _of_hosts(gate: Gate, tasks: Tasks) -> Routes:
    """What hosts have, besides models that run. Their agents check each path; here paths are only passed on."""
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("/base-dir", summary="Get the folder of a host that models are looked for in", responses=CHANGING)
    async def base_dir(door: OpenDoor, query: Annotated[HostQuery, Query()]) -> BaseDirDetails:
        return _base_dir(await store.host(door, query.host_id))

    @routes.put("/base-dir", summary="Set the folder of a host that models are looked for in", responses=CHANGING)
    async def put_base_dir(door: OpenDoor, query: Annotated[HostQuery, Query()], body: BaseDirBody) -> BaseDirDetails:
        """The agent uses it only if its own command line allows the folder."""
        return _base_dir(await store.change_host(door, query.host_id, body.changes()))

    @routes.get(
        "/local-folders",
        summary="List the folders of a host",
        response_class=Response,
        responses=ASKING | LIST_OF_NAMES,
    )
    async def local_folders(door: OpenDoor, query: Annotated[FoldersQuery, Query()]) -> JSONResponse:
        found = await tasks.result(door, "local_folders", {"base": query.base}, host_id=query.host_id)
        return JSONResponse(found if isinstance(found, list) else [])

    @routes.get("/inspect-folder", summary="Get what is in a folder of a host", responses=ASKING)
    async def inspect_folder(door: OpenDoor, query: Annotated[FolderQuery, Query()]) -> Told:
        """Files of models by their headers: formats, parts, quantisation, what is missing, which engine fits."""
        asked = {"base": query.base, "folder": query.folder}
        return Told(**await tasks.result(door, "inspect_folder", asked, host_id=query.host_id))

    @routes.get("/hf-config", summary="Get the configuration of a model on Hugging Face", responses=ASKING)
    async def hub_config(door: OpenDoor, query: Annotated[HubConfigQuery, Query()]) -> Told:
        """The host asks for it, without a token."""
        asked = {"repo_id": query.repo_id, "revision": query.revision}
        return Told(**await tasks.result(door, "hub_config", asked, host_id=query.host_id))

    return routes


def _of_one(gate: Gate, catalog: Catalog, tasks: Tasks) -> Routes:
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("/{deployment_id}", summary="Get a model of a host", responses=ONE)
    async def one(door: OpenDoor, deployment_id: DeploymentId) -> DeploymentDetails:
        return shown(await store.deployment(door, deployment_id))

    @routes.patch("/{deployment_id}", summary="Change a model of a host", responses=CHANGING)
    async def change(door: OpenDoor, deployment_id: DeploymentId, body: DeploymentChange) -> DeploymentDetails:
        changed = await store.change_deployment(door, deployment_id, body.changes())
        return shown(await effective(catalog, tasks, changed))

    @routes.delete("/{deployment_id}", summary="Delete a model of a host", responses=CHANGING)
    async def delete(
        door: OpenDoor,
        deployment_id: DeploymentId,
        files: Annotated[bool, Query(description="Whether the host deletes what it downloaded for it.")] = False,
    ) -> DeletedDeployment:
        """Refused while it should run. Files in folders of the host's owner always stay."""
        deleted = await store.delete_deployment(door, deployment_id, with_files=files)
        gone = await effective(catalog, tasks, deleted)
        return DeletedDeployment(id=gone["id"], files_preserved=gone["files_preserved"], note=_note(gone))

    @routes.post("/{deployment_id}/dry-run", summary="Show how a model would be started", responses=ONE)
    async def dry_run(door: OpenDoor, deployment_id: DeploymentId) -> DryRun:
        """Nothing is started. Of the spec as it was edited last. The host reads the files of a path that it has not
        read yet."""
        found = await store.deployment(door, deployment_id)
        made = found["deployment"]
        spec, facts, unread = Spec.model_validate(made["spec"]), made["facts"], None
        if facts is None and made["host"]["contact"] == "seen":
            facts, unread = await read_facts(door, tasks, spec, made["host_id"])
        return DryRun(**rules.dry_run(spec, facts, found["capabilities"], unread))

    @routes.get("/{deployment_id}/phases", summary="List the changes of the phase of a model", responses=ONE)
    async def phases(
        door: OpenDoor, deployment_id: DeploymentId, query: Annotated[PageQuery, Query()]
    ) -> CountedPage[PhaseChangeDetails]:
        """The last 200, newest first, as the agent told them."""
        found = await store.phase_changes(door, deployment_id, query.filters(), query.limit)
        return CountedPage[PhaseChangeDetails].of(found)

    @routes.get("/{deployment_id}/readiness", summary="Check whether a model takes calls", responses=ONE)
    async def readiness(door: OpenDoor, deployment_id: DeploymentId) -> DeploymentReadiness:
        return DeploymentReadiness(**rules.readiness((await store.deployment(door, deployment_id))["deployment"]))

    return routes


def _life(gate: Gate, catalog: Catalog, tasks: Tasks) -> Routes:
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    async def wanted(door: Door, deployment_id: str, state: str, *, applied: bool = False) -> DeploymentDetails:
        changed = await store.set_wanted(door, deployment_id, state, applied=applied)
        return shown(await effective(catalog, tasks, changed))

    @routes.post("/{deployment_id}/start", summary="Start a model", responses=CHANGING)
    async def start(
        door: OpenDoor, deployment_id: DeploymentId, body: Annotated[Start | None, Body()] = None
    ) -> DeploymentDetails:
        """With its newest spec. The answer comes before the host has done it: see phase."""
        return await wanted(door, deployment_id, (body or Start()).wanted)

    @routes.post("/{deployment_id}/stop", summary="Stop a model", responses=CHANGING)
    async def stop(door: OpenDoor, deployment_id: DeploymentId) -> DeploymentDetails:
        """It gets no new calls at once. Those that it has may end within drain_seconds."""
        return await wanted(door, deployment_id, "stopped")

    @routes.post("/{deployment_id}/apply", summary="Start a model again", responses=CHANGING)
    async def apply(door: OpenDoor, deployment_id: DeploymentId) -> DeploymentDetails:
        """With its newest spec, also if nothing was edited. Calls may end before."""
        return await wanted(door, deployment_id, "running", applied=True)

    @routes.post("/{deployment_id}/archive", summary="Stop a model and archive it", responses=CHANGING)
    async def archive(door: OpenDoor, deployment_id: DeploymentId) -> DeploymentDetails:
        return shown(await effective(catalog, tasks, await store.archive_deployment(door, deployment_id)))

    return routes


def _asked(gate: Gate, tasks: Tasks) -> Routes:
    """What the host is asked: through its ingress, else with its next sync, for up to 20 seconds."""
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.post("/{deployment_id}/test", summary="Send a model a small request", responses=ASKING)
    async def test(door: OpenDoor, deployment_id: DeploymentId) -> TestedDeployment:
        """Past the books: nothing is charged."""
        found = await tasks.result(door, "test", {}, deployment_id=deployment_id)
        return TestedDeployment(**{**found, "timestamp": clock.now()})

    @routes.get(
        "/{deployment_id}/logs",
        summary="Get the log of a model",
        responses=ASKING | LOGS,
    )
    async def logs(door: OpenDoor, deployment_id: DeploymentId, query: Annotated[LogsQuery, Query()]) -> Any:
        """Of a host that is silent: the end of the log of its last failure, if there was one."""
        found = await store.deployment(door, deployment_id)
        text = found["log_tail"] or ""
        if found["deployment"]["host"]["contact"] == "seen":
            asked = {"lines": query.lines}
            text = rules.log_text(await tasks.result(door, "logs", asked, deployment_id=deployment_id))
        if not query.diagnose:
            return PlainTextResponse(text)
        made = DiagnosedLogs(**rules.diagnosed(text, found["deployment"]["state"]))
        return JSONResponse(made.model_dump(mode="json"))

    return routes


def shown(found: dict[str, Any]) -> DeploymentDetails:
    return DeploymentDetails(**found["deployment"])


def _base_dir(found: dict[str, Any]) -> BaseDirDetails:
    return BaseDirDetails(host_id=found["host"]["id"], base_dir=found["host"]["base_dir"])


def _note(gone: dict[str, Any]) -> str:
    if not gone["files_preserved"]:
        return "The host deletes the files that it downloaded."
    return "Another model has the same files, so they stay." if gone["shares_files"] else "The files stay on the host."
