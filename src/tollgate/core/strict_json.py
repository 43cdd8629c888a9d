"""Untrusted JSON: reads it strictly, and edits members without changing any other byte.

Input that two parsers could read differently, or that could exhaust one, is refused: other encodings than UTF-8, a byte
order mark, NaN and Infinity, numbers beyond 1e300, nesting beyond 100 levels, and documents that are not objects. From
clients, a name that occurs twice in an object is refused too (the model that we price must be the model that answers),
and so is half of a surrogate pair (it cannot be encoded again). Answers of upstreams are only read for billing: there
the last of two names counts, and half of a pair becomes U+FFFD, so that no charge is lost.
"""

import contextlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, Final, NamedTuple

from tollgate.core.errors import BadRequest, BodyTooComplex

MOST_NESTED: Final = 100
MOST_DIGITS: Final = 300
"""Of a number, and of its exponent: a double ends at 1e308."""
SHOWN_CHARACTERS: Final = 64

MOST_VALUES: Final = 400_000
"""Values in one document of a client. An embeddings request may carry 300,000 token numbers."""
MOST_CONTAINERS: Final = 50_000
"""Lists and objects. Ten thousand messages with parts and tool calls have 40,000."""
MOST_NAMES: Final = 100_000
"""Member names of all objects together."""
MOST_ESCAPES: Final = 2_000_000
"""Backslashes. Text for a context of a million tokens has fewer, even with each character written as \\uXXXX."""
MOST_MEMBERS: Final = 1_000
"""Members of the top-level object."""
SLICE_BYTES: Final = 64 * 1024
"""A larger document is counted before it is parsed, in slices of this size, so that no step takes long."""

_BOM = "\ufeff"
_BLANK = re.compile(r"[ \t\n\r]*")
_SURROGATES = re.compile(r"\\(?:\\|u[dD][89abAB]..\\u[dD][c-fC-F]|(u[dD][89a-fA-F]..))")
"""An escaped backslash, a complete pair, or (as a group) half of one."""
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""As signed bytes: one level in, one level out."""
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class NotJson(ValueError):
    """The bytes are not a JSON object that we accept. The message quotes at most a member's name."""


class TooComplex(NotJson):
    """Too many values of one kind. The size alone does not bound the work of parsing."""

    def __init__(self, kind: str, most: int) -> None:
        super().__init__(f"The body has more than {most} {kind}. Send fewer in one request.")
        self.kind = kind
        self.most = most


def refusal(error: NotJson) -> BadRequest:
    """The error for the client."""
    if isinstance(error, TooComplex):
        return BodyTooComplex(str(error), kind=error.kind, limit=error.most)
    return BadRequest(str(error))


def refuse_ambiguous(body: bytes, most_values: int) -> None:
    """For a body that another parser validates. Refuses what is too complex for that parser, and names that occur twice
    in an object, which it would accept. It reports all other faults itself."""
    _refuse_complex(body, most_values)
    with contextlib.suppress(UnicodeDecodeError, json.JSONDecodeError):
        _looking.decode(body.decode())


def from_client(body: bytes) -> dict[str, Any]:
    """Reads a client's body. Numbers with a fraction or an exponent become exact decimals."""
    text = _text(body)
    if len(body) > SLICE_BYTES:
        _refuse_complex(body, MOST_VALUES)
    else:
        _refuse_depth(body)
    if "\\" in text and "\\u" in text and any(found[1] for found in _SURROGATES.finditer(text)):
        raise NotJson("The body has half of a surrogate pair, such as a cut emoji. Send whole characters.")
    read = _object(text, _strict)
    if len(read) > MOST_MEMBERS:
        raise TooComplex("members", MOST_MEMBERS)
    return read


def from_upstream(body: bytes) -> dict[str, Any]:
    """Reads an upstream's answer."""
    text = _text(body)
    _refuse_depth(body)
    if "\\" in text and "\\u" in text:
        text = _SURROGATES.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    return _object(text, _lenient)


