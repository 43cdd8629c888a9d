"""How the document (OpenAPI) describes the paid paths, which FastAPI does not see."""

from typing import Any

from tollgate.completions.routes import MOUNTS, PATHS
from tollgate.core import errors
from tollgate.core.errors import TollgateError

SUMMARIES = {
    "/chat/completions": "A chat completion, paid from the balance of the key's org",
    "/completions": "A text completion, paid from the balance of the key's org",
    "/embeddings": "Embeddings, paid from the balance of the key's org",
}
DESCRIPTION = (
    "Everything in the body goes to the model's server as it stands, whether or not this document names it, and its "
    "answer comes back byte for byte. Credits for the worst case are held while it runs and charged by what it cost."
)
REQUIRED = {"/chat/completions": "messages", "/completions": "prompt", "/embeddings": "input"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
    "/completions": {"model": "sandbox/echo", "prompt": "Hello"},
    "/embeddings": {"model": "sandbox/embedding", "input": ["Hello"]},
}
SIZES = {
    "stream": {"type": "boolean", "default": False, "description": "Answer as server-sent events."},
    "max_tokens": {"type": "integer", "minimum": 1, "description": "Most output tokens; also bounds what is held."},
    "n": {"type": "integer", "minimum": 1, "maximum": 128, "description": "Answers wanted; each is paid for."},
}
REFUSALS: tuple[type[TollgateError], ...] = (
    errors.BadRequest, errors.ModelUnpriced, errors.ExtraUnpriced, errors.MissingApiKey, errors.InvalidApiKey,
    errors.InsufficientCredits, errors.KeyBudgetExhausted, errors.QuotaExhausted, errors.PermissionDenied,
    errors.ModelNotAllowed, errors.IpNotAllowed, errors.ModelNotFound, errors.RequestInProgress, errors.AnswerNotKept,
    errors.BodyTooLarge, errors.IdempotencyKeyReused, errors.RateLimitExceeded, errors.TooManyInFlight,
    errors.PaidCallsSuspended, errors.UpstreamUnavailable, errors.UpstreamGarbled, errors.UpstreamCut,
    errors.UpstreamBusy, errors.CatalogUnavailable, errors.DatabaseUnavailable, errors.UpstreamTimeout,
)  # fmt: skip
HEADERS = {
    "x-request-id": "The request's id: yours where you sent one.",
    "x-tollgate-charge-nanos": "What was charged. Absent while that is still to be found out.",
    "x-tollgate-balance-nanos": "The org's balance after that.",
    "x-ratelimit-limit-requests": "Of the tightest window; the same for tokens, and for remaining and reset.",
}

SCHEMAS = {
    "Refusal": {
        "title": "Refusal",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code", "param"],
                "properties": {
                    "message": {"type": "string", "description": "What to do about it."},
                    "type": {"type": "string"},
                    "code": {"type": "string", "description": "Stable; docs/reference/errors.md lists them."},
                    "param": {"type": ["string", "null"]},
                },
                "additionalProperties": True,
            }
        },
    },
    "OpenRouterRefusal": {
        "title": "OpenRouterRefusal",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "metadata"],
                "properties": {
                    "code": {"type": "integer", "description": "The status."},
                    "message": {"type": "string", "description": "What to do about it."},
                    "metadata": {
                        "type": "object",
                        "required": ["error_type"],
                        "properties": {
                            "error_type": {
                                "type": "string",
                                "description": "Stable; docs/reference/errors.md lists them as codes.",
                            }
                        },
                        "additionalProperties": True,
                    },
                    "param": {"type": "string"},
                },
            }
        },
    },
}
REFUSAL_SCHEMAS = {"/v1": "Refusal", "/api/v1": "OpenRouterRefusal"}


def paths() -> dict[str, Any]:
    return {mount + path: {"post": _operation(mount, path)} for mount in MOUNTS for path in PATHS}


def _operation(mount: str, path: str) -> dict[str, Any]:
    return {
        "tags": ["completions"],
        "summary": SUMMARIES[path],
        "description": DESCRIPTION,
        "x-stability": "stable",
        "operationId": f"{mount}{path}".strip("/").replace("/", "_"),
        "security": [{"Bearer": []}, {"X-API-Key": []}],
        "parameters": [
            _header(
                "Idempotency-Key", "Sent again with the same body, the stored answer comes back and nothing is paid."
            ),
            _header("X-Tollgate-Usage", "`true` puts `usage.tollgate` with the charge into a stream's last chunk."),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _body(path)}}},
        "responses": _responses(mount, path),
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _body(path: str) -> dict[str, Any]:
    needed = REQUIRED[path]
    known = {
        "model": {"type": "string", "description": "One that GET /v1/models lists."},
        needed: {"type": "array", "items": {}} if needed == "messages" else {},
    }
    return {
        "type": "object",
        "required": ["model", needed],
        "properties": known | ({} if path == "/embeddings" else SIZES),
        "additionalProperties": True,
        "example": EXAMPLES[path],
    }


def _responses(mount: str, path: str) -> dict[str, Any]:
    contents: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if path != "/embeddings":
        contents["text/event-stream"] = {"schema": {"type": "string"}}
    answered = {
        "description": "The answer of the model's server, untouched.",
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
        "content": contents,
    }
    return {"200": answered} | {
        str(status): _refusal(mount, status) for status in sorted({kind.status for kind in REFUSALS})
    }


def _refusal(mount: str, status: int) -> dict[str, Any]:
    codes = [kind.code for kind in REFUSALS if kind.status == status]
    return {
        "description": ", ".join(codes),
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{REFUSAL_SCHEMAS[mount]}"}}},
    }
