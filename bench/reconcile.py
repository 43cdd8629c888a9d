"""How long reconciliation takes over what `bench/millions.py fill` made.

    DATABASE_URL=… python bench/reconcile.py

Prints the control totals of all days, and the causes of the fullest day, an hour at a time, as the reconciler does it.
Ends with 1 where either takes ten seconds or more. Writes nothing.
"""

import asyncio
import json
import os
import sys
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

from tollgate.reconciliation import rules
from tollgate.reconciliation.rules import Statement, Total

MOST_SECONDS = 10.0
CAUSES = "select public.tollgate_causes_of_difference($1, $2, $3, 20)"


async def main() -> int:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        return await measure(connection)
    finally:
        await connection.close()


async def measure(connection: asyncpg.Connection) -> int:
    rows = await connection.fetch(
        "select (t.start at time zone 'UTC')::date as day, sum(t.requests)::bigint as requests"
        " from tollgate.tallies t where t.cut = 'day_model' group by 1 order by 2 desc"
    )
    total, fullest = sum(row["requests"] for row in rows), rows[0]["day"]
    books, seconds = {}, {}
    for day in (row["day"] for row in rows):
        began = time.monotonic()
        books[day] = await books_of(connection, day)
        seconds[day] = time.monotonic() - began
    totals_seconds = sum(seconds.values())
    print(f"control totals of {len(rows)} days, {total} requests: {totals_seconds:.2f} s")
    alone, longest = (1000 * one for one in (seconds[fullest], max(seconds.values())))
    print(f"control totals of {fullest} alone: {alone:.0f} ms; the slowest day: {longest:.0f} ms")

    began = time.monotonic()
    causes = await by_hour(connection, fullest)
    causes_seconds = time.monotonic() - began
    print(f"causes of {fullest}, {rows[0]['requests']} requests: {causes_seconds:.2f} s")
    ours = {row["model"]: Total(row["requests"], row["tokens"], row["cost_nanos"]) for row in books[fullest]}
    theirs = {model: one._replace(cost_nanos=one.cost_nanos * 102 // 100) for model, one in ours.items()}
    outcome = rules.outcome(ours, Statement(theirs, {}), causes, 1000)
    print(f"verdict on a bill that is 2 % higher: {outcome['verdict']}")
    return 1 if max(totals_seconds, causes_seconds) >= MOST_SECONDS else 0


async def books_of(connection: asyncpg.Connection, day: date) -> list[dict[str, Any]]:
    found = json.loads(await connection.fetchval("select public.tollgate_books_of_day($1)", str(day)))
    return list(found["models"])


async def by_hour(connection: asyncpg.Connection, day: date) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for hour in range(-1, 24):
        since = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)
        span = since.isoformat(), (since + timedelta(hours=1)).isoformat()
        found += json.loads(await connection.fetchval(CAUSES, str(day), *span))["causes"]
    return found


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