Change = Callable[[str | None], str | None]
"""From a member's JSON, or None where it is absent, to its new JSON, or None for no member."""
Edits = Mapping[str, str | Change | None]
"""By member: its new JSON, None to remove it, or what changes it."""


def edit(body: bytes, edits: Edits) -> bytes:
    """The object with these members set, removed or changed, and every other byte as it was. New members come first.

    The body is one that `from_client` or `from_upstream` has read.
    """
    return edit_text(body.decode(), edits).encode() if edits else body


def edit_text(text: str, edits: Edits) -> str:
    splices: list[_Splice] = []
    absent = dict(edits)
    stays_until: int | None = None
    for one in _members(text):
        if one.name not in edits:
            stays_until = one.end
            continue
        absent.pop(one.name, None)
        new = _applied(edits[one.name], text[one.start : one.end])
        if new is None:
            splices = _removed(text, one, splices, stays_until)
        else:
            splices.append((one.start, one.end, new))
            stays_until = one.end
    return _spliced(text, [*_added(text, absent, is_first=stays_until is None), *splices])


def edit_items(text: str, change: Callable[[str], str]) -> str:
    """The list with each item changed, and every other character as it was."""
    return _spliced(text, [(start, end, change(text[start:end])) for start, end in _items(text)])


def unless_set(value: str) -> Change:
    """Sets a member that is absent or null."""
    return lambda written: value if written in (None, "null") else written


_Splice = tuple[int, int, str]
"""Where a text starts and ends, and what replaces it."""


def _spliced(text: str, splices: Iterable[_Splice]) -> str:
    kept: list[str] = []
    behind = 0
    for start, end, new in splices:
        kept += (text[behind:start], new)
        behind = end
    return "".join([*kept, text[behind:]])


def _applied(edit: str | Change | None, written: str | None) -> str | None:
    return edit(written) if callable(edit) else edit


def _added(text: str, edits: Edits, *, is_first: bool) -> list[_Splice]:
    """New members, behind the opening brace."""
    if not edits:
        return []
    values = {name: _applied(edit, None) for name, edit in edits.items()}
    added = ",".join([f"{json.dumps(name)}:{value}" for name, value in values.items() if value is not None])
    place = _after_blank(text, 0) + 1
    return [(place, place, added if is_first else f"{added},")] if added else []


def _removed(text: str, one: "_Member", splices: list[_Splice], stays_until: int | None) -> list[_Splice]:
    """The splices, and those that take this member and one comma out. The last member takes the comma before it."""
    comma = _after_blank(text, one.end)
    if text[comma] == ",":
        splices.append((one.place, _after_blank(text, comma + 1), ""))
    elif stays_until is None:
        splices.append((one.place, one.end, ""))
    else:
        return [*(splice for splice in splices if splice[0] < stays_until), (stays_until, one.end, "")]
    return splices


class _Member(NamedTuple):
    name: str
    place: int
    start: int
    """Where its value starts."""
    end: int


def _members(text: str) -> Iterator[_Member]:
    """The members of the top-level object."""
    place = _after_blank(text, _after_blank(text, 0) + 1)
    while text[place] != "}":
        name, colon = _skipping.raw_decode(text, place)
        start = _after_blank(text, _after_blank(text, colon) + 1)
        _, end = _skipping.raw_decode(text, start)
        yield _Member(name, place, start, end)
        comma = _after_blank(text, end)
        place = _after_blank(text, comma + 1) if text[comma] == "," else comma


def _items(text: str) -> Iterator[tuple[int, int]]:
    """Where the items of a list start and end."""
    place = _after_blank(text, _after_blank(text, 0) + 1)
    while text[place] != "]":
        _, end = _skipping.raw_decode(text, place)
        yield place, end
        comma = _after_blank(text, end)
        place = _after_blank(text, comma + 1) if text[comma] == "," else comma


def printable(text: str, most: int) -> str:
    """The text without control and invisible characters, cut to a length: safe for logs, headers and rows."""
    short = text[:most]
    return short if short.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in short)


