"""The supervisor: keeps the host's deployments as they should be, round by round."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pydantic import ValidationError

from tollgate.agent import claims
from tollgate.agent.claims import Claim, Refusal
from tollgate.agent.containers import ContainerFailed
from tollgate.agent.deployment import Deployment
from tollgate.agent.schemas import Desired, HostState
from tollgate.agent.setup import Setup
from tollgate.engines.facts import Facts
from tollgate.engines.memory import UTILIZATION, estimate
from tollgate.engines.schemas import Spec
from tollgate.process import logs

ROUND_SECONDS: Final = 1.0
ROUND_SECONDS_IN_TRANSITION: Final = 0.1
SWEEP_SECONDS: Final = 60.0
DESIRED: Final = "desired.json"
GIB: Final = 1024**3
TAKES_ITS_SHARE: Final = frozenset({"vllm", "sglang"})
"""Engines that take a share of each GPU, however small the model is."""

log = logs.source("application")


class Supervisor:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.deployments: dict[str, Deployment] = {}
        self.version: int | None = None
        """Of the desired state that is known."""
        self.host = HostState()
        self._desired: list[Desired] = []
        self._is_unwritten = False
        self._awake = asyncio.Event()
        self._swept_at: float | None = None
        self.may_act: Callable[[], bool] = lambda: True
        """Not while another agent is this host: then this one touches nothing."""
        self.changed = asyncio.Event()
        """A phase changed, which the control plane should know."""

    # The desired state

    def restore(self) -> None:
        """From disk: what was wanted last, and what runs."""
        if known := self._setup.directory.read(DESIRED):
            self.version = known["version"]
            self.host = HostState.model_validate(known["host"])
            self._desired = list(_readable(known["deployments"]))
        engines = self._setup.directory.path / "engines"
        on_record = [entry.name for entry in engines.iterdir() if entry.is_dir()] if engines.exists() else []
        for id_ in on_record:
            self._deployment(id_).restore()
        self._hand_out()

    def apply(self, version: int, deployments: Sequence[dict[str, Any]] | None, host: HostState) -> None:
        """The answer to a sync. It is acted on even if the disk is full; it is then written later."""
        if deployments is not None:
            self._desired = list(_readable(deployments))
        elif version == self.version and host == self.host:
            self._write_if_behind()
            return
        self.version, self.host, self._is_unwritten = version, host, True
        self._write_if_behind()
        self._hand_out()
        self.wake()

    def acknowledge(self, observation: dict[str, Any]) -> None:
        """The control plane has it."""
        if deployment := self.deployments.get(observation["deployment_id"]):
            deployment.acknowledge(observation)

    def retire(self) -> None:
        """Nothing is wanted of this host any more."""
        self.apply(0, [], HostState(state="retired"))
        self.version = None  # if it comes back, all is asked for again

    def _write_if_behind(self) -> None:
        if not self._is_unwritten:
            return
        state = {
            "version": self.version,
            "host": self.host.model_dump(),
            "deployments": [desired.model_dump(mode="json") for desired in self._desired],
        }
        try:
            self._setup.directory.write(DESIRED, state)
            self._is_unwritten = False
        except OSError as error:
            log.error("state_not_written", error=error.strerror)

    def _hand_out(self) -> None:
        wanted = {desired.id: desired for desired in self._desired}
        for id_ in wanted:
            self._deployment(id_)
        for id_, deployment in self.deployments.items():
            deployment.want(wanted.get(id_), self.host.state == "active")

    def _deployment(self, id_: str) -> Deployment:
        if id_ not in self.deployments:
            self.deployments[id_] = Deployment(self._setup, id_, self._ask_claim)
        return self.deployments[id_]

    # Rounds

    def wake(self) -> None:
        self._awake.set()

    async def keep(self) -> None:
        """Round after round, until it is cancelled."""
        while True:
            if self.may_act():
                await self.round()
            in_transition = any(one.in_transition for one in self.deployments.values())
            pause = ROUND_SECONDS_IN_TRANSITION if in_transition else ROUND_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._awake.wait()
            except TimeoutError:
                pass
            self._awake.clear()

    async def round(self) -> None:
        before = self._phases()
        await asyncio.gather(*(self._round_of(one) for one in self.deployments.values()))
        for id_, deployment in list(self.deployments.items()):
            if deployment.is_gone:
                await deployment.remove()
                del self.deployments[id_]
        await self._sweep_containers()
        if self._phases() != before:
            self.changed.set()
            self.wake()

    def _phases(self) -> dict[str, tuple[str, bool]]:
        return {id_: (one.phase, one.is_ready) for id_, one in self.deployments.items()}

    async def _round_of(self, deployment: Deployment) -> None:
        """One deployment's trouble is not the others'."""
        try:
            await deployment.round()
        except Exception:
            log.exception("round_failed", deployment=deployment.id)

    async def _sweep_containers(self) -> None:
        """Containers of this directory that no run has: their agent ended while they were being made."""
        containers, now = self._setup.containers, self._setup.clock()
        if containers is None or (self._swept_at is not None and now - self._swept_at < SWEEP_SECONDS):
            return
        self._swept_at = now
        try:
            names = await containers.names(str(self._setup.directory.path))
            ours = {one.run.engine.record.get("name") for one in self.deployments.values() if one.run}
            for name in set(names) - ours:
                await containers.call("rm", "--force", "--volumes", name)
        except ContainerFailed as error:
            log.warning("containers_not_swept", error=str(error))

    async def leave(self) -> None:
        """The agent ends; engines go on."""
        await asyncio.gather(*(one.leave() for one in self.deployments.values()))

    async def end_all(self) -> None:
        """Stops all engines, as if nothing were wanted. What is wanted stays on disk."""
        for deployment in self.deployments.values():
            deployment.want(None, host_is_active=False)
        while any(one.run for one in self.deployments.values()):
            await asyncio.gather(*(self._round_of(one) for one in self.deployments.values()))
            await asyncio.sleep(ROUND_SECONDS_IN_TRANSITION)

    # Claims

    def _ask_claim(self, asking: Deployment, facts: Facts | None) -> Claim | Refusal:
        gpus = self._setup.gpus()
        assert asking.desired  # noqa: S101
        spec = asking.desired.spec
        held = {id_: one.claim for id_, one in self.deployments.items() if one.claim and one is not asking}
        need = needed_bytes(spec, facts, gpus)
        count = 0 if spec.engine == "llamacpp" and spec.gpu_layers == 0 else spec.tensor_parallel
        if count == 0:
            return claims.NOTHING
        answer = claims.grant(gpus, held, count, need, spec.gpus)
        if isinstance(answer, Refusal) and answer.for_memory:
            self._evict()
        return answer

    def _evict(self) -> None:
        """The on-demand model that was idle longest makes room."""
        idle = [one for one in self.deployments.values() if one.is_evictable and one.claim and one.claim.gpus]
        if idle:
            min(idle, key=lambda one: one.traffic.used_at).demanded = False


def needed_bytes(spec: Spec, facts: Facts | None, gpus: Sequence[claims.Gpu]) -> int:
    """Of each GPU."""
    estimated = int(estimate(spec, facts, spec.tensor_parallel).total_per_gpu_gb * GIB) if facts else 0
    if spec.engine not in TAKES_ITS_SHARE or not gpus:
        return estimated
    share = spec.gpu_memory_utilization or UTILIZATION
    return max(estimated, int(share * min(gpu.total_bytes for gpu in gpus)))


def _readable(deployments: Iterable[dict[str, Any]]) -> Iterable[Desired]:
    """One that this agent cannot read concerns itself only: the others go on."""
    for given in deployments:
        try:
            yield Desired.model_validate(given)
        except ValidationError as error:
            log.error("deployment_not_understood", deployment=str(given.get("id")), problems=error.error_count())
