"""A supervisor in the process of the test, with a clock that the test can put forward and real engines."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import host
from agent.control_plane import PATIENCE_SECONDS, until
from tollgate.agent.claims import Gpu
from tollgate.agent.data_directory import DataDirectory
from tollgate.agent.deployment import Deployment
from tollgate.agent.downloads import Downloads
from tollgate.agent.folders import Folders
from tollgate.agent.phases import Phase
from tollgate.agent.schemas import HostState
from tollgate.agent.setup import Setup
from tollgate.agent.supervisor import Supervisor


class Clock:
    """The time of the system, and what the test adds."""

    def __init__(self) -> None:
        self.added = 0.0
        self._stands_at: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self._stands_at is None else self._stands_at) + self.added

    @contextlib.contextmanager
    def stands_still(self) -> Iterator[None]:
        """But for what the test adds, so that no second of a slow machine counts."""
        self._stands_at = time.monotonic()
        try:
            yield
        finally:
            self._stands_at = None

    def forward(self, seconds: float) -> None:
        self.added += seconds


class Inside:
    def __init__(self, directory: Path, models: Path) -> None:
        self.models = models
        self.clock = Clock()
        self.gpus: list[Gpu] = []
        self.allowed_flags: list[str] = []
        self.wanted: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.directory = DataDirectory(directory)
        self.setup = Setup(
            directory=self.directory,
            downloads=Downloads(models),
            folders=Folders([models]),
            capabilities=self._capabilities,
            gpus=lambda: self.gpus,
            commands={mode: (sys.executable, "-S", str(host.ODD), mode, "{socket}") for mode in host.MODES},
            clock=self.clock,
        )
        self.supervisor = Supervisor(self.setup)

    def _capabilities(self) -> dict[str, Any]:
        return {"allowed_commands": list(host.MODES), "allowed_flags": self.allowed_flags}

    def want(self, id_: str, spec: dict[str, Any], wanted: str = "running", generation: int = 1, **more: Any) -> None:
        self.wanted[id_] = {
            **{"id": id_, "generation": generation, "wanted": wanted, "spec": spec, "drain_seconds": 5},
            **{"idle_seconds": None, "minimum_stay_seconds": 0, "load_seconds": 20},
            **more,
        }
        self.apply()

    def stop(self, id_: str) -> None:
        self.wanted[id_]["wanted"] = "stopped"
        self.apply()

    def apply(self, state: str = "active") -> None:
        self.version += 1
        self.supervisor.apply(self.version, list(self.wanted.values()), HostState.model_validate({"state": state}))

    def restarted(self) -> "Inside":
        """As after the end of this agent: another one on the same directory."""
        other = Inside(self.directory.path, self.models)
        other.clock, other.setup.clock = self.clock, self.clock
        other.wanted, other.version = self.wanted, self.version
        other.supervisor = Supervisor(other.setup)
        other.supervisor.restore()
        return other

    def __getitem__(self, id_: str) -> Deployment:
        return self.supervisor.deployments[id_]

    async def rounds(self, condition: Callable[[], Any]) -> None:
        """Rounds until something is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.told()
            await self.supervisor.round()
            await asyncio.sleep(0.02)

    def told(self) -> dict[str, tuple[str, str | None, str]]:
        """For a person who reads why a test failed."""
        known = self.supervisor.deployments.items()
        return {id_: (one.phase, one.detail, one.logs.tail(one.redactor())[-1000:]) for id_, one in known}

    async def becomes(self, id_: str, phase: Phase) -> Deployment:
        await self.rounds(lambda: self[id_].phase in {phase, "failed"})
        assert self[id_].phase == phase, self.told()
        return self[id_]

    def pid(self, id_: str) -> int:
        run = self[id_].run
        assert run
        pid: int = run.engine.record["pid"]
        return pid

    def engines(self) -> list[int]:
        return host.engines_of(self.directory.path)

    async def end(self) -> None:
        await self.supervisor.leave()
        for pid in self.engines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.engines())


@contextlib.asynccontextmanager
async def inside(directory: Path, models: Path, environment: pytest.MonkeyPatch) -> AsyncIterator[Inside]:
    for name, value in host.environment().items():
        environment.setenv(name, value)
    made = Inside(directory, models)
    try:
        yield made
    finally:
        await made.end()
