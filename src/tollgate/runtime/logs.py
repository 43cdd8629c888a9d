"""Logs: JSON, one line per event, to standard output. No secret and no prompt ever.

Every line names its source: application, database, upstream or security. What is bound with `note`
(request, org and key id, error code) stays on every later line of the same request.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Source = Literal["application", "database", "upstream", "security"]

_PLAIN = json.JSONEncoder(allow_nan=False)
_NOTES: ContextVar[Mapping[str, Any]] = ContextVar("notes", default=MappingProxyType({}))

KEY_SHAPES = re.compile(r"(tg_(?:live|test)_|sb_secret_|sk-or-v1-|eyJ[\w-]+\.)[\w.-]+|(?<=://)[^/\s:]*:\S*(?=@)")
SUSPECT = r"tg_|sb_secret_|sk-or-v1-|eyJ|://"
"""Without any of these, no text has one of those shapes."""
HIDDEN = "[hidden]"
SHORTEST_SECRET = 8


def note(**facts: Any) -> None:
    """Said on every later line of the same request. One variable for all: structlog's own has one for each name."""
    _NOTES.set({**_NOTES.get(), **facts})


def noted() -> dict[str, Any]:
    return dict(_NOTES.get())


def forget() -> None:
    _NOTES.set(MappingProxyType({}))


def source(name: Source) -> FilteringBoundLogger:
    log: FilteringBoundLogger = structlog.get_logger(source=name)
    return log


class Redaction:
    """Hides what looks like a key, and every secret of the settings, wherever it stands in a line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
        exact = "|".join(map(re.escape, known))
        self._exact = re.compile(exact) if exact else None

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {self._text(name): self._clean(value) for name, value in event.items()}

    def _clean(self, value: Any) -> Any:
        match value:
            case None | bool() | int():
                return value
            case float() if math.isfinite(value):
                return value
            case dict():
                return {self._text(name): self._clean(part) for name, part in value.items()}
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

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        try:
            line = _PLAIN.encode(event)
        except (TypeError, ValueError):  # what JSON does not know
            line = ""
        if line and not self._suspect.search(line):
            return line
        return _PLAIN.encode(self._redact(logger, method, event))


def configure(level: str, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Sends our lines, and those of the libraries we run on, through one renderer to one stream."""
    shared: list[Any] = [
        _with_notes,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Any] = [
        structlog.processors.format_exc_info,
        Rendering(secrets),
    ]
    least = getattr(logging, level.upper())
    out = stream or sys.stdout
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _of_a_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)


def _with_notes(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {**_NOTES.get(), **event}


def _of_a_library(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.setdefault("source", "application")
    event["library"] = event["_record"].name
    return event
