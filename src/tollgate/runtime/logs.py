"""Logs: JSON, one line per event, to standard output. No secret and no prompt ever.

Every line names its source: application, database, upstream or security. What is bound with `note`
(request, org and key id, error code) stays on every later line of the same request.
"""

import logging
import math
import re
import sys
from collections.abc import Iterable
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Source = Literal["application", "database", "upstream", "security"]

note = structlog.contextvars.bind_contextvars
noted = structlog.contextvars.get_contextvars
forget = structlog.contextvars.clear_contextvars

KEY_SHAPES = re.compile(r"(tg_(?:live|test)_|sb_secret_|sk-or-v1-|eyJ[\w-]+\.)[\w.-]+|(?<=://)[^/\s:]*:\S*(?=@)")
HIDDEN = "[hidden]"


def source(name: Source) -> FilteringBoundLogger:
    log: FilteringBoundLogger = structlog.get_logger(source=name)
    return log


class Redaction:
    """Hides what looks like a key, and every secret of the settings, wherever it stands in a line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        exact = "|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True) if len(secret) >= 8)
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


def configure(level: str, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Sends our lines, and those of the libraries we run on, through one renderer to one stream."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Any] = [
        structlog.processors.format_exc_info,
        Redaction(secrets),
        structlog.processors.JSONRenderer(),
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


def _of_a_library(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.setdefault("source", "application")
    event["library"] = event["_record"].name
    return event
