"""What is promised of a database of ten million requests, and what it keeps. `bench/millions.py measure` runs it."""

import asyncio
import contextlib
import os
import random
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx

from tollgate import settings
from tollgate.app import create_app
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.keys import rules
from tollgate.keys import store as keys
from tollgate.keys.authentication import console

BATCH = 16
LOOKS = 10
GROUPS = (["model"], ["key"], ["user"], ["org"], ["upstream"], ["day"], ["model", "key"])
LATENCIES = "/admin/usage/latency/series?bucket=hour&hours=168"
SPARSE = "/admin/usage?model=none"
ADMITTING_SECONDS = 10.0
DROPPED_AT_ONCE = 1000
ROLLED_AT_ONCE = 5000
DEADLINE_SECONDS = 600.0
IN_USE = "update tollgate.api_keys set last_used_at = now() + interval '1 day'"
"""So that no admission notes the use of a key, in one database or the other."""
SOLVENT = """
select substr(id, 13)::integer from tollgate.orgs
where id like 'org_millions%' and balance_nanos > held_nanos + 100000000
order by 1
"""
ORGS = "select count(*)::integer from tollgate.orgs where id like 'org_millions%'"

Ask = Callable[[str], Awaitable[None]]
People = Callable[[asyncpg.Connection, int], Awaitable[None]]


class Found(NamedTuple):
    what: str
    value: float
    promised: float
    unit: str

    def kept(self) -> bool:
        return self.value <= self.promised

    def __str__(self) -> str:
        verdict = "" if self.kept() else "  WORSE THAN PROMISED"
        return f"{self.what}: {self.value:.3g} {self.unit} (promised {self.promised:g}){verdict}"


async def measure(url: str, rounds: int, people: People) -> bool:
    """Whether everything is as promised."""
    full = PostgresDoor(url, pool_size=4, deadline_seconds=DEADLINE_SECONDS)
    async with _Empty(url, people) as empty:
        await _execute(url, IN_USE)
        orgs = await _solvent(url)
        found = [
            await _paired(f"admit and settle, {size} at once", full, empty, orgs, size, rounds) for size in (1, BATCH)
        ]
    await _rolled_up(full)
    found += await _looks(full)
    found.append(await _while_dropping(full, url, orgs))
    await full.close()
    print(*found, sep="\n")
    return all(one.kept() for one in found)


async def _rolled_up(door: Door) -> None:
    """What those admissions left, as the sweeper would have in its next rounds: the first only sights it."""
    for _ in range(3):
        while (await door.call("tollgate_roll_up_usage", page_size=ROLLED_AT_ONCE))["more"]:
            pass


