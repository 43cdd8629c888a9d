"""Which failures to connect are this machine's own, so that none of them is held against an upstream."""

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
"""No file, no memory, or no local port left; and a name that could not be resolved for want of them."""


def is_local(error: BaseException | None) -> bool:
    """Whether such an error is among those that led to this one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OURS:
            return True
        error = error.__cause__ or error.__context__
    return False
