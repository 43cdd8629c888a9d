"""The paid paths in the OpenAPI document. FastAPI does not see them, so they are described here."""

import re
from typing import Any

from tollgate.completions import schemas
from tollgate.core import errors
from tollgate.core.endpoints import ENDPOINTS, MOUNTS, Endpoint
from tollgate.core.errors import Shape, TollgateError
from tollgate.web.error_responses import shape_of_path
from tollgate.web.schemas import REFERENCE

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
COUNTING = "Authenticated and counted in the request windows like other calls. Nothing is held or charged."
SHAPES: dict[Endpoint, tuple[str, str]] = {
    "chat": ("ChatCompletionRequest", "ChatCompletion"),
    "completions": ("CompletionRequest", "Completion"),
    "embeddings": ("EmbeddingsRequest", "Embeddings"),
    "responses": ("ResponsesRequest", "ResponseAnswer"),
    "messages": ("MessagesRequest", "MessageAnswer"),
    "count_tokens": ("CountTokensRequest", "CountedTokens"),
}
CHUNKS: dict[Endpoint, str] = {
    "chat": "ChatCompletionChunk",
    "completions": "Completion",
    "responses": "TypedEvent",
    "messages": "TypedEvent",
}
REFUSALS: tuple[type[TollgateError], ...] = (
    errors.BadRequest, errors.BodyTooComplex, errors.ModelUnpriced, errors.ExtraUnpriced,
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
    "x-generation-id": "OpenRouter's id of the answer, if OpenRouter served it.",
    "x-tollgate-cache": "`hit`, `miss` or `bypass`. Absent where the completion cache was not asked for.",
    "age": "The seconds since the answer was stored in the completion cache, for a hit.",
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
    "retry-after-ms": "The same in milliseconds, if a limit refused the request.",
    "x-should-retry": "Whether the client should retry: `true` or `false`.",
    "x-request-id": HEADERS["x-request-id"],
}

WHOLE_NUMBERS = re.compile("^age$|-nanos$|-max-tokens$|-limit-|-remaining-")
ERROR_SHAPES: dict[Shape, str] = {
    "openai": "ErrorResponse",
    "openrouter": "OpenRouterErrorResponse",
    "anthropic": "AnthropicErrorResponse",
}


def add(document: dict[str, Any]) -> None:
    """Puts the paid paths before the others."""
    document["components"]["schemas"] |= schemas.components()
    document["paths"] = paths() | document["paths"]


def paths() -> dict[str, Any]:
    return {
        mount + form.path: {"post": _operation(mount + form.path, endpoint)}
        for mount in MOUNTS
        for endpoint, form in ENDPOINTS.items()
    }


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "tags": ["completions"],
        "summary": SUMMARIES[endpoint],
        "description": COUNTING if ENDPOINTS[endpoint].is_free else DESCRIPTION,
        "x-stability": "stable",
        "operationId": path.strip("/").replace("/", "_"),
        "security": [{"Bearer": []}, {"X-API-Key": []}],
        "parameters": [
            _header("Idempotency-Key", "A request with the same key and body gets the stored answer, free of charge."),
            _header(
                "X-Tollgate-Cache",
                "What the completion cache may do: `on`, `read`, `write` or `off`; with `ttl=SECONDS` after a comma.",
            ),
            _header("X-Tollgate-Usage", "`true` adds the charge to the last chunk of a stream, as `usage.tollgate`."),
            _header("x-sandbox-fault", "Faults for the sandbox to cause. For test keys only."),
        ],
        "requestBody": {"required": True, "content": {"application/json": _shape(SHAPES[endpoint][0])}},
        "responses": _responses(path, endpoint),
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _responses(path: str, endpoint: Endpoint) -> dict[str, Any]:
    _, answer = SHAPES[endpoint]
    contents = {"application/json": _shape(answer)}
    description = "The upstream's answer. Only `usage.cost` may differ."
    if endpoint in CHUNKS:
        contents["text/event-stream"] = _shape(CHUNKS[endpoint])
        description += f" With `stream`, the data of each event is a {CHUNKS[endpoint]}."
    answered = {"description": description, "headers": _headers(HEADERS), "content": contents}
    statuses = sorted({kind.status for kind in REFUSALS})
    return (
        {"200": answered}
        | {str(status): _refusal(path, _codes(status)) for status in statuses}
        | {"default": _refusal(path, "An error of the upstream, with its status.")}
    )


def _shape(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": REFERENCE.format(model=name)}}


def _headers(told: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": _type(name)}} for name, text in told.items()}


def _type(header: str) -> str:
    return "integer" if WHOLE_NUMBERS.search(header) else "string"


def _codes(status: int) -> str:
    return ", ".join(kind.code for kind in REFUSALS if kind.status == status)


def _refusal(path: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _headers(REFUSAL_HEADERS),
        "content": {"application/json": _shape(ERROR_SHAPES[shape_of_path(path)])},
    }
