"""Kills engines and agent at random, and changes at random what is wanted: `python -m agent.storm SECONDS [SEED]` in
tests/. In the end nothing runs that is not wanted, all that is wanted runs, and no foreign process was touched."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from agent import control_plane, host
from agent.control_plane import ControlPlane, until
from agent.host import Agent
from engines import tiny_model

NAMES = ("dep_a", "dep_b", "dep_c", "dep_d")
SETTLES_SECONDS = 60
"""The second back-off, 20 s, and what comes to it on a busy machine."""


def storm(seconds: float, seed: int, folder: Path) -> Counter[str]:
    chance = random.Random(seed)  # noqa: S311
    models = folder / "models"
    models.mkdir()
    model = tiny_model.write_gguf(models / "tiny.gguf")
    done: Counter[str] = Counter()
    foreign = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    with control_plane.serving() as plane, host.running(plane, folder, models) as agent:
        for name in NAMES:
            plane.want(name, host.spec(model))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            happened = chance.choice((_kill_engine, _kill_agent, _toggle, _change, _away))
            happened(chance, plane, agent)
            done[happened.__name__] += 1
            time.sleep(chance.uniform(0, 0.8))
        plane.is_away = False
        for number, name in enumerate(NAMES):
            plane.want(name, host.spec(model), "stopped" if number % 2 else "running")
        _settles(plane, agent)
        assert foreign.poll() is None, "a foreign process was touched"
        for name in NAMES:
            plane.stop(name)
        until(lambda: not agent.engines())
    foreign.kill()
    foreign.wait()
    return done


def _settles(plane: ControlPlane, agent: Agent) -> None:
    expected = {name: "stopped" if number % 2 else "running" for number, name in enumerate(NAMES)}
    end = time.monotonic() + SETTLES_SECONDS
    while {name: plane.phase(name) for name in NAMES} != expected or len(agent.engines()) != 2:
        if time.monotonic() > end:
            raise AssertionError(f"{plane.observations} {agent.engines()}")
        time.sleep(0.1)


def _kill_engine(chance: random.Random, plane: ControlPlane, agent: Agent) -> None:
    if engines := agent.engines():
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(engines), signal.SIGKILL)


def _kill_agent(chance: random.Random, plane: ControlPlane, agent: Agent) -> None:
    agent.kill()
    time.sleep(chance.uniform(0, 0.3))
    agent.start()


def _toggle(chance: random.Random, plane: ControlPlane, agent: Agent) -> None:
    name = chance.choice(NAMES)
    wanted = chance.choice(("running", "stopped", "on_demand"))
    plane.deployments[name] = {**plane.deployments[name], "wanted": wanted}
    plane.version += 1


def _change(chance: random.Random, plane: ControlPlane, agent: Agent) -> None:
    name = chance.choice(NAMES)
    spec = {**plane.deployments[name]["spec"], "context_length": chance.choice((256, 512, 1024))}
    plane.want(name, spec)


def _away(chance: random.Random, plane: ControlPlane, agent: Agent) -> None:
    plane.is_away = not plane.is_away


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tg-") as made:
        told = storm(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(made))
    os.write(1, f"nothing is left, and what was wanted ran: {dict(told)}\n".encode())
