"""Our handler before an app that breaks as its path says. Imported only in a process of its own."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from hosts.lambda_events import PNG
from tollgate.lambda_handler import Handler


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    kind, body = (b"image/png", PNG) if scope["path"] == "/picture" else (b"text/plain", b"fine")
    if scope["path"] == "/breaks":
        raise RuntimeError
    if scope["path"] == "/is-cancelled":
        raise asyncio.CancelledError
    if scope["path"] == "/says-nothing":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body, "more_body": scope["path"] == "/breaks-off"})
    if scope["path"] == "/breaks-off":
        raise RuntimeError


ours = Handler(app, "a-cron-secret-of-the-tests", 600)


def handler(event: Any, context: Any) -> Any:
    if event["rawPath"] == "/takes-the-loop":
        asyncio.run(asyncio.sleep(0))  # as some library may
    return ours(event, context)
