"""What only this process can read: breakers, the list of models, our credit at OpenRouter, how long the database takes.

Each round reports it, and evaluates the rules.
"""

from collections.abc import Mapping
from typing import Any

from tollgate.alerts import store
from tollgate.catalog.cache import Catalog
from tollgate.core.models import SANDBOX
from tollgate.database import Door, Json
from tollgate.keys.rules import Environment
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.openrouter_account import OpenRouterAccount

log = logs.source("application")

INSTALLATION = "installation"

Reading = dict[str, Any]


class Readings:
    def __init__(
        self,
        door: Door,
        process: str,
        *,
        catalogs: Mapping[Environment, Catalog],
        upstreams: Upstreams,
        account: OpenRouterAccount,
        clock: Monotonic,
    ) -> None:
        self._door = door
        self._process = process
        """A name that no other process has: what it no longer reports is forgotten."""
        self._catalog = catalogs["live"]
        self._upstreams = upstreams
        self._account = account
        self._clock = clock
        self._answer_seconds: float | None = None

    async def evaluate(self) -> Json:
        """One round: reports the readings, and has the database evaluate the rules."""
        observed = [*self._of_upstreams(), *self._of_catalog(), *await self._of_account(), *self._of_database()]
        began = self._clock()
        try:
            done = await store.evaluate(self._door, observed, self._process)
        finally:
            self._answer_seconds = self._clock() - began
        if done.get("changed"):
            log.warning("alerts_changed", **done)
        return done

    def _of_upstreams(self) -> list[Reading]:
        """The sandbox fails for test keys that ask for it."""
        called = [one for one in self._upstreams.states() if one.id != SANDBOX]
        return [_reading("breaker_open", one.id, int(one.was_open)) for one in called]

    def _of_catalog(self) -> list[Reading]:
        """A list that nobody asks for grows old too, so only one that could not be refreshed counts."""
        state = self._catalog.state()
        if state.age_seconds is None or state.last_error is None:
            return []
        return [_reading("catalog_age_seconds", INSTALLATION, round(state.age_seconds))]

    async def _of_account(self) -> list[Reading]:
        credit = await self._account.credit()
        return [] if credit.nanos is None else [_reading("openrouter_credit_nanos", INSTALLATION, credit.nanos)]

    def _of_database(self) -> list[Reading]:
        seconds = self._answer_seconds
        return [] if seconds is None else [_reading("database_answer_ms", INSTALLATION, round(seconds * 1000))]


def _reading(signal: str, subject: str, value: int) -> Reading:
    return {"signal": signal, "subject": subject, "value": value}
