"""Several processes that serve one listening socket, for hosts with several cores. The main process supervises them."""

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
"""A little longer than a server takes to stop."""
PAUSE_SECONDS = 1.0

log = logs.source("application")


def keep(count: int, listener: socket.socket, work: Callable[..., None], *arguments: Any) -> None:
    """Runs `work(listener, *arguments)` in `count` processes, and restarts those that end, until a signal raises an
    exception here. Then it stops them and waits. A second signal kills them."""
    workers: list[SpawnProcess] = []
    try:
        while True:
            while len(workers) < count:
                workers.append(_begun(work, listener, *arguments))
            wait([worker.sentinel for worker in workers])
            for worker in [worker for worker in workers if not worker.is_alive()]:
                log.error("worker_died", exit_code=worker.exitcode)
                workers.remove(worker)
            time.sleep(PAUSE_SECONDS)  # in case it cannot start at all
    finally:
        listener.close()
        _end(workers)


def _begun(work: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """Spawned, not forked: a fork would have the locks of our threads, but not the threads that release them."""
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
    """Processes started in the block ignore Ctrl-C, which the terminal sends to all. The main process stops them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
