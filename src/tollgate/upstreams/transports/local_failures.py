"""Failures to connect that this machine causes, so that they do not count against an upstream."""

import errno
import socket
from typing import Final

_OURS: Final = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        socket.EAI_MEMORY,
        socket.EAI_SYSTEM,
    )
)
"""No files, memory or local ports left, also while resolving a name."""


def is_local(error: BaseException | None) -> bool:
    """Whether this error, or one of its causes, is such a failure."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OURS:
            return True
        error = error.__cause__ or error.__context__
    return False
