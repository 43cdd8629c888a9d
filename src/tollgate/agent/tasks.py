"""Tasks: what a host is asked to do once. Paths stay within the allowed roots, and answers hold no secret."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
from pydantic import TypeAdapter, ValidationError

from tollgate.agent import hub, model_files
from tollgate.agent.allowed_roots import OutsideRoots
from tollgate.agent.deployment import Deployment
from tollgate.agent.downloads import DownloadFailed
from tollgate.agent.schemas import Task
from tollgate.agent.setup import Setup
from tollgate.agent.supervisor import Supervisor
from tollgate.engines.schemas import HubSource, PathSource
from tollgate.process.clock import Monotonic

MOST_LINES: Final = 5000
MOST_RESULT_BYTES: Final = 256 * 1024
LONGEST_ANSWER: Final = 16 * 1024


class TaskFailed(Exception):
    """Why a task could not be done, in a sentence."""


async def outcome(perform: Callable[[Task], Awaitable[Any]], task: Task) -> dict[str, Any]:
    """How a task ended, as the control plane is told it."""
    try:
        return {"status": "done", "result": await perform(task), "error": None}
    except TaskFailed as failed:
        return {"status": "failed", "result": None, "error": str(failed)}


class Tasks:
    def __init__(self, setup: Setup, supervisor: Supervisor) -> None:
        self._setup = setup
        self._supervisor = supervisor
        self._clock: Monotonic = setup.clock
        self._kinds: dict[str, Callable[[dict[str, Any]], Any]] = {
            "local_folders": self._local_folders,
            "inspect_folder": self._inspect_folder,
            "facts": self._facts,
            "logs": self._logs,
            "test": self._test,
            "delete_files": self._delete_files,
            "hub_config": self._hub_config,
        }

    async def perform(self, task: Task) -> Any:
        if task.kind not in self._kinds:
            raise TaskFailed(f"This agent does not know the task {task.kind}: update it.")
        try:
            result = await self._kinds[task.kind](task.arguments)
        except KeyError as missing:
            raise TaskFailed(f"The task {task.kind} needs {missing}.") from None
        except DownloadFailed as failed:
            raise TaskFailed(failed.message) from None
        except (OSError, ValueError, TypeError, OutsideRoots, httpx.HTTPError, ValidationError) as error:
            raise TaskFailed(str(error) or type(error).__name__) from None
        if len(json.dumps(result)) > MOST_RESULT_BYTES:
            raise TaskFailed("The result has more than 256 KiB: ask for less.")
        return result

    async def _local_folders(self, arguments: dict[str, Any]) -> list[str]:
        return await asyncio.to_thread(self._setup.folders.local_folders, self._base(arguments))

    async def _inspect_folder(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(self._setup.folders.inspect, self._base(arguments), arguments["folder"])

    async def _facts(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the files of a source say, wherever it is."""
        source = TypeAdapter(HubSource | PathSource).validate_python(arguments["source"])
        path = await asyncio.to_thread(model_files.found, self._setup, source)
        facts = await asyncio.to_thread(self._setup.folders.facts, path) if path else None
        if facts is None:
            raise TaskFailed("There are no files there that say what the model is.")
        return facts.model_dump(mode="json")

    def _base(self, arguments: dict[str, Any]) -> str | None:
        base = arguments.get("base") or self._supervisor.host.base_dir
        return None if base is None else str(base)

    async def _logs(self, arguments: dict[str, Any]) -> dict[str, Any]:
        deployment = self._deployment(arguments)
        count = max(1, min(int(arguments.get("lines") or 200), MOST_LINES))
        if deployment.run:
            await deployment.run.engine.refresh_log()
        return {"lines": await asyncio.to_thread(deployment.last_lines, count)}

    async def _test(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """One request to a model that runs, as its readiness is found."""
        deployment = self._deployment(arguments)
        run = deployment.run
        if deployment.phase != "running" or run is None:
            raise TaskFailed(f"The model is {deployment.phase}: start it, then test it.")
        began = self._clock()
        told: dict[str, Any] = {"test_type": run.probe["path"], "request": run.probe.get("json")}
        try:
            answer = await run.client.probe(run.probe)
        except httpx.HTTPError as error:
            return {**told, "success": False, "response": None, "error": type(error).__name__, "latency_ms": None}
        said = (
            deployment.redactor()(answer.text) if _is_text(answer) and len(answer.content) <= LONGEST_ANSWER else None
        )
        return {
            **told,
            "success": answer.is_success,
            "response": _object(said),
            "error": None if answer.is_success else f"The engine answered {answer.status_code}.",
            "latency_ms": round(1000 * (self._clock() - began)),
        }

    async def _delete_files(self, arguments: dict[str, Any]) -> dict[str, Any]:
        source = TypeAdapter(HubSource).validate_python(arguments["source"])
        users = [one for one in self._supervisor.deployments.values() if one.uses(source)]
        if users:
            raise TaskFailed(f"{', '.join(one.id for one in users)} uses these files: stop it first.")
        await asyncio.to_thread(self._setup.downloads.delete, source)
        for one in self._supervisor.deployments.values():
            one.files.forget()
        return {"deleted": True}

    async def _hub_config(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await hub.config(self._setup.hub, arguments["repo_id"], arguments.get("revision") or "main")

    def _deployment(self, arguments: dict[str, Any]) -> Deployment:
        found = self._supervisor.deployments.get(arguments["deployment_id"])
        if found is None:
            raise TaskFailed("The model is not on this host.")
        return found


def _object(said: str | None) -> Any:
    """As JSON, if it is."""
    try:
        return None if said is None else json.loads(said)
    except ValueError:
        return said


def _is_text(answer: httpx.Response) -> bool:
    kind: str = answer.headers.get("content-type", "")
    return kind.startswith(("application/json", "text/"))
