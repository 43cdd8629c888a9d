"""The paid paths in the OpenAPI document. FastAPI does not see them, so they are described here."""

from typing import Any

from tollgate.core import errors
from tollgate.core.endpoints import ENDPOINTS, MOUNTS, Endpoint, Form
from tollgate.core.errors import Shape, TollgateError
from tollgate.web.error_responses import shape_of_path

SUMMARIES: dict[Endpoint, str] = {
    "chat": "A chat completion, paid from the balance of the key's org",
    "completions": "A text completion, paid from the balance of the key's org",
    "embeddings": "Embeddings, paid from the balance of the key's org",
    "responses": "A response in the form of OpenAI's Responses, paid from the balance of the key's org",
    "messages": "A message in the form of Anthropic's Messages, paid from the balance of the key's org",
    "count_tokens": "The tokens of a message, free of charge",
}
DESCRIPTION = (
    "The whole body is forwarded to the upstream, with parameters that this document does not name, and the answer "
    "is returned as it came; only `usage.cost` may be rewritten. Credits for the worst case are held during the call, "
    "and the actual cost is charged."
)
EXAMPLES: dict[Endpoint, dict[str, Any]] = {
    "chat": {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
    "completions": {"model": "sandbox/echo", "prompt": "Hello"},
    "embeddings": {"model": "sandbox/embed", "input": ["Hello"]},
    "responses": {"model": "sandbox/echo", "input": "Hello"},
    "messages": {"model": "sandbox/echo", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]},
    "count_tokens": {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]},
}
COUNTING = "Authenticated and counted in the request windows like other calls. Nothing is held or charged."
STREAM = {"type": "boolean", "default": False, "description": "Send the answer as server-sent events."}
BOUNDS = {
    "max_tokens": {"type": "integer", "minimum": 1, "description": "The most output tokens. It also bounds the hold."},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "description": "The newer name of `max_tokens`."},
    "max_output_tokens": {
        "type": "integer",
        "minimum": 1,
        "description": "The most output tokens. It also bounds the hold.",
    },
}
CHOICES = {
    "n": {"type": "integer", "minimum": 1, "maximum": 128, "description": "The number of answers. Each is charged."},
}
REFUSALS: tuple[type[TollgateError], ...] = (
    errors.BadRequest, errors.BodyTooComplex, errors.ModelUnpriced, errors.ExtraUnpriced, errors.EndpointUnsupported,
    errors.MissingApiKey,
    errors.InvalidApiKey, errors.KeyDisabled, errors.KeyExpired, errors.KeyRevoked, errors.RequestTimeout,
    errors.HeadTooLarge, errors.InternalError, errors.ServerBusy, errors.ServerRestarting,
    errors.InsufficientCredits, errors.KeyBudgetExhausted, errors.QuotaExhausted, errors.PermissionDenied,
    errors.ModelNotAllowed, errors.IpNotAllowed, errors.ModelNotFound, errors.RequestInProgress, errors.AnswerNotKept,
    errors.BodyTooLarge, errors.IdempotencyKeyReused, errors.RateLimitExceeded, errors.TooManyInFlight,
    errors.PaidCallsSuspended, errors.UpstreamUnavailable, errors.UpstreamGarbled, errors.UpstreamCut,
    errors.UpstreamBusy, errors.CatalogUnavailable, errors.DatabaseUnavailable, errors.UpstreamTimeout,
)  # fmt: skip
HEADERS = {
    "x-request-id": "The id of the request: yours, if you sent one.",
    "x-tollgate-request-id": "The id of the request in /user/usage, and for a refund.",
    "x-tollgate-max-tokens": "The bound of the output that Tollgate set, because the model's longest answer is not "
    "covered. Absent if it set none.",
    "x-tollgate-charge-nanos": "The charge. Absent while the cost is not known yet.",
    "x-tollgate-balance-nanos": "The org's balance after the charge.",
    "Idempotency-Replayed": "`true` if this is the stored answer of an earlier request.",
    **{
        f"x-ratelimit-{fact}-{measure}": text
        for measure in ("requests", "tokens")
        for fact, text in (
            ("limit", f"The limit of {measure} in the tightest window."),
            ("remaining", f"The {measure} left in that window."),
            ("reset", "The time until all of it is free again, such as 1m48s."),
        )
    },
}
REFUSAL_HEADERS = {
    "Retry-After": "The seconds to wait before a retry, where they are known.",
    "x-should-retry": "Whether the client should retry: `true` or `false`.",
    "x-request-id": HEADERS["x-request-id"],
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
                    "message": {"type": "string", "description": "What is wrong, and what to do about it."},
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
                    "message": {"type": "string", "description": "What is wrong, and what to do about it."},
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
    "AnthropicRefusal": {
        "title": "AnthropicRefusal",
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"type": "string", "enum": ["error"]},
            "error": {
                "type": "object",
                "required": ["type", "message", "code"],
                "properties": {
                    "type": {"type": "string"},
                    "message": {"type": "string", "description": "What is wrong, and what to do about it."},
                    "code": {"type": "string", "description": "Stable; docs/reference/errors.md lists them."},
                    "param": {"type": "string"},
                },
                "additionalProperties": True,
            },
            "request_id": {"type": "string"},
        },
    },
}
REFUSAL_SCHEMAS: dict[Shape, str] = {
    "openai": "Refusal",
    "openrouter": "OpenRouterRefusal",
    "anthropic": "AnthropicRefusal",
}


