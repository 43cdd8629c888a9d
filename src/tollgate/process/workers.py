"""Several processes that serve one listening socket, for hosts with several cores. The first only looks after them."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from tollgate.process import logs

STOP_SECONDS = 9.0
"""A little more than a server takes that has to cut off its last request."""
PAUSE_SECONDS = 1.0

log = logs.source("application")


def keep(count: int, listener: socket.socket, work: Callable[..., None], *arguments: Any) -> None:
    """Keeps so many at `work(listener, *arguments)` until a signal raises here: they are told to stop and waited for.
    A second signal ends them at once."""
    workers: list[SpawnProcess] = []
    try:
        while True:
            while len(workers) < count:
                workers.append(_begun(work, listener, *arguments))
            wait([worker.sentinel for worker in workers])
            for worker in [worker for worker in workers if not worker.is_alive()]:
                log.error("worker_died", exit_code=worker.exitcode)
                workers.remove(worker)
            time.sleep(PAUSE_SECONDS)  # one that cannot start must not keep the machine busy
    finally:
        listener.close()
        _end(workers)


def _begun(work: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """A fresh process: a forked one would inherit the locks of our threads without the threads."""
    worker = multiprocessing.get_context("spawn").Process(target=_worker, args=(work, *arguments), daemon=True)
    with _deaf_to_the_keyboard():
        worker.start()
    return worker


def _end(workers: Sequence[SpawnProcess]) -> None:
    give_up_at = time.monotonic() + STOP_SECONDS
    try:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(max(0.0, give_up_at - time.monotonic()))
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()


def _worker(work: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_leave_with_the_first, daemon=True).start()
    work(*arguments)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


def _leave_with_the_first() -> None:
    first = multiprocessing.parent_process()
    assert first  # noqa: S101
    first.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _deaf_to_the_keyboard() -> Iterator[None]:
    """What is started here never hears Ctrl-C, which the terminal sends to all: it is told to stop by the first."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
