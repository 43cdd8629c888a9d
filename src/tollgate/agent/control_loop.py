"""The control loop: tells the control plane what is, and is told what should be. It only calls outward."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from tollgate import __version__
from tollgate.agent.data_directory import DataDirectory
from tollgate.agent.host_keys import HostKeys
from tollgate.agent.schemas import Answer, Enrolled, Task
from tollgate.agent.supervisor import Supervisor
from tollgate.agent.tasks import outcome
from tollgate.process import logs
from tollgate.process.clock import Monotonic, monotonic

SYNC_SECONDS: Final = 30.0
LONGEST_BACK_OFF: Final = 60.0
REFUSED_SECONDS: Final = 60.0
"""Until the next sync, after one that was refused by name: each refusal counts as a failed authentication."""
BUSY_SECONDS: Final = 30.0
"""Another agent is this host, and may end."""
LEAST_PAUSE: Final = 0.2
"""Between two syncs, however much changes."""

log = logs.source("application")


class NotEnrolled(Exception):
    """The host has no key, and could not get one. The message is one line for the terminal."""


class ControlPlane:
    """Its two endpoints, as the agent calls them."""

    def __init__(self, server: str, http: httpx.AsyncClient) -> None:
        self._server = server.rstrip("/")
        self._http = http

    async def enrol(self, token: str, told: dict[str, Any]) -> Enrolled:
        answer = await self._post("/agent/enrol", {"token": token, **told}, None)
        if answer.status_code != httpx.codes.CREATED:
            raise NotEnrolled(_said(answer))
        return Enrolled.model_validate(answer.json())

    async def sync(self, key: str, told: dict[str, Any]) -> httpx.Response:
        return await self._post("/agent/sync", told, key)

    async def _post(self, path: str, body: dict[str, Any], key: str | None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return await self._http.post(self._server + path, json=body, headers=headers, timeout=SYNC_SECONDS)


class ControlLoop:
    def __init__(
        self,
        control_plane: ControlPlane,
        directory: DataDirectory,
        supervisor: Supervisor,
        keys: HostKeys,
        *,
        ingress_url: str | None,
        capabilities: Callable[[], dict[str, Any]],
        sample: Callable[[], dict[str, Any] | None],
        perform: Callable[[Task], Awaitable[Any]],
        hub_tokens: dict[str, str],
        clock: Monotonic = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._control_plane = control_plane
        self._directory = directory
        self._supervisor = supervisor
        self._keys = keys
        self._ingress_url = ingress_url
        self._capabilities = capabilities
        self._sample = sample
        self._perform = perform
        self._hub_tokens = hub_tokens
        self._clock = clock
        self._chance = chance
        self.incarnation, self._is_copy = directory.incarnation()
        self.may_act = not self._is_copy
        """A copy of a directory acts when the control plane has accepted it, and not before. So does an agent that was
        refused because another one lives."""
        self._seq = 0
        self._told_capabilities: dict[str, Any] | None = None
        self._results: dict[str, dict[str, Any]] = {}
        self._performing: dict[str, asyncio.Task[None]] = {}
        self._failed_syncs = 0
        self._is_woken = False
        self.poll_seconds = 10.0

    async def keep(self) -> None:
        """Sync after sync, until it is cancelled."""
        while True:
            self._supervisor.changed.clear()
            self._is_woken = False
            pause = await self.sync()
            await asyncio.sleep(LEAST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed()

    async def _changed(self) -> None:
        """While the control plane is away, changes are no reason to ask it more often."""
        await self._supervisor.changed.wait()
        while self._failed_syncs and not self._is_woken:
            self._supervisor.changed.clear()
            await self._supervisor.changed.wait()

    def wake(self) -> None:
        """The control plane has called: it is there, and something is wanted."""
        self._is_woken = True
        self._supervisor.changed.set()

    async def sync(self) -> float:
        """Once. Answers after how many seconds to sync again."""
        told = self._told()
        try:
            answer = await self._control_plane.sync(self._keys.current, told)
            if answer.is_success:
                self._take(told, Answer.model_validate(answer.json()))
                return self.poll_seconds
            return self._refused(answer)
        except (httpx.HTTPError, ValueError) as error:
            return self._away(type(error).__name__)

    def _told(self) -> dict[str, Any]:
        capabilities = self._capabilities()
        deployments = list(self._supervisor.deployments.values())
        return {
            "incarnation": self.incarnation,
            "seq": self._next_seq(),
            "known_version": self._supervisor.version,
            "agent_version": __version__,
            "ingress_url": self._ingress_url,
            "capabilities": capabilities if capabilities != self._told_capabilities else None,
            "observations": [one.observation() for one in deployments],
            "metrics": [metrics for one in deployments if (metrics := one.metrics())],
            "sample": self._sample(),
            "task_results": list(self._results.values()),
        }

    def _next_seq(self) -> int:
        """Grows within an incarnation, also when the agent is started again: it is at least the age of the boot."""
        self._seq = max(self._seq + 1, int(self._clock() * 1000))
        return self._seq

    def _take(self, told: dict[str, Any], answer: Answer) -> None:
        """What was told is known now; what was answered is acted on."""
        if self._failed_syncs:
            log.info("control_plane_is_back", after=self._failed_syncs)
        self._failed_syncs, self.may_act, self.poll_seconds = 0, True, answer.poll_seconds
        if self._is_copy:
            self._directory.accept()
            self._is_copy = False
        self._told_capabilities = told["capabilities"] or self._told_capabilities
        for result in told["task_results"]:
            self._results.pop(result["task_id"], None)
        for observation in told["observations"]:
            self._supervisor.acknowledge(observation)
        if self._keys.take(answer.host_keys):
            log.info("host_keys_replaced", keys=len(answer.host_keys))
        self._hub_tokens.clear()
        self._hub_tokens.update(answer.hub_tokens)
        self._supervisor.apply(answer.desired_version, answer.deployments, answer.host)
        for task in answer.tasks:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        """Once, though it is asked for until its result has arrived."""
        if task.id not in self._performing and task.id not in self._results:
            self._performing[task.id] = asyncio.create_task(self._do(task))

    async def _do(self, task: Task) -> None:
        self._results[task.id] = {"task_id": task.id, **await outcome(self._perform, task)}
        del self._performing[task.id]
        self._supervisor.changed.set()

    def _refused(self, answer: httpx.Response) -> float:
        code = _code(answer)
        match code:
            case "host_busy":
                self.may_act = False
                log.error("another_agent_is_this_host", remedy="End it, or enrol this one as a host of its own.")
                return BUSY_SECONDS
            case "host_key_invalid":
                log.error("host_key_refused", remedy="The key was rotated: start the agent with a new --token.")
            case "host_retired":
                log.error("host_retired", remedy="Enrol it again to use it again.")
                self._supervisor.retire()
            case _:
                return self._away(code or str(answer.status_code))
        return REFUSED_SECONDS

    def _away(self, why: str) -> float:
        """What is wanted is on disk, so engines and ingress go on."""
        if not self._failed_syncs:
            log.warning("control_plane_is_away", why=why)
        self._failed_syncs += 1
        return back_off(self._failed_syncs, self._chance())

    async def leave(self) -> None:
        for task in self._performing.values():
            task.cancel()
        await asyncio.gather(*self._performing.values(), return_exceptions=True)


def back_off(failures: int, chance: float) -> float:
    """Half of it is chance, so that the hosts of a fleet do not all come back at once."""
    whole = min(2.0 ** min(failures, 10), LONGEST_BACK_OFF)
    return whole / 2 + whole / 2 * chance


def _code(answer: httpx.Response) -> str | None:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) else None


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code} to the enrolment: check --server"
