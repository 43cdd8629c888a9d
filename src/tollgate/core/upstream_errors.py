"""Errors of upstreams for clients of OpenAI's API: a word as `code`, as in our own errors, and the upstream's facts as
fields. Under OpenRouter's paths they stay as OpenRouter sends them."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tollgate.core import sse, strict_json
from tollgate.core.errors import anthropic_type
from tollgate.core.fields import as_mapping
from tollgate.core.strict_json import NotJson

_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CODES: Final[Mapping[int, str]] = {
    401: "upstream_unavailable",
    402: "upstream_unavailable",
    403: "permission_denied",
    404: "not_found",
    408: "upstream_timeout",
    413: "body_too_large",
    429: "rate_limit_exceeded",
    503: "upstream_busy",
    504: "upstream_timeout",
    524: "upstream_timeout",
    529: "upstream_busy",
}
_TYPES: Final[Mapping[int, str]] = {403: "permission_error", 429: "rate_limit_error"}


def in_answer(body: bytes, status: int, upstream: str) -> bytes:
    """The body of a refusal, which has an `error`. What stands beside it is about our own account, and is left out."""
    error = json.loads(body)["error"]
    return json.dumps({"error": _shaped(error, status, upstream)}, separators=(",", ":")).encode()


def for_anthropic(body: bytes, status: int, upstream: str, request_id: str) -> bytes:
    """As `in_answer`, in the shape of Anthropic's errors."""
    shaped = _shaped(json.loads(body)["error"], status, upstream)
    if shaped["param"] is None:
        del shaped["param"]
    told = {"type": "error", "error": {**shaped, "type": anthropic_type(status)}, "request_id": request_id}
    return json.dumps(told, separators=(",", ":")).encode()


def in_event(event: bytes, upstream: str) -> bytes:
    """An event that may have an `error`. All else in it stays."""
    data = sse.data_of(event)
    try:
        strict_json.from_upstream(data)
    except NotJson:
        return event

    def changed(error: str | None) -> str | None:
        if error in (None, "null"):
            return error
        return json.dumps(_shaped(json.loads(error), 502, upstream), separators=(",", ":"))

    return sse.with_data(event, data, strict_json.edit(data, {"error": changed}))


def in_words(given: Any, status: int) -> dict[str, Any]:
    """The error with a word as `code` and a type, and with all its facts."""
    error = as_mapping(given) or {"message": str(given)}
    code = error.get("code")
    if isinstance(code, int) and 400 <= code < 600:
        status = code
    metadata = as_mapping(error.get("metadata"))
    facts = {**metadata, **{name: value for name, value in error.items() if name != "metadata"}}
    facts.pop("error_type", None)
    return {
        **facts,
        "message": error.get("message") or f"The upstream failed with status {status}.",
        "type": error.get("type") or _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "code": _code(metadata.get("error_type") or error.get("error_type")) or _code(code) or _of_status(status),
        "param": error.get("param"),
    }


def _shaped(given: Any, status: int, upstream: str) -> dict[str, Any]:
    return {**in_words(given, status), "upstream": upstream, "upstream_code": as_mapping(given).get("code")}


def _code(word: object) -> str | None:
    return word if isinstance(word, str) and _WORD.fullmatch(word) else None


def _of_status(status: int) -> str:
    return _CODES.get(status, "upstream_unavailable" if status >= 500 else "invalid_request")
