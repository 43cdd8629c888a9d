"""The sandbox as a process of its own: `python -m tollgate.sandbox FD` serves the listening socket that it inherits,
and ends when its standard input does. So it never outlives who started it, however that one ends.
"""

import contextlib
import os
import resource
import socket
import sys
import threading

import uvicorn

from tollgate.sandbox.app import create_bounded_sandbox

MOST_MEMORY_BYTES = 1024**3
NICENESS = 5
"""Paid calls go first where there are few cores."""


def main() -> None:
    os.nice(NICENESS)
    with contextlib.suppress(ValueError, OSError):  # not every system has it
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    config = uvicorn.Config(
        create_bounded_sandbox(), lifespan="off", ws="none", log_config=None, log_level="critical", access_log=False
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def _end_with_standard_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)  # it has nothing to finish


if __name__ == "__main__":
    main()
