"""The HTTP server of long-lived hosts: uvicorn, told to leave the logging, the headers and the end to us."""

import asyncio
import contextlib
import gc
import json
import multiprocessing
import resource
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollgate.core.errors import BadRequest
from tollgate.runtime.curfew import Curfew

GARBAGE_THRESHOLD = 10_000
"""Requests leave few cycles behind; looking for them every 2,000 objects took a twentieth of the time."""
OPEN_FILES = 8192
CURFEW_SECONDS = 6
"""After SIGTERM, for the requests under way. Some hosts kill after 10 s, and the books and the database come after."""
GRACEFUL_SECONDS = 7
"""Who has not even taken the end of its answer by then is cut off."""

MALFORMED = json.dumps(BadRequest("This is not a valid HTTP request.").body()).encode()


class PortTaken(Exception):
    """Why the server cannot listen, in one line for the person at the keyboard."""


class _Protocol(HttpToolsProtocol):
    """Answers in our shape even to what is not HTTP."""

    def send_400_response(self, msg: str) -> None:
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(MALFORMED)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + MALFORMED)
        self.transport.close()


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
    """Rings the curfew when it stops, and stops at once when it is told so twice."""

    def __init__(self, config: uvicorn.Config, curfew: Curfew) -> None:
        super().__init__(config)
        self._curfew = curfew

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(CURFEW_SECONDS, self._curfew.ring)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and multiprocessing.parent_process() is None  # a worker is told by many
        super().handle_exit(sig, frame)


def raise_file_limit() -> None:
    """Each connection is a file. The soft limit is often 1024, for the sake of programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # then it stays, and fewer calls go upstream at once
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(listener: socket.socket, make: Callable[..., ASGIApp]) -> None:
    """Makes an app that knows the curfew, and runs it. The whole work of a process."""
    raise_file_limit()
    curfew = Curfew()
    run(make(curfew=curfew), listener, curfew)


def run(app: ASGIApp, listener: socket.socket, curfew: Curfew | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests under way finish until the curfew."""
    gc.freeze()  # what is there by now stays, and need not be looked at again
    gc.set_threshold(GARBAGE_THRESHOLD)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    _Server(config, curfew or Curfew()).run(sockets=[listener])
