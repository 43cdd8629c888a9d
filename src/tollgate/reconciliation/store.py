"""Days of reconciliation in the database."""

from datetime import date, datetime
from typing import Any

from tollgate.database import Door, Json


async def lease(door: Door, as_of: datetime, seconds: int) -> date | None:
    """A day that is due, for this server alone."""
    day = (await door.call("tollgate_lease_reconciliation", as_of=as_of.isoformat(), lease_seconds=seconds))["day"]
    return date.fromisoformat(day) if day else None


async def ask(door: Door, day: date) -> None:
    """Records that an operator asks for a day."""
    await door.call("tollgate_ask_for_reconciliation", day=day.isoformat())


async def books(door: Door, day: date) -> list[dict[str, Any]]:
    """What each model cost us at OpenRouter."""
    return list((await door.call("tollgate_books_of_day", day=day.isoformat()))["models"])


async def causes(door: Door, day: date, since: datetime, until: datetime, examples: int) -> list[dict[str, Any]]:
    """Of the requests of a span of the day."""
    span = {"since": since.isoformat(), "until": until.isoformat()}
    found = await door.call("tollgate_causes_of_difference", day=day.isoformat(), **span, examples=examples)
    return list(found["causes"])


async def keep(door: Door, day: date, outcome: dict[str, Any], as_of: datetime) -> None:
    await door.call("tollgate_keep_reconciliation", day=day.isoformat(), outcome=outcome, as_of=as_of.isoformat())


async def days(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_reconciliations", filters=filters, page_size=page_size)


async def of_day(door: Door, day: date) -> Json:
    return await door.call("tollgate_reconciliation", day=day.isoformat())
