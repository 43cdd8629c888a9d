"""Engines as containers, by the command line that docker and podman share. A container is known by its name, which is
on record before it is made, and by labels with the data directory and the deployment."""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tollgate.agent.engine_process import Look
from tollgate.engines.commands import Command

DIRECTORY_LABEL: Final = "tollgate.directory"
DEPLOYMENT_LABEL: Final = "tollgate.deployment"
COMMAND_SECONDS: Final = 120.0
LOG_LINES: Final = "2000"
OUT_OF_MEMORY: Final = 137
NOT_MADE: Final = 125
"""What docker and podman exit with when there is no container."""
RUNS: Final = frozenset({"created", "running", "paused", "restarting", "stopping", "configured", "initialized"})


class ContainerFailed(Exception):
    """The client could not do it. The message is what it said."""


class Containers:
    def __init__(self, client: Sequence[str]) -> None:
        self.client = tuple(client)
        """docker or podman, with words of its own."""

    async def call(self, *arguments: str) -> str:
        return await asyncio.to_thread(_output, [*self.client, *arguments], os.environ)

    async def run(self, command: Command) -> None:
        await asyncio.to_thread(_output, command.argv, {**os.environ, **command.environment})

    async def names(self, directory: str) -> list[str]:
        """All containers that an agent on this data directory made."""
        filters = ("--filter", f"label={DIRECTORY_LABEL}={directory}")
        return (await self.call("ps", "--all", *filters, "--format", "{{.Names}}")).split()


class EngineContainer:
    def __init__(self, containers: Containers, name: str, log: Path) -> None:
        self._containers = containers
        self.name = name
        self._log = log
        self._is_being_made = False
        self._failed = False

    @property
    def record(self) -> dict[str, Any]:
        return {"kind": "container", "name": self.name, "log": str(self._log)}

    async def make(self, command: Command) -> None:
        """If it cannot be made, the log says why."""
        self._is_being_made = True
        try:
            await self._containers.run(command)
        except ContainerFailed as error:
            self._failed = True
            self._log.write_text(f"{error}\n", encoding="utf-8")
        finally:
            self._is_being_made = False

    async def look(self, closely: bool = False) -> Look:
        if self._is_being_made:
            return Look(leads=True, left=True, exit_code=None)
        if self._failed:
            return Look(leads=False, left=False, exit_code=NOT_MADE)
        wanted = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"
        try:
            shown = await self._containers.call("inspect", "--type", "container", "--format", wanted, self.name)
        except ContainerFailed as error:
            gone = "no such" in str(error).lower()
            return Look(not gone, not gone, None)  # when the client fails, the container may still run
        status, code, out_of_memory = shown.split()
        runs = status in RUNS
        return Look(runs, runs, None if runs else OUT_OF_MEMORY if out_of_memory == "true" else int(code))

    async def terminate(self) -> None:
        await self._quietly("kill", "--signal", "TERM", self.name)

    async def kill(self) -> None:
        await self._quietly("kill", "--signal", "KILL", self.name)

    async def remove(self) -> None:
        await self.refresh_log()
        await self._quietly("rm", "--force", "--volumes", self.name)

    async def refresh_log(self) -> None:
        if not self._failed and (printed := await self._quietly("logs", "--tail", LOG_LINES, self.name)):
            await asyncio.to_thread(self._log.write_text, printed, encoding="utf-8")

    def let_go(self) -> None:
        """It is not a process of the agent's."""

    async def _quietly(self, *arguments: str) -> str:
        try:
            return await self._containers.call(*arguments)
        except ContainerFailed:
            return ""


def _output(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """What the client printed. In a session of its own, so that Ctrl-C does not reach it."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContainerFailed(f"{argv[0]}: {error}") from None
    if done.returncode:
        raise ContainerFailed(done.stderr.strip()[-1000:] or f"{argv[0]} ended with {done.returncode}")
    return done.stdout + (done.stderr if "logs" in argv else "")
