"""JSON as OpenRouter writes it: raw UTF-8, and exact numbers where Python's floats would drift."""

import json
from decimal import Decimal
from json.encoder import encode_basestring as quoted
from typing import Any

SMALLEST_PLAIN = Decimal("0.000001")

__all__ = ["NotJson", "decode", "encode", "encode_with", "number", "quoted", "utf8"]


class NotJson(Exception):
    """NaN, and what is nested too deep to read, included."""


def encode(value: Any) -> str:
    """Like json.dumps, and a Decimal becomes a JSON number with exactly its digits."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{quoted(name)}:{encode(item)}" for name, item in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([encode(item) for item in value]) + "]"
    if isinstance(value, Decimal):
        return number(value)
    if type(value) is int:
        return str(value)
    return _plain(value)


def encode_with(plain: dict[str, Any], exact: dict[str, Any]) -> str:
    """Both as one object. What has no Decimal in it is left to the encoder in C, which is much faster."""
    return _plain(plain)[:-1] + "," + encode(exact)[1:] if exact else _plain(plain)


def number(value: Decimal) -> str:
    """As JavaScript writes it: plain, and below a millionth with an exponent."""
    if not value.is_finite():
        return "NaN"
    shortest = value.normalize()
    return format(shortest, "f") if not shortest or abs(shortest) >= SMALLEST_PLAIN else str(shortest).lower()


def utf8(text: str) -> bytes:
    """A lone surrogate has no UTF-8, so it goes out escaped, as JSON.stringify does it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join(f"\\u{ord(one):04x}" if "\ud800" <= one <= "\udfff" else one for one in text).encode()


def decode(body: bytes) -> Any:
    try:
        return _decoder.decode(body.decode())
    except (ValueError, RecursionError):
        raise NotJson from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decoder = json.JSONDecoder(parse_constant=_refuse)
