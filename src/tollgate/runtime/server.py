"""The HTTP server of long-lived hosts: uvicorn, told to leave the logging, the headers and the signals to us."""

import contextlib
import gc
import json
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollgate.core.errors import BadRequest

GARBAGE_THRESHOLD = 10_000
"""Requests leave few cycles behind; looking for them every 2,000 objects took a twentieth of the time."""
GRACEFUL_SECONDS = 25
"""Below the 30 s that hosts give a process between SIGTERM and SIGKILL."""

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


@contextlib.contextmanager
def beside(app: ASGIApp) -> Iterator[str]:
    """Serves another app on a loopback port of its own, in a thread, while the block runs. Gives its address."""
    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield address(listener)
        finally:
            server.should_exit = True
            thread.join()


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests under way finish."""
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
    uvicorn.Server(config).run(sockets=[listener])
