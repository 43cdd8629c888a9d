"""The outermost layer of every request: its id, its size, its headers, its log line, and the last net under it.

Plain ASGI, one layer for all: each BaseHTTPMiddleware would cost more than the database call.
"""

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tollgate.core.errors import InternalError
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.web.client_address import announced_bytes, headers_of
from tollgate.web.error_responses import render

log = logs.source("application")

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_GONE = 499
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
OVER_TLS_ONLY = {"strict-transport-security": "max-age=31536000"}


class Watch(Protocol):
    """Who wants to know of every request, and by what its key was refused."""

    def begins(self) -> None: ...

    def ended(self, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None: ...


class Edge:
    def __init__(
        self, app: ASGIApp, *, production: bool, max_body_bytes: int, clock: Monotonic, watch: Watch | None = None
    ) -> None:
        self._app = app
        self._watch = watch
        headers = SECURITY_HEADERS | (OVER_TLS_ONLY if production else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._max_body_bytes = max_body_bytes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        logs.forget()
        scope["state"] = {**scope.get("state", {}), "own_id": _new_id()}  # the server shares its own among requests
        request_id = scope["state"]["request_id"] = _request_id(headers_of(scope), scope["state"]["own_id"])
        logs.note(request_id=request_id)
        answer = _Answer(send, [*self._headers, (b"x-request-id", request_id.encode())])
        started = self._clock()
        if self._watch:
            self._watch.begins()
        try:
            await self._answer(scope, receive, answer)
        finally:
            method, route = scope["method"], _route(scope)
            duration_ms = round((self._clock() - started) * 1000, 1)
            log.info("request", method=method, route=route, status=answer.status, duration_ms=duration_ms)
            if self._watch:
                self._watch.ended(method, route, logs.noted(), scope["state"].get("caller", {}))

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        body = _Body(receive, self._max_body_bytes, announced_bytes(headers_of(scope)))
        try:
            await self._app(scope, body.receive, answer.send)
        except Exception:  # the last net: whatever it is, the client gets our shape and the log the cause
            log.exception("unexpected_error")
            if answer.status != CLIENT_GONE:
                raise  # a response is under way: only the server can break it off
            await render(InternalError())(scope, receive, answer.send)


class _Answer:
    """Sends, with our headers, and remembers the status. Until a response starts the client counts as gone."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", [])
            names = {name.lower() for name, _ in given}
            message["headers"] = [*given, *(header for header in self._headers if header[0] not in names)]
        await self._send(message)


class _Body:
    """Receives, and refuses a body that is too large when it is first read: until then the key may be refused.

    Counts as well, since Content-Length may lie or be absent.
    """

    def __init__(self, receive: Receive, max_bytes: int, announced_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._announced_bytes = announced_bytes
        self._seen = 0

    async def receive(self) -> Message:
        self._refuse_more_than_allowed(self._announced_bytes)
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        self._refuse_more_than_allowed(self._seen)
        return message

    def _refuse_more_than_allowed(self, size: int) -> None:
        if size > self._max_bytes:
            # Starlette's own kind, which FastAPI lets through where it reads bodies.
            raise HTTPException(413, str(self._max_bytes), {"connection": "close"})


def _route(scope: Scope) -> str | None:
    """The route's template; FastAPI keeps the whole one of an included router in a place of its own."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route") or scope.get("endpoint")
    return getattr(route, "path", None)


def _request_id(headers: Mapping[str, str], own_id: str) -> str:
    """The client's own where it is sane; only ours is unique."""
    claimed = headers.get("x-request-id", "")
    return claimed if SANE_ID.fullmatch(claimed) else own_id


def _new_id() -> str:
    """Milliseconds first, as the database's ids have them, so that indexes fill in order."""
    return f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"