class _Empty:
    """A database beside that one, of the same people, without a request."""

    def __init__(self, url: str, people: People) -> None:
        self._server, self._name = url, f"millions_empty_{secrets.token_hex(4)}"
        self._url = urlsplit(url)._replace(path=f"/{self._name}").geturl()
        self._people = people

    async def __aenter__(self) -> Door:
        connection = await asyncpg.connect(self._server)
        orgs = await connection.fetchval(ORGS)
        await connection.execute(f"create database {self._name}")
        await connection.close()
        await migrations.migrate(self._url)
        connection = await asyncpg.connect(self._url)
        await self._people(connection, orgs)
        await connection.execute(IN_USE)
        await connection.execute("vacuum (analyze)")
        await connection.close()
        self._door = PostgresDoor(self._url, pool_size=1, deadline_seconds=DEADLINE_SECONDS)
        return self._door

    async def __aexit__(self, *_: object) -> None:
        await self._door.close()
        await _execute(self._server, f"drop database {self._name} with (force)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def _solvent(url: str) -> list[int]:
    """The numbers of those who can pay."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(SOLVENT)
    await connection.close()
    return [row[0] for row in rows]


async def _paired(what: str, full: Door, empty: Door, orgs: list[int], size: int, rounds: int) -> Found:
    """In turn, so that whatever else the machine does befalls both."""
    took: dict[Door, list[float]] = {full: [], empty: []}
    for turn in range(rounds + rounds // 10):
        numbers = _drawn(orgs, size)
        for door in (full, empty) if turn % 2 else (empty, full):
            began = time.perf_counter()
            await _admit_and_settle(door, numbers)
            took[door].append(time.perf_counter() - began)
    medians = [statistics.median(took[door][rounds // 10 :]) for door in (full, empty)]
    print(f"{what}: {medians[0] * 1000:.2f} ms, on an empty table {medians[1] * 1000:.2f} ms", flush=True)
    return Found(what, medians[0] / medians[1], 1.2, "× an empty table")


def _drawn(orgs: list[int], size: int) -> list[int]:
    """As often as they call in life: the first of them most."""
    return [orgs[int(len(orgs) ** random.random()) - 1] for _ in range(size)]  # noqa: S311  # no secret


async def _admit_and_settle(door: Door, numbers: list[int]) -> None:
    items = [_asked(number) for number in numbers]
    admitted = await door.call("tollgate_admit", items=items)
    settled = await door.call("tollgate_settle", items=[_settled(item["id"]) for item in items])
    if any("granted" not in answer for answer in admitted.values()) or any("refusal" in a for a in settled.values()):
        raise RuntimeError(f"{admitted} {settled}")


def _asked(number: int) -> dict[str, Any]:
    caller = {"digests": [sha256(f"{number}_1".encode()).hexdigest()], "pepper": "00000000", "ip": "192.0.2.1"}
    return {
        "id": f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}",
        "caller": caller,
        "scope": "chat",
        "endpoint": "chat",
        "model": "maker-1/model-1",
        "models": ["maker-1/model-1"],
        "streamed": False,
        "fixed_nanos": "5000",
        "output_nanos": "100",
        "output_bound": 100,
        "least_output": 16,
        "most_output": 100,
        "choices": 1,
        "prompt_tokens": 10,
        "markup_ppm": 50_000,
        "ttl_seconds": 600,
        "price": {"fixed_nanos": "5000", "output_nanos": "100", "prompt": "500", "completion": "100"},
    }


def _settled(request_id: str) -> dict[str, Any]:
    return {
        "id": request_id,
        "outcome": "settled",
        "charge_nanos": 1050,
        "cost_nanos": 1000,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "upstream": "openrouter",
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        "status": 200,
        "duration_ms": 500,
    }


@contextlib.asynccontextmanager
async def asking(door: Door) -> AsyncIterator[tuple[Ask, Ask]]:
    """What asks as an operator, and as an owner in the largest org. A refusal is an error."""
    pepper = secrets.token_hex(32)
    admin, owner = (rules.mint("live", secrets.token_bytes(32)) for _ in range(2))
    await _seed(
        door, "org_operators", "usr_operators", rules.stored(admin, pepper, name="b", scopes=rules.ADMIN_SCOPES)
    )
    await _seed(
        door, "org_millions1", "usr_millions1", rules.stored(owner, pepper, name="b", scopes=rules.MEMBER_SCOPES)
    )
    app = create_app(settings.read({**os.environ, "KEY_PEPPER": pepper, "LOG_LEVEL": "error"}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench", timeout=600) as client:

        async def page(secret: str, path: str) -> None:
            answer = await client.get(path, headers={"authorization": f"Bearer {secret}"})
            answer.raise_for_status()

        yield partial(page, admin), partial(page, owner)


async def _looks(door: Door) -> list[Found]:
    operator = console(door, "bench")
    day = {"from": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86_400))}
    until = {"to": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    async with asking(door) as (admin, owner):
        aggregate = partial(operator.call, "tollgate_usage_aggregate", page_size=100, everyone=True)
        series = partial(operator.call, "tollgate_usage_series", everyone=True)
        return [
            await look("/admin/monitor", 1000, partial(admin, "/admin/monitor")),
            *[
                await look(f"/admin/overview of {hours} h", 1000, partial(admin, f"/admin/overview?hours={hours}"))
                for hours in (24, 168, 720)
            ],
            await look("latencies of 7 days by hour", 1000, partial(admin, LATENCIES)),
            await look("/admin/credits/summary", 1000, partial(admin, "/admin/credits/summary")),
            await look("/user/monitor of the largest org", 100, partial(owner, "/user/monitor")),
            await look("/user/key/usage of the largest org", 100, partial(owner, "/user/key/usage")),
            await look("requests of a model that nobody asks for", 4000, partial(admin, SPARSE)),
            *[await look(f"24 h by {' and '.join(by)}", 1000, partial(aggregate, by=by, filters=day)) for by in GROUPS],
            *[
                await look(f"24 h by the {bucket}", 1000, partial(series, bucket=bucket, filters=day | until))
                for bucket in ("minute", "hour")
            ],
            *[
                await look(
                    f"24 h by the hour and {by}",
                    1000,
                    partial(series, bucket="hour", filters=day | until | {"by": by}),
                )
                for by in ("model", "key")
            ],
            *[
                await look(
                    f"24 h of latencies, {kind}",
                    1000,
                    partial(operator.call, "tollgate_latency", kind=kind, filters=day),
                )
                for kind in ("whole", "first_token")
            ],
        ]


async def _seed(door: Door, org_id: str, user_id: str, key: dict[str, Any]) -> None:
    org = {"id": org_id, "name": "Bench", "plan_id": "enterprise"}
    owner = {"id": user_id, "email": f"{user_id}@bench.example", "name": "", "role": "admin"}
    await keys.seed(console(door, "bench"), org, owner, key)


async def look(what: str, promised_ms: float, ask: Callable[[], Awaitable[Any]], looks: int = LOOKS) -> Found:
    """The slowest but for the first, of which nothing is in any cache."""
    took = []
    for _ in range(looks):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    print(f"{what}: {took[0]:.0f} ms at first, then {statistics.median(took[1:]):.0f} ms", flush=True)
    return Found(what, max(took[1:]), promised_ms, "ms at most")


async def _while_dropping(door: Door, url: str, orgs: list[int]) -> Found:
    """Admissions while retention drops the oldest three days."""
    connection = await asyncpg.connect(url)
    days = await connection.fetchval("select extract(day from now() - min(created_at))::int - 3 from tollgate.requests")
    await connection.close()
    alone = await _admissions(door, orgs)
    dropping = asyncio.create_task(_drop(door, days))
    beside = await _admissions(door, orgs)
    dropping.cancel()
    (dropped,) = await asyncio.gather(dropping)
    print(
        f"admit and settle, alone: {statistics.median(alone) * 1000:.2f} ms, at most {max(alone) * 1000:.0f} ms; "
        f"while {dropped:.0f} requests a second are dropped: {statistics.median(beside) * 1000:.2f} ms"
    )
    return Found("the slowest of those beside retention", max(beside) * 1000, 1000, "ms")


async def _admissions(door: Door, orgs: list[int]) -> list[float]:
    took = []
    ends_at = time.monotonic() + ADMITTING_SECONDS
    while time.monotonic() < ends_at:
        began = time.perf_counter()
        await _admit_and_settle(door, _drawn(orgs, 1))
        took.append(time.perf_counter() - began)
    return took


async def _drop(door: Door, days: int) -> float:
    """How many a second, until it is told to stop or there are no more."""
    dropped, began = 0, time.monotonic()
    try:
        while True:
            answer = await door.call("tollgate_drop_old_requests", older_than_days=days, page_size=DROPPED_AT_ONCE)
            dropped += answer["requests"]
            if not answer["more"]:
                break
    except asyncio.CancelledError:
        pass
    return dropped / (time.monotonic() - began)
