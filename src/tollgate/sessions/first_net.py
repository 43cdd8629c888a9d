"""The first net under sign-ins: a limit of tries a minute in this process, before the database counts failures.

A key is not limited, since nobody guesses 256 bits, and a right key must always work.
"""

import math
import time

from slowapi import Limiter
from starlette.requests import Request

from limits import parse
from tollgate.audit.rules import address_of
from tollgate.core.errors import TooManySignIns

TRIES = parse("30/minute")


class FirstNet:
    def __init__(self) -> None:
        self._tries = Limiter(key_func=str, storage_uri="memory://").limiter

    def check(self, address: str) -> None:
        if not self._tries.hit(TRIES, address):
            until = self._tries.get_window_stats(TRIES, address).reset_time
            raise TooManySignIns(retry_after_seconds=max(1, math.ceil(until - time.time())))


def address(request: Request) -> str:
    """The client's address, as failures are counted. All unknown ones count together."""
    ip = request.state.claims["ip"]
    return address_of(ip) if ip else "unknown"
