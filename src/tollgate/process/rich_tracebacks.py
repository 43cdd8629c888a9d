"""Tracebacks for a terminal, by rich. They never show local variables: those hold prompts and keys."""

from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.traceback import Trace, Traceback
from structlog.typing import ExcInfo


class RichTraceback:
    """An exception formatter of structlog's console renderer. Redacts messages before they are coloured and wrapped,
    since no form of a secret would be found after that."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact

    def __call__(self, out: TextIO, exc_info: ExcInfo) -> None:
        trace = Traceback.extract(*exc_info)
        self._hide(trace)
        out.write("\n")
        Console(file=out, color_system="truecolor").print(Traceback(trace, width=None, word_wrap=True))

    def _hide(self, trace: Trace) -> None:
        for stack in trace.stacks:
            stack.exc_value = self._redact(stack.exc_value)
            stack.notes = [self._redact(text) for text in stack.notes]
            stack.syntax_error = None  # its message is in exc_value
            for inner in stack.exceptions:
                self._hide(inner)
