"""The paid paths in the OpenAPI document. FastAPI does not see them, so they are described here."""

import re
from collections.abc import Iterable
from typing import Any

from tollgate.completions import schemas
from tollgate.core import errors
from tollgate.core.dialects.generate import MOST_PROMPTS
from tollgate.core.endpoints import BATCH_PATH, ENDPOINTS, MOUNTS, Endpoint
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
    "generate": "A text for one prompt, paid from the balance of the key's org",
    "images": "Images from a text, paid from the balance of the key's org",
    "speech": "Speech from a text, paid from the balance of the key's org",
    "rerank": "Documents ranked by a query, paid from the balance of the key's org",
    "moderations": "Texts checked for harmful content, paid from the balance of the key's org",
    "transcriptions": "The text of a recording, paid from the balance of the key's org",
    "translations": "The English text of a recording, paid from the balance of the key's org",
}
DESCRIPTION = (
    "The whole body is forwarded to the upstream, with parameters that this document does not name, and the answer "
    "is returned as it came; only `usage.cost` may be rewritten. Credits for the worst case are held during the call, "
    "and the actual cost is charged."
)
GENERATING = (
    "The simple API of LLM Server. The prompt is sent upstream as a chat completion. Fields that this document does "
    "not name are refused. With `stream`, each event has a piece of the output; the last has an empty one and what "
    "else an answer says, and `data: [DONE]` follows."
)
BATCH = (
    f"Each of 1 to {MOST_PROMPTS} prompts is a paid call of its own: with a row, limits, a hold, a charge, and an "
    "error if it fails. All have the other fields in common. The results are in the order of the prompts. If all "
    "prompts are refused for the same reason, so is the batch."
)
COUNTING = "Authenticated and counted in the request windows like other calls. Nothing is held or charged."
SHAPES: dict[Endpoint, tuple[str, str]] = {
    "chat": ("ChatCompletionRequest", "ChatCompletion"),
    "completions": ("CompletionRequest", "Completion"),
    "embeddings": ("EmbeddingsRequest", "Embeddings"),
    "responses": ("ResponsesRequest", "ResponseAnswer"),
    "messages": ("MessagesRequest", "MessageAnswer"),
    "count_tokens": ("CountTokensRequest", "CountedTokens"),
    "generate": ("GenerateRequest", "GenerateAnswer"),
    "images": ("ImagesRequest", "Images"),
    "speech": ("SpeechRequest", ""),
    "rerank": ("RerankRequest", "Reranked"),
    "moderations": ("ModerationsRequest", "Moderations"),
    "transcriptions": ("TranscriptionRequest", "Transcript"),
    "translations": ("TranscriptionRequest", "Transcript"),
}
SOUND: dict[str, Any] = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
BYTES = (
    "The sound, as the upstream makes it, with its content type. The charge is not among the headers, which leave "
    "before it is known: see `x-tollgate-request-id`. An answer that breaks off has no end, so the client notices."
)
CHUNKS: dict[Endpoint, str] = {
    "chat": "ChatCompletionChunk",
    "completions": "Completion",
    "responses": "TypedEvent",
    "messages": "TypedEvent",
    "generate": "GenerateEvent",
    "images": "TypedEvent",
    "transcriptions": "TypedEvent",
    "translations": "TypedEvent",
}
FORM = "TranscriptionForm"
TEXTS: dict[str, Any] = {"text/*": {"schema": {"type": "string"}}}
AS_IT_CAME = "The upstream's answer. Only `usage.cost` may differ."
TRANSLATED = "The answer. `charge_nanos` says what it was charged."
REFUSALS: tuple[type[TollgateError], ...] = (
    errors.BadRequest, errors.BodyTooComplex, errors.ModelUnpriced, errors.ExtraUnpriced,
    errors.MissingApiKey,
    errors.InvalidApiKey, errors.KeyDisabled, errors.KeyExpired, errors.KeyRevoked, errors.RequestTimeout,
    errors.HeadTooLarge, errors.InternalError, errors.ServerBusy, errors.ServerRestarting,
    errors.InsufficientCredits, errors.KeyBudgetExhausted, errors.QuotaExhausted, errors.PermissionDenied,
    errors.ModelNotAllowed, errors.IpNotAllowed, errors.ModelNotFound, errors.EndpointNotServed,
    errors.RequestInProgress, errors.AnswerNotKept,
    errors.BodyTooLarge, errors.IdempotencyKeyReused, errors.RateLimitExceeded, errors.TooManyInFlight,
    errors.PaidCallsSuspended, errors.UpstreamUnavailable, errors.UpstreamGarbled, errors.UpstreamCut,
    errors.UpstreamBusy, errors.CatalogUnavailable, errors.DatabaseUnavailable, errors.UpstreamTimeout,
)  # fmt: skip
DESCRIPTIONS: dict[Endpoint, str] = {"count_tokens": COUNTING, "generate": GENERATING}
HEADERS = {
    "x-request-id": "The id of the request: yours, if you sent one.",
    "x-tollgate-request-id": "The id of the request in /user/usage, and for a refund. A repeated answer has "
    "that of the first.",
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
    """Puts the paid paths before the others, and gives the errors of each path the shape that its clients expect."""
    document["components"]["schemas"] |= schemas.components()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _shape_errors(operation["responses"], _shape(ERROR_SHAPES[shape_of_path(path)]))
    document["paths"] = paths() | document["paths"]


def paths() -> dict[str, Any]:
    return {
        mount + path: {"post": _operation(mount + path, endpoint)}
        for mount in MOUNTS
        for endpoint, form in ENDPOINTS.items()
        for path in form.paths
    } | {mount + BATCH_PATH: {"post": _batch(mount + BATCH_PATH)} for mount in MOUNTS}


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "tags": ["completions"],
        "summary": SUMMARIES[endpoint],
        "description": DESCRIPTIONS.get(endpoint, DESCRIPTION),
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
        "requestBody": {"required": True, "content": _bodies(endpoint)},
        "responses": _responses(path, endpoint),
    }


