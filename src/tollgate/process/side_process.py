"""A program that serves beside this process. It starts with the first connection, and again if it ends."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from tollgate.process import logs, server, signals

KEPT_OF_THE_ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
"""None of our secrets is among them."""
PAUSE_SECONDS: Final = 1.0
STOP_SECONDS: Final = 5.0

log = logs.source("application")


@contextlib.contextmanager
def serving(module: str) -> Iterator[str]:
    """Its address, on a loopback port. `python -m module FD` must serve the socket FD until its standard input ends:
    that is a pipe which nobody writes to, and which ends with this block or with this process, however that ends."""
    lifeline, held = os.pipe()
    with server.bind("127.0.0.1", 0) as listener:
        program = _Program(module, listener, lifeline)
        try:
            with signals.deferred():  # else its thread could run without our knowing
                program.start()
            yield server.address(listener)
        finally:
            with signals.deferred():
                os.close(held)
                program.end()
                os.close(lifeline)


class _Program:
    def __init__(self, module: str, listener: socket.socket, lifeline: int) -> None:
        self._module = module
        self._listener = listener
        self._lifeline = lifeline
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._keeper.start()

    def end(self) -> None:
        """After the lifeline has ended."""
        if self._keeper.ident is None:  # a signal to stop came before it started
            return
        self._keeper.join(STOP_SECONDS)
        if self._keeper.is_alive() and self._process:
            self._process.kill()
            self._keeper.join()

    def _keep(self) -> None:
        while self._is_wanted():
            why = self._served()
            if self._has_ended():
                return
            log.error("program_ended", module=self._module, why=why)
            time.sleep(PAUSE_SECONDS)  # one that cannot start must not keep the machine busy

    def _served(self) -> str:
        """Why it ended."""
        try:
            self._process = self._started()
        except OSError as error:
            return str(error.strerror)
        return f"exit code {self._process.wait()}"

    def _is_wanted(self) -> bool:
        """Waits for a connection, or for the end of the lifeline."""
        select.select([self._listener.fileno(), self._lifeline], [], [])
        return not self._has_ended()

    def _has_ended(self) -> bool:
        return bool(select.select([self._lifeline], [], [], 0)[0])

    def _started(self) -> subprocess.Popen[bytes]:
        """In a session of its own, so that it does not hear Ctrl-C: its end comes by the lifeline."""
        return subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._listener.fileno())],
            env={name: os.environ[name] for name in KEPT_OF_THE_ENVIRONMENT if name in os.environ},
            stdin=self._lifeline,
            stdout=subprocess.DEVNULL,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )
