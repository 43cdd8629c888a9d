"""OpenRouter's errors: {error: {code, message, metadata?, availability?}}, the code being the HTTP status."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from tollgate.sandbox.encoding import encode, utf8

DOCS = "https://openrouter.ai/docs/api-reference/errors-and-debugging"

KINDS: dict[int, tuple[str, str]] = {
    400: ("invalid_request", "Invalid request parameters"),
    401: ("authentication", "Missing Authentication header"),
    402: (
        "payment_required",
        "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, "
        "but can only afford 12. To increase, visit https://openrouter.ai/settings/credits",
    ),
    403: ("permission_denied", "Only management keys can perform this operation"),
    404: ("not_found", "Resource not found"),
    405: ("invalid_request", "Method Not Allowed"),
    408: ("timeout", "Operation timed out. Please try again later."),
    413: ("payload_too_large", "Request payload too large"),
    429: ("rate_limit_exceeded", "Provider returned error"),
    500: ("server", "Internal Server Error"),
    502: ("provider_unavailable", "Provider returned error"),
    503: ("provider_overloaded", "No available model provider that meets your routing requirements"),
    504: ("timeout", "The provider did not respond within the allowed time"),
    524: ("timeout", "Request timed out. Please try again later."),
    529: ("provider_overloaded", "Provider returned error"),
}
PROVIDER_ERROR: dict[str, Any] = {
    "code": 502,
    "message": "Provider disconnected unexpectedly",
    "metadata": {"error_type": "provider_unavailable", "provider_code": "disconnected"},
}
ANTHROPICS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
UNMAPPED = ("unmapped", "Provider returned error")


class Refusal(Exception):
    """An answer other than success, before any token."""

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        availability: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        error_type, usual = KINDS.get(status, UNMAPPED)
        self.status = status
        self.message = message or usual
        self.metadata = {"error_type": error_type} | dict(metadata or {})
        self.availability = availability
        self.headers = dict(headers or {})
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.status, "message": self.message, "metadata": self.metadata}
        if self.availability:
            error["availability"] = dict(self.availability)
        return {"error": error}

    def response(self, *, anthropic: bool = False) -> Response:
        body = anthropic_error(self.status, self.message, self.metadata) if anthropic else self.body()
        return json_response(body, self.status, self.headers)


def anthropic_error(status: int, message: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    kind = ANTHROPICS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": message, "error_type": metadata["error_type"]}
    return {"type": "error", "error": error, "request_id": None}


def unavailable(code: str, status: int, message: str, models: list[str], **more: Any) -> Refusal:
    """A refusal that says why no model can be served, as OpenRouter does since August 2026."""
    availability = {"code": code, "retryable": status in {429, 503}, "requested_models": models, **more}
    return Refusal(status, message, availability=availability | {"docs_url": f"{DOCS}#{code}"})


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(utf8(encode(content)), status, headers, media_type="application/json")
