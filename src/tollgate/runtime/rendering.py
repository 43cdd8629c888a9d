"""The one renderer of errors: OpenAI's shape, whatever went wrong and wherever."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from tollgate.core.errors import BadRequest, BodyTooLarge, InternalError, MethodNotAllowed, NotFound, TollgateError
from tollgate.runtime import logs


def render(error: TollgateError, headers: dict[str, str] | None = None) -> JSONResponse:
    logs.note(error_code=error.code)
    return JSONResponse(error.body(), error.status, {**error.headers, **(headers or {})})


async def refused(request: Request, error: TollgateError) -> JSONResponse:
    return render(error)


async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's findings: the first as the sentence, all of them as facts, and none of the values."""
    faults = [{"param": _place(fault["loc"]), "fault": fault["msg"]} for fault in error.errors()]
    first = faults[0]
    return render(BadRequest(f"{first['param']}: {first['fault']}.", param=first["param"], faults=faults))


async def of_framework(request: Request, error: HTTPException) -> JSONResponse:
    """What Starlette and FastAPI refuse by themselves, in our words."""
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            return render(NotFound(), headers)
        case 405:
            return render(MethodNotAllowed(allow=headers.get("Allow", "")), headers)
        case 413:
            return render(BodyTooLarge(limit_bytes=int(error.detail)), headers)
        case status if status < 500:
            return render(BadRequest(str(error.detail)), headers)
    return render(InternalError(), headers)


HANDLERS: dict[Any, Any] = {
    TollgateError: refused,
    RequestValidationError: invalid,
    HTTPException: of_framework,
}


def _place(location: tuple[str | int, ...]) -> str:
    """body.limits.0 and the like, without FastAPI's word for where it looked when there is more."""
    return ".".join(str(part) for part in (location[1:] or location))
