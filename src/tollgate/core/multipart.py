"""Multipart forms: splits one as it comes, and writes one.

What goes upstream is always written here, with a boundary of our own, so a server reads the fields that we have read.
Refused is what two readers could read differently, or what has no bound: a missing or unfinished end, parts in parts,
encoded parts, long heads, many parts.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

from tollgate.core.errors import BadRequest
from tollgate.core.names import LONGEST_NAME

LONGEST_BOUNDARY: Final = 70
MOST_HEAD_BYTES: Final = 4096
"""Of the head of one part."""
MOST_PREAMBLE_BYTES: Final = 4096
MOST_PARTS: Final = 64
LONGEST_FILENAME: Final = 255

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r'\s*;\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_ESCAPED = re.compile(r'\\(["\\])')
_PLAIN: Final = ("", "7bit", "8bit", "binary")

State = Literal["preamble", "delimiter", "head", "content", "end"]


class Part(NamedTuple):
    """The head of a part."""

    name: str
    filename: str | None = None
    content_type: str | None = None


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a form; None where the content type is another. Raises BadRequest where it is missing."""
    kind, semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    found = (_parameters(semicolon + rest) or {}).get("boundary", "")
    if len(found) > LONGEST_BOUNDARY or not _BOUNDARY.fullmatch(found):
        raise BadRequest("Content-Type: send multipart/form-data with its boundary.", param="Content-Type")
    return found.encode()


class Parts:
    """Splits a form into the heads of its parts, each followed by the pieces of its content."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")
        """What has come and is not decided. It begins as if a line had ended, for the first delimiter."""
        self._state: State = "preamble"
        self._passed = 0
        """Bytes of the preamble."""
        self._parts = 0

    def feed(self, piece: bytes) -> Iterator[Part | bytes]:
        """Take all that it gives before the next piece. Raises BadRequest."""
        self._buffer += piece
        while True:
            before = self._state, len(self._buffer)
            if found := self._step():
                yield found
            if (self._state, len(self._buffer)) == before:
                return

    def finish(self) -> None:
        """Called when the body has ended. Raises BadRequest where the form has not."""
        if self._state != "end":
            raise _malformed("it ends before its last boundary")

    def _step(self) -> Part | bytes | None:
        """Decides about the beginning of the buffer. Where more must come first, nothing changes."""
        match self._state:
            case "preamble":
                self._passed += len(self._until_delimiter())
                if self._passed > MOST_PREAMBLE_BYTES:
                    raise _malformed("its boundary does not come")
            case "content":
                return self._until_delimiter()
            case "delimiter":
                self._delimited()
            case "head":
                return self._head()
            case "end":
                self._buffer.clear()
        return None

    def _until_delimiter(self) -> bytes:
        place = self._buffer.find(self._delimiter)
        end = place
        if place < 0:
            held = self._buffer.find(b"\r", max(0, len(self._buffer) - len(self._delimiter) + 1))
            end = held if held >= 0 else len(self._buffer)
        content = bytes(self._buffer[:end])
        del self._buffer[: end if place < 0 else end + len(self._delimiter)]
        if place >= 0:
            self._state = "delimiter"
        return content

    def _delimited(self) -> None:
        if len(self._buffer) < 2:
            return
        mark = bytes(self._buffer[:2])
        if mark not in (b"\r\n", b"--"):
            raise _malformed("a line begins with its boundary and goes on")
        self._state = "head" if mark == b"\r\n" else "end"

    def _head(self) -> Part | None:
        """The line end after the delimiter is still there, so that a head without lines ends like others."""
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > MOST_HEAD_BYTES:
            raise BadRequest(f"The head of a part is longer than {MOST_HEAD_BYTES} bytes. Send shorter names.")
        if end < 0:
            return None
        head = bytes(self._buffer[2:end])
        del self._buffer[: end + 4]
        self._state = "content"
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise BadRequest(f"The form has more than {MOST_PARTS} parts. Send fewer.")
        return _part(head)


def written(fields: Iterable[tuple[str, bytes]], file: Part, boundary: str) -> tuple[bytes, bytes]:
    """What stands before and after the content of the file. The names of fields are such that need no quotes."""
    before = b"".join(b"%b%b\r\n" % (_opening(Part(name), boundary), value) for name, value in fields)
    return before + _opening(file, boundary), f"\r\n--{boundary}--\r\n".encode()


def _opening(part: Part, boundary: str) -> bytes:
    named = "" if part.filename is None else f'; filename="{_quotable(part.filename)}"'
    kind = "" if part.content_type is None else f"Content-Type: {part.content_type}\r\n"
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{part.name}"{named}\r\n{kind}\r\n'.encode()


def _quotable(filename: str) -> str:
    """As browsers write it."""
    return filename.replace('"', "%22").replace("\\", "_")


def _part(head: bytes) -> Part:
    headers = _headers(head)
    kind, semicolon, rest = headers.get("content-disposition", "").partition(";")
    parameters = _parameters(semicolon + rest)
    if kind.strip().lower() != "form-data" or parameters is None or "name" not in parameters:
        raise _malformed("a part has no name")
    name = parameters["name"]
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or '"' in name:
        raise _malformed(f"a name is longer than {LONGEST_NAME} characters, or has other than printable ones")
    content_type = headers.get("content-type")
    if content_type is not None and content_type.lower().startswith("multipart/"):
        raise BadRequest(f"{name}: send a value, not a form in the form.", param=name)
    if headers.get("content-transfer-encoding", "").lower() not in _PLAIN:
        raise BadRequest(f"{name}: send it without a Content-Transfer-Encoding.", param=name)
    return Part(name, _filename(parameters), content_type)


def _headers(head: bytes) -> Mapping[str, str]:
    try:
        lines = head.decode().split("\r\n") if head else []
    except UnicodeDecodeError:
        raise _malformed("the head of a part is not UTF-8") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or name.lower() in headers or not value.isprintable():
            raise _malformed("the head of a part cannot be read")
        headers[name.lower()] = value.strip()
    return headers


def _filename(parameters: Mapping[str, str]) -> str | None:
    """The last segment, without what no header can carry."""
    given = parameters.get("filename")
    if given is None and "filename*" in parameters:
        given = unquote(parameters["filename*"].rpartition("'")[2])
    if given is None:
        return None
    last = re.split(r"[/\\]", given)[-1][-LONGEST_FILENAME:]
    return "".join(one if one.isprintable() else "_" for one in last)


def _parameters(text: str) -> dict[str, str] | None:
    """The parameters of a header by lower-case name; None where one of them cannot be read, or comes twice."""
    found: dict[str, str] = {}
    place = 0
    text = text.rstrip()
    while place < len(text):
        one = _PARAMETER.match(text, place)
        if one is None or one[1].lower() in found:
            return None
        found[one[1].lower()] = one[3] if one[2] is None else _ESCAPED.sub(r"\1", one[2])
        place = one.end()
    return found


def _malformed(why: str) -> BadRequest:
    return BadRequest(f"The body is not a valid form: {why}. Send multipart/form-data.")
