"""What is left of our own credit at OpenRouter, which pays for every completion: GET /credits, asked now and then."""

import asyncio
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tollgate.core import strict_json
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.core.strict_json import NotJson
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import Http

KNOWN_SECONDS: Final = 300.0
FAILED_SECONDS: Final = 30.0
"""How long an answer, or the lack of one, is made do with."""
PATIENCE_SECONDS: Final = 3.0
MOST_CREDITS: Final = 10**9


class Left(NamedTuple):
    nanos: int | None
    """Below zero when more was used than paid for."""
    reason: str | None
    """Why it is not known."""


NO_KEY: Final = Left(None, "OPENROUTER_MANAGEMENT_KEY is not set.")


class Funds:
    def __init__(self, http: Http, base_url: str, key: str | None, *, clock: Monotonic) -> None:
        self._http = http
        self._url = f"{base_url}/credits"
        self._key = key
        self._clock = clock
        self._left = NO_KEY
        self._due_at = clock()
        self._asking = asyncio.Lock()

    async def left(self) -> Left:
        """Never fails, and waits only for so long. Whoever asks at the same time shares the answer."""
        if self._key is None:
            return NO_KEY
        async with self._asking:
            if self._clock() >= self._due_at:
                self._left = await self._ask(self._key)
                known = self._left.nanos is not None
                self._due_at = self._clock() + (KNOWN_SECONDS if known else FAILED_SECONDS)
            return self._left

    async def _ask(self, key: str) -> Left:
        import httpx  # noqa: PLC0415  # a cold start need not pay for it

        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await self._http.client().get(self._url, headers={"authorization": f"Bearer {key}"})
        except (httpx.HTTPError, OSError, TimeoutError):
            return Left(None, "OpenRouter did not answer.")
        if answer.status_code != httpx.codes.OK:
            return Left(None, f"OpenRouter answered {answer.status_code}.")
        return of_record(answer.content)


def of_record(body: bytes) -> Left:
    try:
        record = strict_json.from_upstream(body).get("data")
    except NotJson:
        record = None
    told = record if isinstance(record, dict) else {}
    paid, used = (_credits(told.get(name)) for name in ("total_credits", "total_usage"))
    if paid is None or used is None:
        return Left(None, "OpenRouter's answer made no sense.")
    return Left(int((paid - used) * NANOS_PER_CREDIT), None)


def _credits(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 0 <= value <= MOST_CREDITS:
        return None
    return Decimal(value)
