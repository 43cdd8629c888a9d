"""A program beside the server, as real processes: when it starts, what it knows, and when it ends."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandbox.serving import PATIENCE_SECONDS
from tollgate.process import logs, side_process

PROGRAM = """
import json, os, pathlib, socket, sys, threading

pathlib.Path(__file__).with_name("started").touch()

def end():
    os.read(0, 1)
    os._exit(0)

threading.Thread(target=end, daemon=True).start()
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(json.dumps({"pid": os.getpid(), "environment": sorted(os.environ)}).encode())
"""
STARTING = """
import time
from tollgate.process import side_process

with side_process.serving("program") as address:
    print(address, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(side_process, "PAUSE_SECONDS", 0.01)


def ask(address: str) -> dict[str, Any]:
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE_SECONDS) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        answer: dict[str, Any] = json.loads(connection.makefile("rb").read())
    return answer


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Dead, though perhaps nobody has looked yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_it_serves_from_the_first_connection_to_the_end_of_the_block() -> None:
    with side_process.serving("program") as address:
        pids = {ask(address)["pid"] for _ in range(3)}
    assert len(pids) == 1
    assert is_gone(*pids)


def test_nothing_is_started_for_nobody(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with side_process.serving("program"):
        pass
    assert not started.exists()
    with side_process.serving("program") as address:
        ask(address)
    assert started.exists()


def test_it_knows_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY_PEPPER", "OPENROUTER_API_KEY", "DATABASE_URL"):
        monkeypatch.setenv(name, "secret")
    with side_process.serving("program") as address:
        assert set(ask(address)["environment"]) <= {*side_process.KEPT_OF_THE_ENVIRONMENT, "LC_CTYPE"}


def test_should_it_die_it_is_there_again_for_the_next() -> None:
    with side_process.serving("program") as address:
        first = ask(address)["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: is_gone(first))
        assert ask(address)["pid"] != first


def test_what_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    logs.configure("info", [], log)
    with side_process.serving("program") as address, monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        where = urlsplit(address)
        with socket.create_connection((where.hostname, where.port), timeout=PATIENCE_SECONDS) as waiting:
            waiting.settimeout(PATIENCE_SECONDS)
            wait_until(lambda: "program_ended" in log.getvalue())
            broken.undo()
            assert json.loads(waiting.makefile("rb").read())["pid"]


def test_it_does_not_outlive_who_started_it_even_if_that_one_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, text=True) as starting:
        assert starting.stdout
        pid = ask(starting.stdout.readline().strip())["pid"]
        assert not is_gone(pid)
        starting.kill()
    wait_until(lambda: is_gone(pid))
