"""An upstream's error, in OpenAI's shape, without internal details: addresses, paths, keys, memory addresses."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tollgate.core import strict_json
from tollgate.core.strict_json import NotJson
from tollgate.upstreams.rules import Refusal

LONGEST_MESSAGE: Final = 500
HIDDEN: Final = "[hidden]"

_CLIENTS_CODES: Final = (400, 413, 422)
_CLIENTS_WORDS = re.compile(r"bad_?request|invalid_?request|validation_?error|unprocessable", re.IGNORECASE)
_IN_MEMORY = re.compile(rb"0x[0-9a-fA-F]{6,16}\b")
_NOBODYS_BUSINESS = re.compile(
    r"""
      \b [a-z][a-z0-9+.-]* :// \S+                                # an address
    | \b (?: Bearer | Basic ) \s+ \S+
    | \b (?: sk | pk | hf | tg | gsk | xai | key ) [-_] [\w-]{6,}   # keys as they are commonly made
    | \b 0x [0-9a-fA-F]{6,16} \b
    | \b \d{1,3} (?: \. \d{1,3} ){3} (?: : \d+ )? \b
    | (?<![\w.]) (?: [A-Z]: )? [/\\] [\w.@+-]+ (?: [/\\] [\w.@+-]+ )+
    | \b [\w-]{40,} \b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def read(status: int, content_type: str, body: bytes, *, trusted: bool = False) -> Refusal:
    """The error byte for byte, where it can be shown. OpenRouter is trusted to hide its own details; the message of
    another server's 5xx is cleaned."""
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
    short = _NOBODYS_BUSINESS.sub(HIDDEN, " ".join(text[: 4 * LONGEST_MESSAGE].split()))
    return strict_json.printable(short, LONGEST_MESSAGE)


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
