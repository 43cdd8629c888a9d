"""The sandbox for its tests: in the same process, or listening on a port; and what comes back, taken apart."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any, Literal

import anyio
import httpx
import uvicorn
from starlette.types import ASGIApp

from servers.process import free_port
from tollgate.sandbox.app import Sandbox, create_sandbox
from tollgate.sandbox.state import Habits

GRACE_SECONDS = 1
"""For what a server is still at when it is told to end."""
KEPT_SECONDS = 120
"""Longer than any client keeps a connection. A server that closes it first may do so just when a request is sent."""
NOON = 1_750_000_000.0
PATIENCE_SECONDS = 60
"""For a test that would hang otherwise. No test may depend on how long something takes."""
BEARER = {"authorization": "Bearer sk-or-v1-test"}


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Counting:
    """Chance as a row of numbers."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, bits: int) -> int:
        self._next += 1
        return self._next


def a_sandbox(clock: Callable[[], float] | None = None, **habits: Any) -> Sandbox:
    return create_sandbox(Habits(**habits), clock=clock or Clock(), randomness=Counting())


def in_process(sandbox: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(sandbox)
    return httpx.AsyncClient(transport=transport, base_url="http://sandbox.test", headers=BEARER)


def over_tcp(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=BEARER, timeout=PATIENCE_SECONDS)


class _Server(uvicorn.Server):
    """Ends at once when its connections are done. uvicorn looks ten times a second, and waits 0.1 s more each time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for given in sockets or ():
            given.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def serving(app: ASGIApp, *, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """A real server in a thread of its own, and its address."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        config = uvicorn.Config(
            app, lifespan=lifespan, ws="none", log_config=None, access_log=False, timeout_keep_alive=KEPT_SECONDS
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop()
            thread.join(PATIENCE_SECONDS)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = anyio.current_time() + PATIENCE_SECONDS
    while not await condition():
        assert anyio.current_time() < deadline
        await anyio.sleep(0.005)


def a_chat(text: str = "hello there, sandbox", model: str = "sandbox/echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def post(sandbox: ASGIApp, body: Any, path: str = "chat/completions", fault: str = "") -> httpx.Response:
    async with in_process(sandbox) as http:
        return await http.post(f"/api/v1/{path}", json=body, headers={"x-sandbox-fault": fault})


async def get(sandbox: ASGIApp, path: str, **query: Any) -> httpx.Response:
    async with in_process(sandbox) as http:
        return await http.get(path, params=query or None)


async def entry(sandbox: Sandbox) -> dict[str, Any]:
    """The ledger's only generation."""
    (only,) = (await get(sandbox, "/sandbox/ledger")).json()["generations"]
    return dict(only)


def exact(text: str) -> Any:
    """JSON with every number as its digits."""
    return json.loads(text, parse_float=Decimal, parse_constant=Decimal)


def payloads(stream: str) -> list[str]:
    """What the events of a stream carry. An event may be of one line only; comments are skipped."""
    lines = stream.replace("\r\n", "\n").split("\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def chunks(stream: str) -> list[dict[str, Any]]:
    return [exact(payload) for payload in payloads(stream) if payload != "[DONE]"]


def told(stream: str) -> str:
    """The text that a chat's stream tells."""
    choices = [choice for chunk in chunks(stream) for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def collected(pieces: AsyncIterator[bytes]) -> tuple[bytes, Exception | None]:
    """What came before the stream ended, and how it failed."""
    seen = b""
    try:
        async for piece in pieces:
            seen += piece
    except httpx.HTTPError as error:
        return seen, error
    return seen, None
