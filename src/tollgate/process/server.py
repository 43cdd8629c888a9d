"""The HTTP server of long-lived hosts: uvicorn, with our own logging, headers and shutdown."""

import asyncio
import contextlib
import gc
import multiprocessing
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from tollgate.process import open_files
from tollgate.process.connection_limits import Limits, Protocol, Unfinished
from tollgate.process.drain import Drain

GARBAGE_THRESHOLD = 10_000
"""Python's default of 2,000 objects made garbage collection 5 % of the CPU time; requests leave few cycles."""
DRAIN_SECONDS = 6
"""How long requests under way may go on after SIGTERM. Some hosts kill 10 s after it, and settling takes time too."""
GRACEFUL_SECONDS = 7
"""When connections are closed whose clients have not read the end of their response."""
DRAIN_SECONDS_AT_A_KEYBOARD = 0.5
GRACEFUL_SECONDS_AT_A_KEYBOARD = 1
"""The same after Ctrl-C, when a person waits for the prompt."""
SWITCH_SECONDS = 0.001
"""How long a thread that parses a large body may run before the event loop gets its turn."""
TICKS_A_SECOND = 10
"""Of uvicorn's main loop, which calls `on_tick`."""
DEFAULT_LIMITS = Limits()


class PortTaken(Exception):
    """The server cannot listen. The message is one line for the terminal."""


def bind(host: str, port: int, remedy: str = "choose another with PORT") -> socket.socket:
    """Binds the port before anything else is started, so that a port in use is reported at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror or error}; {remedy}") from None
    return listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


class _Server(uvicorn.Server):
    """Checks the deadlines of connections each second. After a signal, it waits for the requests under way, and then
    ends them. A second signal stops it at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds: float = DRAIN_SECONDS

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        with super().capture_signals():  # until the event loop is closed: a signal in between prints tracebacks
            super().run(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """`run` has captured them."""
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_SECOND == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._drain_seconds, self._drain.end_all)
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the books and the connections open; closing them is bounded
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT:
            self._drain_seconds = DRAIN_SECONDS_AT_A_KEYBOARD
            self.config.timeout_graceful_shutdown = GRACEFUL_SECONDS_AT_A_KEYBOARD
        self.force_exit = self.should_exit and multiprocessing.parent_process() is None  # a worker gets several signals
        super().handle_exit(sig, frame)


def serve(listener: socket.socket, make: Callable[..., ASGIApp], limits: Limits = DEFAULT_LIMITS) -> None:
    """Makes an app with a drain, and runs it until the process is told to stop."""
    open_files.raise_limit()
    drain = Drain()
    run(make(drain=drain), listener, drain, limits)


def run(app: ASGIApp, listener: socket.socket, drain: Drain | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
    """Serves until SIGINT or SIGTERM, and then drains."""
    gc.freeze()  # modules and routes stay; the collector need not look at them
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
    _Server(config, drain or Drain()).run(sockets=[listener])