def paths() -> dict[str, Any]:
    return {
        mount + form.path: {"post": _operation(mount, endpoint)}
        for mount in MOUNTS
        for endpoint, form in ENDPOINTS.items()
    }


def _operation(mount: str, endpoint: Endpoint) -> dict[str, Any]:
    form = ENDPOINTS[endpoint]
    return {
        "tags": ["completions"],
        "summary": SUMMARIES[endpoint],
        "description": COUNTING if form.is_free else DESCRIPTION,
        "x-stability": "stable",
        "operationId": f"{mount}{form.path}".strip("/").replace("/", "_"),
        "security": [{"Bearer": []}, {"X-API-Key": []}],
        "parameters": [
            _header("Idempotency-Key", "A request with the same key and body gets the stored answer, free of charge."),
            _header("X-Tollgate-Usage", "`true` adds the charge to the last chunk of a stream, as `usage.tollgate`."),
            _header("x-sandbox-fault", "Faults for the sandbox to cause. For test keys only."),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _body(endpoint, form)}}},
        "responses": _responses(mount, form),
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _body(endpoint: Endpoint, form: Form) -> dict[str, Any]:
    known: dict[str, Any] = {
        "model": {"type": "string", "description": "A model that GET /v1/models lists."},
        "models": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Models to fall back to, in order. Without `model`, the first is the model.",
        },
        form.prompt: {"type": "array", "items": {}} if form.prompt == "messages" else {},
    }
    if form.generates:
        known |= {"stream": STREAM} | {name: BOUNDS[name] for name in form.bounds}
    return {
        "type": "object",
        "required": [form.prompt],
        "anyOf": [{"required": ["model"]}, {"required": ["models"]}],
        "properties": known | (CHOICES if form.asks_for_usage else {}),
        "additionalProperties": True,
        "example": EXAMPLES[endpoint],
    }


def _responses(mount: str, form: Form) -> dict[str, Any]:
    contents: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if form.generates:
        contents["text/event-stream"] = {"schema": {"type": "string"}}
    answered = {
        "description": "The upstream's answer. Only `usage.cost` may differ.",
        "headers": _headers(HEADERS),
        "content": contents,
    }
    shape = shape_of_path(mount + form.path)
    return {"200": answered} | {
        str(status): _refusal(shape, status) for status in sorted({kind.status for kind in REFUSALS})
    }


def _headers(texts: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}


def _refusal(shape: Shape, status: int) -> dict[str, Any]:
    codes = [kind.code for kind in REFUSALS if kind.status == status]
    return {
        "description": ", ".join(codes),
        "headers": _headers(REFUSAL_HEADERS),
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{REFUSAL_SCHEMAS[shape]}"}}},
    }
