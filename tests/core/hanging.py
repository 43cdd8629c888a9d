"""For work whose time must grow with its input: on an input of this size, its square would take minutes."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

HANGS_SECONDS = 60


@contextlib.contextmanager
def not_hanging() -> Iterator[None]:
    """Fails what would run for minutes. It interrupts a regular expression too."""
    before = signal.signal(signal.SIGALRM, _fail)
    signal.alarm(HANGS_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _fail(number: int, frame: FrameType | None) -> None:
    raise AssertionError(f"still at work after {HANGS_SECONDS} seconds")
