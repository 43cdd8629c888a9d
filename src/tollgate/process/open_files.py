"""How many files this process may have open, connections included. Windows has no such limit."""

import contextlib
import sys

if sys.platform != "win32":
    import resource

WANTED = 8192


def limit() -> int:
    if sys.platform == "win32":
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Raises the soft limit, which is often 1024 for programs that use select(). Where the system refuses, it stays,
    and fewer calls go upstream at once."""
    if sys.platform == "win32":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if limit() < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
