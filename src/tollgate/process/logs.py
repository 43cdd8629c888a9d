"""Logs: one line per event, to standard output. No secret and no prompt ever.

Lines are JSON, or structlog's console format on a terminal in development. Every line names its source: application,
database, upstream or security. Facts that `note` sets (request, org and key id, error code) are on every later line of
the same request.
"""

import contextlib
import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context, ContextVar
from functools import cache, lru_cache
from json import JSONEncoder
from types import MappingProxyType
from typing import Any, Literal, TextIO, cast

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from tollgate.core.redaction import Redactor
from tollgate.process.clock import now

Source = Literal["application", "database", "upstream", "security"]

SHORT_CHARACTERS = 128
"""Ids, routes and names are at most this long, and recur from line to line."""
MOST_REMEMBERED = 4096
NEVER_SECRET = frozenset({int, bool, type(None)})
NOT_REDACTED = frozenset(
    {
        *("source", "route", "upstream", "outcome", "duration_ms"),
        *("org_id", "user_id", "key_id", "paid_request_id", "trace_id", "span_id", "exc_info"),
    }
)
"""Words and numbers of our own and ids of rows and of traces, which are never a client's text, and an exception that is
yet to be rendered."""
OWN_ID = re.compile(r"req_[0-9a-f]{28}")
"""The id of a request, unless the client sent one. No two lines of different requests share it, so to remember it
redacted gains nothing."""

_JSON = JSONEncoder(allow_nan=False, separators=(",", ":"))
_NOTES: ContextVar[Mapping[str, Any]] = ContextVar("notes", default=MappingProxyType({}))


def note(**facts: Any) -> None:
    """Adds facts to every later line of the same request."""
    _NOTES.set({**_NOTES.get(), **facts})


def noted(context: Context | None = None) -> dict[str, Any]:
    """The notes of this request, or of the one that runs in the given context."""
    if context is None:
        return dict(_NOTES.get())
    notes: Mapping[str, Any] = context.get(_NOTES, {})
    return dict(notes)


def begin(**facts: Any) -> None:
    """Replaces all notes: a new request begins."""
    _NOTES.set(facts)


class _Logger:
    """The logger of one source. Its methods are bound when they are first used after a configuration; those of
    structlog's own proxy are bound for each line, which costs a fifth of it."""

    def __init__(self, name: Source) -> None:
        self._name = name
        _LOGGERS.append(self)

    def __getattr__(self, level: str) -> Any:
        bound = getattr(structlog.get_logger(source=self._name), level)
        self.__dict__[level] = bound
        return bound

    def unbind(self) -> None:
        self.__dict__ = {"_name": self._name}


_LOGGERS: list[_Logger] = []


@cache
def source(name: Source) -> FilteringBoundLogger:
    """The logger of one source."""
    return cast("FilteringBoundLogger", _Logger(name))


def configure(
    level: str,
    secrets: Iterable[str],
    stream: TextIO | None = None,
    *,
    console: bool = False,
    adding: Sequence[Processor] = (),
) -> None:
    """Sends our lines, and those of libraries from warnings on, through the same processors to one stream. Lines are
    JSON unless `console` is set and the stream is a terminal. `adding` may add facts to a line."""
    least = getattr(logging, level.upper())
    out = stream or sys.stdout
    redact = Redactor(secrets)
    rendered = [*adding, *(_for_console(redact) if console and out.isatty() else _as_json(redact))]
    _configure_structlog(least, rendered, out)
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_of_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)


def _configure_structlog(least: int, rendered: list[Processor], out: TextIO) -> None:
    output = _Output(out)
    structlog.configure(
        processors=rendered,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda: output,
        cache_logger_on_first_use=False,
    )
    for logger in _LOGGERS:
        logger.unbind()


class _Output(structlog.WriteLogger):
    """Writes lines. Ignores a closed pipe or stream: no request may fail because of its log line."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = msg


def _of_library(logger: WrappedLogger, level: str, facts: EventDict) -> EventDict:
    return {**facts, "source": "application", "library": facts["_record"].name}


def _json(logger: WrappedLogger, level: str, facts: EventDict) -> str:
    """ASCII only, because a reader may see a line break in other characters. pydantic's encoder takes a quarter of the
    time of json's, but it escapes no such character and refuses half of a surrogate pair."""
    try:
        line = to_json(facts)
    except ValueError:
        return _JSON.encode(facts)
    return line.decode() if line.isascii() else _JSON.encode(facts)


def _as_json(redact: Redactor) -> list[Processor]:
    return [_Ordered(redact, formats_exceptions=True), _json]


def _for_console(redact: Redactor) -> list[Processor]:
    """Tracebacks are rich's where it is installed; only a development environment has it."""
    try:
        from tollgate.process.rich_tracebacks import RichTraceback
    except ImportError:
        return [_as_json(redact)[0], structlog.dev.ConsoleRenderer(sort_keys=False)]
    renderer = structlog.dev.ConsoleRenderer(sort_keys=False, exception_formatter=RichTraceback(redact))
    return [_Ordered(redact, formats_exceptions=False), renderer]


class _Ordered:
    """The facts of a line: those that every line has, the notes of its request, and its own. Strings are redacted. All
    of it is JSON, but for an exception that is yet to be rendered.

    One processor and not four: each request has a line, and each processor costs a call and a copy of the facts."""

    def __init__(self, redact: Redactor, *, formats_exceptions: bool) -> None:
        self._redact = redact
        self._short = lru_cache(MOST_REMEMBERED)(redact)
        self._formats_exceptions = formats_exceptions

    def __call__(self, logger: WrappedLogger, level: str, facts: EventDict) -> EventDict:
        if self._formats_exceptions and "exc_info" in facts:
            facts = structlog.processors.format_exc_info(logger, level, facts)
        ordered = {
            "timestamp": now().isoformat().replace("+00:00", "Z"),
            "level": level,
            "source": facts.pop("source"),
            "event": self._clean(facts.pop("event")),
        }
        for name, value in (*_NOTES.get().items(), *facts.items()):
            ordered[name] = value if name in NOT_REDACTED or type(value) in NEVER_SECRET else self._clean(value)
        return ordered

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case None | bool() | int():
                return value
            case float() if math.isfinite(value):
                return value
            case dict():
                return {self._text(str(name)): self._clean(part) for name, part in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean(part) for part in value]
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if OWN_ID.fullmatch(text):
            return text
        return self._short(text) if len(text) <= SHORT_CHARACTERS else self._redact(text)


# structlog's own default would show local variables.
_configure_structlog(logging.INFO, _as_json(Redactor(())), sys.stdout)