def _text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotJson(f"The body is not valid UTF-8 at byte {error.start}. Send JSON in UTF-8.") from None
    if text.startswith(_BOM):
        raise NotJson("The body starts with a byte order mark. Send the JSON without it.")
    return text


def _object(text: str, decoder: json.JSONDecoder) -> dict[str, Any]:
    try:
        read = decoder.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise NotJson("The body is empty. Send a JSON object.") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise NotJson(f"The body is not valid JSON, see {where}. Send a JSON object.") from None
    if not isinstance(read, dict):
        raise NotJson("The body is JSON but not an object. Send a JSON object.")
    return read


def _refuse_complex(body: bytes, most_values: int) -> None:
    """Counts values before they are parsed. A comma or an opening bracket begins a value."""
    if body.count(b"\\") > MOST_ESCAPES:
        raise TooComplex("escapes", MOST_ESCAPES)
    depth = values = containers = names = 0
    for part in _outside_of_strings(body):
        depth = _depth_after(part, depth)
        opened = part.count(b"[") + part.count(b"{")
        containers += opened
        names += part.count(b":")
        values += opened + part.count(b",")
        if containers > MOST_CONTAINERS:
            raise TooComplex("lists and objects", MOST_CONTAINERS)
        if names > MOST_NAMES:
            raise TooComplex("names", MOST_NAMES)
        if values > most_values:
            raise TooComplex("values", most_values)


def _refuse_depth(body: bytes) -> None:
    """Runs before the parser, which recurses: CPython 3.13 crashes on a thread's small stack."""
    if body.count(b"[") + body.count(b"{") > MOST_NESTED:  # otherwise it cannot be too deep
        depth = 0
        for part in _outside_of_strings(body):
            depth = _depth_after(part, depth)


def _depth_after(part: bytes, depth: int) -> int:
    levels = list(accumulate(array("b", part.translate(_STEPS, _NO_BRACKETS)), initial=depth))
    if max(levels) > MOST_NESTED:
        raise NotJson(f"The body is nested more than {MOST_NESTED} levels deep. Send a flatter object.")
    return levels[-1]


def _outside_of_strings(body: bytes) -> Iterator[bytes]:
    """The parts of each slice outside of strings. The cost depends on the size alone."""
    held = b""
    is_inside = False
    for start in range(0, len(body), SLICE_BYTES):
        piece = held + body[start : start + SLICE_BYTES]
        held = b""
        if b"\\" in piece:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # it escapes the first byte of the next slice
                piece, held = piece[:-1], piece[-1:]
            piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        parts = piece.split(b'"')
        yield b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        name = json.dumps(printable(_repeated(pairs), SHOWN_CHARACTERS))
        raise NotJson(f"{name} occurs twice in one object. Send each name once.")
    return made


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    return Counter(name for name, _ in pairs).most_common(1)[0][0]


def _refuse_constant(constant: str) -> None:
    raise NotJson(f"The body has {constant}, which is not a number in JSON. Send a finite number.")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise _too_large()
    return int(digits)


def _decimal(digits: str) -> Decimal:
    if len(digits) > MOST_DIGITS:
        raise _too_large()
    try:
        made = Decimal(digits)
    except InvalidOperation:
        raise _too_large() from None
    if not -MOST_DIGITS <= made.adjusted() <= MOST_DIGITS:
        raise _too_large()
    return made


def _too_large() -> NotJson:
    return NotJson(f"The body has a number beyond {MOST_DIGITS} digits. Send a smaller or shorter one.")


def _after_blank(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    return found.end() if found else place


_skipping = json.JSONDecoder(parse_float=str, parse_int=str)
"""For skipping values: numbers are not converted."""
_looking = json.JSONDecoder(parse_float=str, parse_int=str, object_pairs_hook=_refuse_repeated)
_lenient = json.JSONDecoder(parse_float=_decimal, parse_int=_whole, parse_constant=_refuse_constant)
_strict = json.JSONDecoder(
    parse_float=_decimal, parse_int=_whole, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated
)
