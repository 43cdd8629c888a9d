"""What a look at an engine says while its process ends."""

import sys
from pathlib import Path

import pytest

from agent.control_plane import until
from tollgate.agent.engine_process import Waiting, start_time

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="a zombie is a state of Linux")]

FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


async def test_an_engine_whose_first_thread_has_ended_runs_until_it_has_an_exit_code(tmp_path: Path) -> None:
    waiting = Waiting([sys.executable, "-S", "-c", FIRST_THREAD_ENDS], {}, tmp_path / "engine", tmp_path / "log")
    waiting.go()
    engine = waiting.engine
    try:
        until(lambda: start_time(engine.leader.pid) is None)  # a zombie
        assert await engine.look() == (True, True, None)
    finally:
        await engine.kill()
        waiting._child.wait()
    assert await engine.look() == (False, False, 137)
