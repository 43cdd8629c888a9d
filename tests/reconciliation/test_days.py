"""A day of paid calls beside OpenRouter's bill: each difference is found, and named."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from admin.api_client import ApiClient
from journeys import commands
from reconciliation.installation import KEY, NOON, Installation
from sandbox.serving import PATIENCE_SECONDS, a_chat
from tollgate.core.errors import ActivityUnavailable
from tollgate.process import clock
from tollgate.reconciliation import rules
from tollgate.reconciliation.reconciler import Reconciler
from tollgate.reconciliation.rules import Statement, Total

LOST, ESTIMATED = "no-usage,no-generation", "no-usage,no-id"
OPEN = "no-usage,late-generation=999999"


def causes(day: Mapping[str, Any]) -> dict[str, tuple[str, list[tuple[str, int]]]]:
    return {
        one["model"]: (one["verdict"], [(cause["cause"], cause["requests"]) for cause in one["causes"]])
        for one in day["models"]
    }


async def test_a_clean_day_is_clean_rolled_up_or_not(installation: Installation) -> None:
    await installation.call("sandbox/echo", times=2)
    await installation.call("sandbox/words", "byok")
    await installation.settle()
    day = await installation.reconciled()
    assert (day["verdict"], day["difference_ppm"], day["our_requests"]) == ("agrees", 0, 3)
    assert day["our_cost_nanos"] == day["their_cost_nanos"] == installation.upstream.owed_nanos > 0
    assert causes(day) == {"sandbox/echo": ("agrees", []), "sandbox/words": ("agrees", [])}
    await installation.sql("select tollgate.roll_up(now(), 1000)")
    assert (await installation.reconciled())["models"] == day["models"]
    assert await installation.sql("select value from tollgate.reconciliation_readings(now())") == 0


async def test_every_difference_of_a_day_is_found_and_named(installation: Installation, tmp_path: Path) -> None:
    await installation.call("sandbox/words", times=2)
    await installation.call("sandbox/echo", LOST)
    await installation.call("sandbox/reasoner", ESTIMATED)
    await installation.call("sandbox/tools", "corrected", times=2)
    await installation.call("sandbox/cached")
    await installation.settle()
    await installation.call("sandbox/long-context", OPEN)
    await installation.sql("update tollgate.requests set created_at = $1 where settled_at is null", NOON)
    await installation.sql(
        "update tollgate.requests set created_at = $1 where model = 'sandbox/cached'",
        NOON - timedelta(hours=12, minutes=3),
    )
    async with httpx.AsyncClient(base_url=installation.upstream.url, timeout=PATIENCE_SECONDS) as elsewhere:
        headers = {"authorization": f"Bearer {KEY}"}
        body = a_chat(model="sandbox/words", max_tokens=5000)
        await elsewhere.post("/chat/completions", json=body, headers=headers)

    day = await installation.reconciled()
    assert day["verdict"] == "differs"
    assert causes(day) == {
        "sandbox/words": ("differs", [("unknown_requests", 1)]),
        "sandbox/echo": ("explained", [("no_record", 1)]),
        "sandbox/reasoner": ("explained", [("estimated", 1)]),
        "sandbox/tools": ("differs", [("corrected", 0)]),
        "sandbox/long-context": ("explained", [("open", 1)]),
        "sandbox/cached": ("explained", [("day_before", 1)]),
    }
    rows = {one["model"]: one for one in day["models"]}
    tools = rows["sandbox/tools"]
    assert tools["their_cost_nanos"] == 2 * tools["our_cost_nanos"]
    assert [cause["most_nanos"] for cause in tools["causes"]] == [tools["difference_nanos"]]
    (lost,) = rows["sandbox/echo"]["causes"][0]["examples"]
    assert lost["id"] == await installation.sql("select id from tollgate.requests where model = 'sandbox/echo'")
    assert lost["generation_id"].startswith("gen-")
    assert rows["sandbox/echo"]["causes"][0]["meaning"] == rules.CAUSES["no_record"]
    assert await installation.sql("select value from tollgate.reconciliation_readings(now())") == day["difference_ppm"]

    told = commands.run("reconcile", "--day", str(installation.day), folder=tmp_path, settings=installation.environ)
    assert told.returncode == 1
    assert told.stderr.endswith(": OpenRouter's bill is not what our books say, beyond RECONCILIATION_TOLERANCE\n")
    assert all(word in told.stdout for word in ("no_record: 0.00 to", lost["id"], "unknown_requests", "differs"))


async def test_days_are_listed_and_refused(installation: Installation) -> None:
    async with installation.client() as http:
        api = ApiClient(http, installation.admin)
        refused = await api.refused("POST", f"/admin/reconciliation/{clock.now().date()}/run", 400)
        assert refused["message"] == "day: is not over yet (in UTC)."
        await api.refused("GET", f"/admin/reconciliation/{installation.day}", 404)
        installation.faulty.sandbox = None  # type: ignore[assignment]  # every call of it fails
        failed = await api.refused("POST", f"/admin/reconciliation/{installation.day}/run", 502)
        assert failed["code"] == "activity_unavailable"
        (listed,) = (await api.ask("GET", "/admin/reconciliation"))["data"]
        assert (listed["day"], listed["verdict"]) == (str(installation.day), None)
        assert listed["failure"] == failed["message"]


class Stated:
    """Says the same of every day, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[date] = []
        self.failing = False

    async def of_day(self, day: date) -> Statement:
        self.asked.append(day)
        if self.failing:
            raise ActivityUnavailable
        return Statement({"maker/model": Total(1, 10, 5)}, {})


async def test_each_of_the_last_days_is_reconciled_once_by_any_number_of_servers(installation: Installation) -> None:
    moment = datetime(2026, 3, 9, 7, tzinfo=UTC)
    stated = Stated()
    servers = [
        Reconciler(installation.door, stated, tolerance_ppm=0, now=lambda: moment)  # type: ignore[arg-type]
        for _ in range(3)
    ]

    async def rounds() -> list[date]:
        stated.asked.clear()
        for _ in range(4):
            await asyncio.gather(*(server.turn() for server in servers))
        return sorted(stated.asked)

    assert await rounds() == [], "the installation is younger"
    await installation.sql("update tollgate.orgs set created_at = '2026-03-07 13:00+00'")
    assert await rounds() == [date(2026, 3, 8)]
    moment += timedelta(hours=22)
    assert await rounds() == []
    moment += timedelta(hours=2)
    stated.failing = True
    with pytest.raises(ActivityUnavailable):
        await servers[0].turn()
    stated.failing = False
    assert await rounds() == [date(2026, 3, 8)], "one that failed waits for an hour"
    moment += timedelta(hours=1)
    assert await rounds() == [date(2026, 3, 9)]
    kept = await installation.sql(
        "select jsonb_object_agg(day, failure is null and verdict = 'differs') from tollgate.reconciliations"
    )
    assert json.loads(kept) == {"2026-03-08": True, "2026-03-09": True}
