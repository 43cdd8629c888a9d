"""Errors of upstreams, in OpenAI's shape and without addresses, paths, keys and pointers."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tollgate.core import strict_json
from tollgate.core.redaction import FORMS, INTERNALS, Redactor
from tollgate.core.strict_json import NotJson
from tollgate.upstreams.rules import Refusal

LONGEST_MESSAGE: Final = 500

_CLIENTS_CODES: Final = (400, 413, 422)
_CLIENTS_WORDS = re.compile(r"bad_?request|invalid_?request|validation_?error|unprocessable", re.IGNORECASE)
_IN_MEMORY = re.compile(rb"0x[0-9a-fA-F]{6,16}\b")
_redact = Redactor((), (*FORMS, *INTERNALS))


def read(status: int, content_type: str, body: bytes, *, trusted: bool = False) -> Refusal:
    """Passes the body on unchanged if possible. Only OpenRouter's messages are trusted; those of a self-hosted server's
    5xx are redacted."""
    found = _document(body)
    error = found.get("error")
    meant = 400 if status == 500 and not trusted and _blames_the_request(found) else status
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        said = _said(found) if found else _plain(content_type, body)
        return Refusal(meant, _shaped(meant, said), by_upstream=bool(said))
    message = _cleaned(error["message"])
    if trusted or status < 500 or message == error["message"]:
        return Refusal(meant, body if trusted else _IN_MEMORY.sub(b"0x0", body), by_upstream=True)
    return Refusal(meant, _shaped(meant, message), by_upstream=True)


def _blames_the_request(found: Mapping[str, Any]) -> bool:
    """Some servers answer 500 although the type or code in the body says that the request was wrong."""
    error = found.get("error")
    said = error if isinstance(error, dict) else found
    words = f"{said.get('type')} {said.get('code')}"
    return said.get("code") in _CLIENTS_CODES or _CLIENTS_WORDS.search(words) is not None


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        return strict_json.from_upstream(body)
    except NotJson:
        return {}


def _said(found: Mapping[str, Any]) -> str:
    """The message of vLLM's and TGI's bare string, of SGLang's object without an envelope, or of FastAPI's detail."""
    detail = found.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(_fault(one) for one in detail[:5])
    candidates = (found.get("error"), found.get("message"), detail)
    return next((_cleaned(one) for one in candidates if isinstance(one, str) and one), "")


def _fault(one: object) -> str:
    if not isinstance(one, dict):
        return str(one)
    place = one.get("loc")
    where = ".".join(str(part) for part in place) if isinstance(place, list) else "body"
    return f"{where}: {one.get('msg')}"


def _plain(content_type: str, body: bytes) -> str:
    """The body of a plain text error. HTML pages are not shown."""
    is_text = content_type.partition(";")[0].strip().lower() == "text/plain"
    return _cleaned(body[: 4 * LONGEST_MESSAGE].decode(errors="replace")) if is_text else ""


def _cleaned(text: str) -> str:
    return strict_json.printable(_redact(" ".join(text[: 4 * LONGEST_MESSAGE].split())), LONGEST_MESSAGE)


def _shaped(status: int, message: str) -> bytes:
    error = {
        "message": message or f"The upstream refused the request with status {status}.",
        "type": _kind(status),
        "param": None,
        "code": None,
    }
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def _kind(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"
