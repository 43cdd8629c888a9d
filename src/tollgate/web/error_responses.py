"""Renders all errors in the shape that the clients of the path expect: OpenAI's, OpenRouter's or Anthropic's."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tollgate.core.errors import (
    BadRequest,
    BodyTooLarge,
    InternalError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    Shape,
    TollgateError,
)
from tollgate.process import logs
from tollgate.web import faults, places
from tollgate.web.aliases import asked_path

OPENROUTERS = "/api/v1/"
ANTHROPICS = ("/v1/messages", "/api/v1/messages")
NOT_OPENROUTERS = ("/api/v1/generate",)
"""Below OpenRouter's prefix, but not its API."""
MOST_FAULTS = 100
MISSING = (NotFound.code, ModelNotFound.code)
MOST_MISSING = 200
"""Characters of a missing id that the log line has."""


class Refusal(JSONResponse):
    """Chooses the shape when it is sent, by the path of the request."""

    def __init__(self, error: TollgateError, headers: dict[str, str]) -> None:
        super().__init__(error.body(), error.status, {**error.headers, **headers})
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shape = shape_of(scope)
        if shape != "openai":
            self.body = self.render(self._error.body(shape, scope["state"]["request_id"]))
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def shape_of(scope: Scope) -> Shape:
    return shape_of_path(asked_path(scope))


def shape_of_path(path: str) -> Shape:
    """The shape of errors that the clients of this path expect."""
    if path.startswith(ANTHROPICS):
        return "anthropic"
    return "openrouter" if path.startswith(OPENROUTERS) and not path.startswith(NOT_OPENROUTERS) else "openai"


def render(error: TollgateError, headers: dict[str, str] | None = None) -> Refusal:
    logs.note(error_code=error.code)
    if error.code in MISSING and (missing := error.facts.get("id") or error.facts.get("model")):
        logs.note(missing=str(missing)[:MOST_MISSING])
    return Refusal(error, headers or {})


async def refused(request: Request, error: TollgateError) -> Refusal:
    return render(error)


async def invalid(request: Request, error: RequestValidationError) -> Refusal:
    """Errors of validation: the first as the message, the first hundred as facts. Values are left out."""
    told = error.errors()[:MOST_FAULTS]
    found = [{"param": _place(fault["loc"]), "fault": _fault(fault, request)} for fault in told]
    first = found[0]
    return render(BadRequest(f"{first['param']}: {first['fault']}.", param=first["param"], faults=found))


async def refused_by_framework(request: Request, error: HTTPException) -> Refusal:
    match error.status_code:
        case 404:
            return render(NotFound(places.not_found(request.scope)))
        case 405:
            allow = ", ".join(places.allowed(request.scope))
            sentence = f"This path does not support {request.method}. It supports {allow}."
            return render(MethodNotAllowed(sentence, allow=allow), {"allow": allow})
    return of_framework(error)


def of_framework(error: HTTPException) -> Refusal:
    """Errors that Starlette and FastAPI raise themselves, as ours."""
    headers = dict(error.headers or {})
    match error.status_code:
        case 413:
            return render(BodyTooLarge(limit_bytes=int(error.detail)), headers)
        case status if status < 500:
            return render(BadRequest(str(error.detail)), headers)
    return render(InternalError(), headers)


HANDLERS: dict[Any, Any] = {
    TollgateError: refused,
    RequestValidationError: invalid,
    HTTPException: refused_by_framework,
}


def _fault(fault: dict[str, Any], request: Request) -> str:
    """What is wrong, and what to send instead where the route says so."""
    match fault:
        case {"type": "extra_forbidden", "loc": [place, *within, _]}:
            known = ", ".join(request.scope["route"].names_in(place, within))
            return f"is not known here. Known: {known or 'none'}"
        case {"loc": ["body"], "type": kind} if kind != "missing" and not _is_json(request):
            return "is not JSON. Send it with 'Content-Type: application/json'"
    return faults.sentence(fault)


def _is_json(request: Request) -> bool:
    media, _, _ = request.headers.get("content-type", "").partition(";")
    return media.strip().lower().endswith(("/json", "+json"))


def _place(location: tuple[str | int, ...]) -> str:
    """The field, as in limits.0: without FastAPI's first part ("body", "query") unless it is the only one."""
    return ".".join(str(part) for part in (location[1:] or location))
