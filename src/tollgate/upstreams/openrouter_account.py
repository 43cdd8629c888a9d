"""The credit left on our own OpenRouter account, which pays for every completion there: GET /credits."""

import asyncio
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from tollgate.core import strict_json
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.core.strict_json import NotJson
from tollgate.process.clock import Monotonic
from tollgate.process.http_client import Http, NoAnswer

KNOWN_SECONDS: Final = 300.0
"""How long an answer is kept."""
FAILED_SECONDS: Final = 30.0
"""How long a failure is kept."""
TIMEOUT_SECONDS: Final = 3.0
MOST_CREDITS: Final = 10**9


class AccountCredit(NamedTuple):
    nanos: int | None
    """Below zero when the account used more than it paid for; None when unknown."""
    reason: str | None
    """Why it is unknown."""


NO_KEY: Final = AccountCredit(None, "OPENROUTER_MANAGEMENT_KEY is not set.")


class OpenRouterAccount:
    def __init__(self, http: Http, base_url: str, key: str | None, *, clock: Monotonic) -> None:
        self._http = http
        self._url = f"{base_url}/credits"
        self._key = key
        self._clock = clock
        self._credit = NO_KEY
        self._due_at = clock()
        self._asking = asyncio.Lock()

    async def credit(self) -> AccountCredit:
        """Never raises, and waits three seconds at most. Concurrent callers share one request."""
        if self._key is None:
            return NO_KEY
        async with self._asking:
            if self._clock() >= self._due_at:
                self._credit = await self._ask(self._key)
                known = self._credit.nanos is not None
                self._due_at = self._clock() + (KNOWN_SECONDS if known else FAILED_SECONDS)
            return self._credit

    async def _ask(self, key: str) -> AccountCredit:
        headers = {"authorization": f"Bearer {key}"}
        try:
            answer = await self._http.ask("GET", self._url, TIMEOUT_SECONDS, headers=headers)
        except NoAnswer:
            return AccountCredit(None, "OpenRouter did not answer.")
        if answer.status_code != HTTPStatus.OK:
            return AccountCredit(None, f"OpenRouter answered {answer.status_code}.")
        return read_credit(answer.content)


def read_credit(body: bytes) -> AccountCredit:
    try:
        record = strict_json.from_upstream(body).get("data")
    except NotJson:
        record = None
    fields = record if isinstance(record, dict) else {}
    paid, used = (_credits(fields.get(name)) for name in ("total_credits", "total_usage"))
    if paid is None or used is None:
        return AccountCredit(None, "OpenRouter's answer could not be read.")
    return AccountCredit(int((paid - used) * NANOS_PER_CREDIT), None)


def _credits(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 0 <= value <= MOST_CREDITS:
        return None
    return Decimal(value)
