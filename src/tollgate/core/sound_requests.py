"""Reads a request with a file of sound: a form as OpenAI's clients send it, or OpenRouter's JSON. Pure.

Both become the same: named values for `request_body`, and fields for the form that goes upstream.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tollgate.core import fields, request_body
from tollgate.core.endpoints import Endpoint
from tollgate.core.errors import BadRequest
from tollgate.core.multipart import Part
from tollgate.core.request_body import Ask
from tollgate.core.sound_lengths import Length

FILE: Final = "file"
SOUND: Final = "input_audio"
MOST_FIELD_BYTES: Final = 64 * 1024
"""Of the values of all fields of a form together."""
FLAGS: Final = ("stream", "stream_include_usage", "stream_continuous_usage_stats")
AS_TEXT: Final = ("text", "srt", "vtt")
"""Formats of answers that are not JSON."""
OF_OPENROUTER: Final = ("provider", SOUND)
"""Members of OpenRouter's JSON form that other servers do not get."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+(?:\[[A-Za-z0-9_]*\])*")
_FORMAT = re.compile(r"[A-Za-z0-9]{1,16}")
_WORDS: Final = {"true": True, "1": True, "false": False, "0": False, "": None}

Fields = tuple[tuple[str, bytes], ...]


class Given(NamedTuple):
    """A request without its sound."""

    values: Mapping[str, Any]
    fields: Fields
    """In their order, as they go upstream."""


def of_form(parts: Iterable[tuple[str, bytes]]) -> Given:
    """The fields of a form. Only a name that ends with [] may come twice."""
    values: dict[str, Any] = {}
    kept: list[tuple[str, bytes]] = []
    for name, content in parts:
        _add(values, name, _text(name, content))
        kept += _as_fields(name, values[name]) if name in FLAGS else [(name, content)]
    return _checked(values, tuple(kept))


def of_json(document: Mapping[str, Any]) -> Given:
    """OpenRouter's form. What its members are in a form is only needed by other servers."""
    for name in document:
        _refuse_strange(name)
    values = {name: value for name, value in document.items() if name not in (FILE, SOUND)}
    kept = [one for name, value in values.items() if name not in OF_OPENROUTER for one in _as_fields(name, value)]
    return _checked(values, tuple(kept))


def sound_in(document: Mapping[str, Any]) -> tuple[Part, bytes]:
    """The file in OpenRouter's form. Raises BadRequest."""
    given = fields.mapping(document, SOUND)
    data, kind = given.get("data"), given.get("format")
    if not isinstance(data, str) or not data:
        raise BadRequest(f"{SOUND}: send the sound in Base64 as data, and its format.", param=SOUND)
    if not isinstance(kind, str) or not _FORMAT.fullmatch(kind):
        raise BadRequest(f"{SOUND}.format: send the format of the sound, such as wav or mp3.", param=SOUND)
    try:
        sound = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(
            f"{SOUND}.data: is not Base64. Send it without line breaks or a prefix.", param=SOUND
        ) from None
    return Part(FILE, f"sound.{kind.lower()}"), sound


def read(given: Given, length: Length, endpoint: Endpoint) -> Ask:
    """Raises BadRequest for what cannot be priced or must not be forwarded."""
    values = {**given.values, FILE: [length]}
    text = json.dumps(given.values, ensure_ascii=False, default=str)
    ask = request_body.read_parsed(values, text.encode(), endpoint)
    return ask._replace(
        as_text=values.get("response_format") in AS_TEXT,
        include_usage=values.get("stream_include_usage") is True,
    )


def _add(values: dict[str, Any], name: str, text: str) -> None:
    _refuse_strange(name)
    plain = re.split(r"[\[.]", name)[0]
    if name in FLAGS:
        _refuse_repeated(values, name)
        values[name] = _flag(name, text)
    elif name.endswith("[]"):
        values.setdefault(plain, [])
        if not isinstance(values[plain], list):
            _refuse_repeated(values, plain)
        values[plain].append(text)
    else:
        _refuse_repeated(values, name)
        values[name] = text
        values.setdefault(plain, text)  # so that a forbidden name is found in any form


def _refuse_strange(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequest("The name of a field has other characters than letters, digits, _, ., - and [].")


def _refuse_repeated(values: Mapping[str, Any], name: str) -> None:
    if name in values:
        raise BadRequest(f"{name}: send it once.", param=name)


def _flag(name: str, text: str) -> bool | None:
    if text.lower() not in _WORDS:
        raise BadRequest(f"{name}: send true or false.", param=name)
    return _WORDS[text.lower()]


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{name}: is not UTF-8 text.", param=name) from None


def _checked(values: Mapping[str, Any], kept: Fields) -> Given:
    if values.get("models") is not None:
        raise BadRequest("models: this endpoint has no fallbacks. Send model alone.", param="models")
    return Given(values, kept)


def _as_fields(name: str, value: Any) -> list[tuple[str, bytes]]:
    match value:
        case None:
            return []
        case bool():
            return [(name, json.dumps(value).encode())]
        case str() | int() | Decimal():
            return [(name, str(value).encode(errors="replace"))]
        case list() if all(isinstance(one, (str, int, Decimal)) for one in value):
            return [one for each in value for one in _as_fields(f"{name}[]", each)]
    return [(name, json.dumps(value, default=float).encode())]
