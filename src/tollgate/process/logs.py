"""Logs: JSON, one line per event, to standard output. No secret and no prompt ever.

Every line names its source: application, database, upstream or security. What is bound with `note`
(request, org and key id, error code) stays on every later line of the same request.
"""

import contextlib
import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextvars import Context, ContextVar
from types import MappingProxyType
from typing import Any, Literal, TextIO

from tollgate.process.clock import now

Source = Literal["application", "database", "upstream", "security"]

_PLAIN = json.JSONEncoder(allow_nan=False)
_NOTES: ContextVar[Mapping[str, Any]] = ContextVar("notes", default=MappingProxyType({}))

KEY_SHAPES = re.compile(r"(tg_(?:live|test)_|sb_secret_|sk-or-v1-|eyJ[\w-]+\.)[\w.-]+|(?<=://)[^/\s:]*:\S*(?=@)")
SUSPECT = r"tg_|sb_secret_|sk-or-v1-|eyJ|://"
"""Without any of these, no text has one of those shapes."""
HIDDEN = "[hidden]"
SHORTEST_SECRET = 8


def note(**facts: Any) -> None:
    """Said on every later line of the same request."""
    _NOTES.set({**_NOTES.get(), **facts})


def noted(context: Context | None = None) -> dict[str, Any]:
    """Of this request, or of the one that runs in that context."""
    if context is None:
        return dict(_NOTES.get())
    notes: Mapping[str, Any] = context.get(_NOTES, {})
    return dict(notes)


def forget() -> None:
    _NOTES.set(MappingProxyType({}))


class Redaction:
    """Hides what looks like a key, and every secret of the settings, wherever it stands in a line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
        exact = "|".join(map(re.escape, known))
        self._exact = re.compile(exact) if exact else None

    def __call__(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {self._text(name): self._clean(value) for name, value in facts.items()}

    def _clean(self, value: Any) -> Any:
        match value:
            case None | bool() | int():
                return value
            case float() if math.isfinite(value):
                return value
            case dict():
                return self(value)
            case list() | tuple() | set() | frozenset():
                return [self._clean(part) for part in value]
        return self._text(value)

    def _text(self, value: object) -> str:
        text = str(value)
        shown = self._exact.sub(HIDDEN, text) if self._exact else text
        return KEY_SHAPES.sub(lambda found: (found[1] or "") + HIDDEN, shown)


class Rendering:
    """One line of JSON. Most have nothing to hide, which one look at the finished line shows; only others are taken
    apart."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = list(secrets)
        exact = [re.escape(json.dumps(secret)[1:-1]) for secret in known if len(secret) >= SHORTEST_SECRET]
        self._suspect = re.compile("|".join([SUSPECT, *exact]))
        self._redact = Redaction(known)

    def __call__(self, facts: Mapping[str, Any]) -> str:
        try:
            line = _PLAIN.encode(facts)
        except (TypeError, ValueError):  # what JSON does not know
            line = ""
        if line and not self._suspect.search(line):
            return line
        return _PLAIN.encode(self._redact(facts))


class Journal:
    """Where all lines go, those of the libraries we run on included. `configure` opens it."""

    def __init__(self) -> None:
        self.open(logging.INFO, (), sys.stdout)

    def open(self, least: int, secrets: Iterable[str], out: TextIO) -> None:
        self.least = least
        self._rendered = Rendering(secrets)
        self._out = out

    def line(self, level: str, name: Source, event: str, facts: Mapping[str, Any]) -> str:
        timestamp = now().isoformat().replace("+00:00", "Z")
        head = {"timestamp": timestamp, "level": level, "source": name, "event": event}
        return self._rendered({**head, **_NOTES.get(), **facts})

    def write(self, level: str, name: Source, event: str, facts: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more, which no request shall suffer from
            self._out.write(self.line(level, name, event, facts) + "\n")
            self._out.flush()


_JOURNAL = Journal()


class Log:
    """What one source has to say."""

    def __init__(self, name: Source) -> None:
        self._name = name

    def info(self, event: str, **facts: Any) -> None:
        self._say(logging.INFO, "info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._say(logging.WARNING, "warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._say(logging.ERROR, "error", event, facts)

    def exception(self, event: str, **facts: Any) -> None:
        """An error, with the traceback of what is being handled."""
        self.error(event, **facts, exception=traceback.format_exc())

    def _say(self, rank: int, level: str, event: str, facts: Mapping[str, Any]) -> None:
        if rank >= _JOURNAL.least:
            _JOURNAL.write(level, self._name, event, facts)


def source(name: Source) -> Log:
    return Log(name)


class _OfLibraries(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {"library": record.name}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return _JOURNAL.line(record.levelname.lower(), "application", record.getMessage(), facts)


def configure(level: str, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Sends our lines, and those of the libraries we run on, through one renderer to one stream."""
    least = getattr(logging, level.upper())
    out = stream or sys.stdout
    _JOURNAL.open(least, secrets, out)
    handler = logging.StreamHandler(out)
    handler.setFormatter(_OfLibraries())
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
