"""The entry for AWS Lambda, which calls `handler` with one event at a time.

An event is a request from a Function URL, an HTTP API, a REST API or a load balancer, or it is SWEEP from a schedule.
Mangum turns it into an ASGI request, and returns the complete response: nothing is streamed.
"""

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from mangum.handlers import ALB
from mangum.types import ASGI, LambdaContext, Scope
from pydantic import SecretStr

from tollgate import settings
from tollgate.app import create_app
from tollgate.process import logs

log = logs.source("application")

Event = dict[str, Any]

SWEEP = {"tollgate": "sweep"}
"""The event of a schedule. No request can be equal to it: a client controls only parts deeper in an event."""

TEXTS = [*DEFAULT_TEXT_MIME_TYPES, "application/x-ndjson"]
"""Mangum encodes other types as base64, which a REST API passes on undecoded."""

CLOSING_SECONDS = 10
"""How long a call takes after its upstream timed out, to settle."""


class SweepFailed(Exception):
    """Raised so that Lambda counts an error, tries again and raises its alarms."""


class Balanced(ALB):
    """A load balancer's event. Mangum takes all of X-Forwarded-For as the client's address, but only the last element
    comes from the load balancer."""

    @property
    def scope(self) -> Scope:
        scope = super().scope
        claimed, port = scope["client"]
        return {**scope, "client": (claimed.rpartition(",")[2].strip(), port)}


class Handler:
    """Keeps one event loop, and so the app's connections, for all events of a process."""

    def __init__(self, app: ASGI, cron_secret: str, upstream_timeout_seconds: float) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._http = Mangum(app, lifespan="off", custom_handlers=[Balanced], text_mime_types=TEXTS)
        self._sweep_request = _sweep_request(cron_secret)
        self._needs_seconds = upstream_timeout_seconds + CLOSING_SECONDS
        self._has_been_called = False

    def __call__(self, event: Event, context: LambdaContext) -> Event:
        asyncio.set_event_loop(self._loop)  # in case other code has unset it
        self._look_at_the_limit(context)
        if event == SWEEP:
            return self._sweep(context)
        return self._http(event, context)

    def _sweep(self, context: LambdaContext) -> Event:
        answer = self._http(self._sweep_request, context)
        swept: Event = json.loads(answer["body"])
        if answer["statusCode"] != 200:
            raise SweepFailed(swept["error"]["message"])
        return swept

    def _look_at_the_limit(self, context: LambdaContext) -> None:
        """Warns once if Lambda may kill the function in the middle of a call."""
        if self._has_been_called:
            return
        self._has_been_called = True
        has_seconds = context.get_remaining_time_in_millis() / 1000
        if has_seconds < self._needs_seconds:
            log.warning(
                "function_timeout_too_short",
                has_seconds=round(has_seconds),
                needs_seconds=round(self._needs_seconds),
                change="the function's timeout, or UPSTREAM_TIMEOUT_SECONDS",
            )


def _sweep_request(cron_secret: str) -> Event:
    """The request that a scheduler sends over HTTP."""
    request = {"method": "POST", "path": "/internal/sweep", "sourceIp": "127.0.0.1"}
    headers = {"authorization": f"Bearer {cron_secret}"}
    return {"version": "2.0", "headers": headers, "requestContext": {"http": request}}


def make(environ: Mapping[str, str]) -> Handler:
    """The event has the client's address, so TRUSTED_PROXY is ignored. Without CRON_SECRET, only SWEEP sweeps."""
    chosen = settings.read(environ)
    cron_secret = chosen.cron_secret or SecretStr(secrets.token_urlsafe())
    on_lambda = chosen.model_copy(update={"trusted_proxy": "lambda", "cron_secret": cron_secret})
    app = create_app(on_lambda, environ=environ)
    return Handler(app, cron_secret.get_secret_value(), chosen.upstream_timeout_seconds)


handler = make(os.environ)