def _bodies(endpoint: Endpoint) -> dict[str, Any]:
    as_form = {"multipart/form-data": _shape(FORM)} if ENDPOINTS[endpoint].takes_file else {}
    return as_form | {"application/json": _shape(SHAPES[endpoint][0])}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _responses(path: str, endpoint: Endpoint) -> dict[str, Any]:
    _, answer = SHAPES[endpoint]
    contents = {"application/json": _shape(answer)} if answer else SOUND
    description = TRANSLATED if endpoint == "generate" else AS_IT_CAME if answer else BYTES
    if ENDPOINTS[endpoint].takes_file:
        contents |= TEXTS
        description += " A `response_format` of text, srt or vtt is answered as text."
    if endpoint in CHUNKS:
        contents["text/event-stream"] = _shape(CHUNKS[endpoint])
        description += f" With `stream`, the data of each event is a {CHUNKS[endpoint]}."
    answered = {"description": description, "headers": _headers(HEADERS), "content": contents}
    return {"200": answered} | _refusals(path)


def _batch(path: str) -> dict[str, Any]:
    """As of a single prompt, with another body and answer."""
    single = _operation(path, "generate")
    key = _header("Idempotency-Key", "With its place in the batch, the idempotency key of each prompt.")
    answered = {
        "description": "The results, in the order of the prompts, and what the batch was charged.",
        "headers": _headers({name: HEADERS[name] for name in ("x-request-id", "x-tollgate-charge-nanos")}),
        "content": {"application/json": _shape("GenerateBatchAnswer")},
    }
    return single | {
        "summary": "Texts for many prompts, each paid from the balance of the key's org",
        "description": BATCH,
        "parameters": [key, *(one for one in single["parameters"] if one["name"] == "x-sandbox-fault")],
        "requestBody": {"required": True, "content": {"application/json": _shape("GenerateBatchRequest")}},
        "responses": {"200": answered} | _refusals(path, errors.PromptNotSent),
    }


def _refusals(path: str, *more: type[TollgateError]) -> dict[str, Any]:
    kinds = (*REFUSALS, *more)
    statuses = sorted({kind.status for kind in kinds})
    return {str(status): _refusal(path, _codes(kinds, status)) for status in statuses} | {
        "default": _refusal(path, "An error of the upstream, with its status.")
    }


def _shape(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": REFERENCE.format(model=name)}}


def _shape_errors(responses: dict[str, Any], shape: dict[str, Any]) -> None:
    for status, told in responses.items():
        if status >= "4" and "content" in told:
            told["content"]["application/json"] = shape


def _headers(told: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": _type(name)}} for name, text in told.items()}


def _type(header: str) -> str:
    return "integer" if WHOLE_NUMBERS.search(header) else "string"


def _codes(kinds: Iterable[type[TollgateError]], status: int) -> str:
    return ", ".join(kind.code for kind in kinds if kind.status == status)


def _refusal(path: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _headers(REFUSAL_HEADERS),
        "content": {"application/json": _shape(ERROR_SHAPES[shape_of_path(path)])},
    }
