"""Reconciles days: one that an operator names, and by itself each of the last three."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from tollgate.core.errors import ActivityUnavailable, ReconciliationNotConfigured
from tollgate.database import Door
from tollgate.process import logs
from tollgate.reconciliation import rules, store
from tollgate.reconciliation.activity import Activity

log = logs.source("application")

LEASE_SECONDS: Final = 300
LOOKED_BACK: Final = timedelta(hours=1)
"""Requests that began so long before the day may have ended on it."""
SPAN: Final = timedelta(hours=1)
"""Requests are read in spans, so that no call of the database takes long."""


class Reconciler:
    def __init__(
        self, door: Door, activity: Activity | None, *, tolerance_ppm: int, now: Callable[[], datetime]
    ) -> None:
        self._door = door
        self._activity = activity
        self._tolerance_ppm = tolerance_ppm
        self._now = now

    async def turn(self) -> dict[str, Any]:
        """A part of the sweeper's round where there is a management key. Any number of servers may do it at once: a day
        is leased to one."""
        day = await store.lease(self._door, self._now(), LEASE_SECONDS)
        if day is None:
            return {"more": False}
        outcome = await self.run(day)
        told = log.info if outcome["verdict"] == "agrees" else log.warning
        told("reconciled", day=day.isoformat(), **{name: outcome[name] for name in TOLD})
        return {"more": True}

    async def ask(self, operator: Door, day: date) -> dict[str, Any]:
        """For an operator, whose door it is."""
        if self._activity is None:
            raise ReconciliationNotConfigured
        rules.check_day(day, self._now())
        await store.ask(operator, day)
        return await self.run(day)

    async def run(self, day: date) -> dict[str, Any]:
        """Reconciles the day, and keeps the outcome, or why there is none."""
        if self._activity is None:
            raise ReconciliationNotConfigured
        try:
            statement = await self._activity.of_day(day)
        except ActivityUnavailable as error:
            await store.keep(self._door, day, {"failure": error.message}, self._now())
            raise
        ours = rules.ours_by_model(await store.books(self._door, day), statement)
        is_doubtful = rules.differing(ours, statement, self._tolerance_ppm)
        causes = await self._causes(day) if is_doubtful else []
        outcome = rules.outcome(ours, statement, causes, self._tolerance_ppm)
        await store.keep(self._door, day, outcome, self._now())
        return outcome

    async def _causes(self, day: date) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        since = datetime.combine(day, time(), UTC) - LOOKED_BACK
        ending = datetime.combine(day, time(), UTC) + timedelta(days=1)
        while since < ending:
            found += await store.causes(self._door, day, since, since + SPAN, rules.EXAMPLES)
            since += SPAN
        return found


TOLD: Final = ("verdict", "our_cost_nanos", "their_cost_nanos", "our_requests", "their_requests")
