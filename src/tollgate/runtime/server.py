"""The HTTP server of long-lived hosts: uvicorn, told to leave the logging, the headers and the end to us."""

import asyncio
import contextlib
import gc
import multiprocessing
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from tollgate.runtime.curfew import Curfew
from tollgate.runtime.protocol import Limits, Protocol, Unfinished

GARBAGE_THRESHOLD = 10_000
"""Requests leave few cycles behind; looking for them every 2,000 objects took a twentieth of the time."""
OPEN_FILES = 8192
CURFEW_SECONDS = 6
"""After SIGTERM, for the requests under way. Some hosts kill after 10 s, and the books and the database come after."""
GRACEFUL_SECONDS = 7
"""Who has not even taken the end of its answer by then is cut off."""
CURFEW_SECONDS_AT_A_KEYBOARD = 0.5
GRACEFUL_SECONDS_AT_A_KEYBOARD = 1
"""The same after Ctrl-C, when a person waits for the prompt."""
SWITCH_SECONDS = 0.001
"""How long a thread that reads a large body may keep the event loop waiting, where Python's code can be interrupted."""
TICKS_A_SECOND = 10
"""Of uvicorn's main loop."""
DEFAULT_LIMITS = Limits()


class PortTaken(Exception):
    """Why the server cannot listen, in one line for the person at the keyboard."""


def bind(host: str, port: int) -> socket.socket:
    """Takes the port before anything else is started, so that a taken one costs nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with PORT"
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


class _Server(uvicorn.Server):
    """Looks at the deadlines of its connections each second, rings the curfew when it stops, and stops at once when it
    is told so twice."""

    def __init__(self, config: uvicorn.Config, curfew: Curfew) -> None:
        super().__init__(config)
        self._curfew = curfew
        self._curfew_seconds: float = CURFEW_SECONDS

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_SECOND == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._curfew_seconds, self._curfew.ring)
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the books and the connections open; closing them is bounded
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT:
            self._curfew_seconds = CURFEW_SECONDS_AT_A_KEYBOARD
            self.config.timeout_graceful_shutdown = GRACEFUL_SECONDS_AT_A_KEYBOARD
        self.force_exit = self.should_exit and multiprocessing.parent_process() is None  # a worker is told by many
        super().handle_exit(sig, frame)


def raise_file_limit() -> None:
    """Each connection is a file. The soft limit is often 1024, for the sake of programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # then it stays, and fewer calls go upstream at once
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(listener: socket.socket, make: Callable[..., ASGIApp], limits: Limits = DEFAULT_LIMITS) -> None:
    """Makes an app that knows the curfew, and runs it. The whole work of a process."""
    raise_file_limit()
    curfew = Curfew()
    run(make(curfew=curfew), listener, curfew, limits)


def run(app: ASGIApp, listener: socket.socket, curfew: Curfew | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests under way finish until the curfew."""
    gc.freeze()  # what is there by now stays, and need not be looked at again
    gc.set_threshold(GARBAGE_THRESHOLD)
    sys.setswitchinterval(SWITCH_SECONDS)
    config = uvicorn.Config(
        app,
        http=cast("type[Protocol]", partial(Protocol, limits=limits, unfinished=Unfinished(limits))),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    _Server(config, curfew or Curfew()).run(sockets=[listener])
