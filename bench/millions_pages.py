"""How long the pages wait for their data over so many requests. `bench/millions.py pages` runs it."""

import os
from functools import partial
from itertools import product
from pathlib import Path

import asyncpg
from millions_measured import DEADLINE_SECONDS, Found, asking, look

from tollgate.database.postgres import PostgresDoor

PROMISED_MS = 1000
HOURS = (24, 168, 720)
ORG = "org_millions1"
KEY = "key_millions1k1"
MODEL = "maker-1/model-1"
"""Asked for most, as that org asks most."""
REQUESTS = "select array[min(id), max(id)] from tollgate.requests where org_id = $1"
OF_OPERATORS = [
    "/admin/usage/refused?hours=720&limit=50",
    "/admin/orgs?limit=50",
    "/admin/orgs?limit=50&sort=credits:asc",
    "/admin/orgs?limit=50&q=77",
    "/admin/orgs/lookup?q=org",
    f"/admin/orgs/{ORG}",
    "/admin/users?limit=50",
    "/admin/users?limit=50&q=77",
    "/admin/users/lookup?q=77",
    "/admin/keys?limit=50&include=usage",
    "/admin/keys?limit=50&include=usage&sort=last_used_at:desc",
    f"/admin/keys?limit=50&include=usage&org_id={ORG}",
    f"/admin/keys/{KEY}",
    f"/admin/limit?org_id={ORG}",
    "/admin/plans?limit=50",
    "/admin/credits/transactions?hours=720&limit=50",
    "/admin/credits/transactions?hours=720&limit=50&kind=grant",
    "/admin/credits/transactions?hours=720&limit=50&debit=funding",
    f"/admin/credits/transactions?hours=720&limit=50&org_id={ORG}",
    f"/admin/credits/transactions?hours=720&limit=50&org_id={ORG}&kind=grant",
    f"/admin/orgs/{ORG}/upstream-keys",
    "/admin/cache?days=30",
    "/admin/models/aliases?limit=50",
    "/admin/models/registry?limit=50",
    "/admin/upstreams?limit=50",
    "/admin/security-events?limit=50",
    "/admin/audit-logs?hours=720&limit=50",
    f"/admin/audit-logs?hours=720&limit=50&org_id={ORG}",
    "/auth/sessions?everyone=true&limit=50",
    "/admin/system/database",
]
OF_OWNERS = [
    "/user/api-keys?limit=50&include=usage",
    "/user/monitor",
    "/user/api-keys/audit-logs?hours=720&limit=50",
    *(f"/user/overview?hours={hours}" for hours in HOURS),
    *(f"/user/usage?hours={hours}&limit=50" for hours in HOURS),
    *(f"/user/transactions?hours={hours}&limit=50" for hours in HOURS),
]


def of_periods() -> list[str]:
    """What operators see of the usage, for each period that a page offers."""
    found = []
    for hours in HOURS:
        bucket = "hour" if hours <= 72 else "day"
        period = f"hours={hours}"
        found += [
            f"/admin/overview?{period}",
            f"/admin/usage?{period}&limit=50",
            f"/admin/usage?{period}&limit=50&org_id={ORG}",
            f"/admin/usage?{period}&limit=50&status=5xx",
            f"/admin/usage/latency/series?{period}&bucket={bucket}",
            f"/admin/usage/latency/series?{period}&bucket=day&org_id={ORG}",
            f"/admin/usage/latency/series?{period}&bucket=day&key_id={KEY}",
            f"/admin/usage/latency/series?{period}&bucket=day&org_id={ORG}&model={MODEL}",
            f"/admin/usage/aggregate?{period}&by=model&org_id={ORG}&limit=50",
        ]
        of_whom = ("", f"&org_id={ORG}", f"&model={MODEL}", "&upstream=openrouter")
        found += [
            f"/admin/usage/series?{period}&bucket={bucket}&by={by}{whose}"
            for by, whose in product(("model", "org", "key", "user", "upstream"), of_whom)
        ]
    return found


async def measure_pages(url: str, looks: int) -> bool:
    """Whether every page has its data within a second. Prints the database's CPU as well: the machine may be busy."""
    connection = await asyncpg.connect(url)
    requests = await connection.fetchval(REQUESTS, ORG)
    server = _server(await connection.fetchval("select pg_backend_pid()"))
    await connection.close()
    door = PostgresDoor(url, pool_size=4, deadline_seconds=DEADLINE_SECONDS)
    found: list[Found] = []
    async with asking(door) as (admin, owner):
        asked = [(admin, path) for path in of_periods() + OF_OPERATORS]
        asked += [(admin, f"/admin/usage/{one}") for one in requests]
        asked += [(owner, path) for path in OF_OWNERS + [f"/user/usage/{one}" for one in requests]]
        for ask, path in asked:
            before = _cpu_ms(server)
            found.append(await look(path, PROMISED_MS, partial(ask, path), looks))
            print(f"  {(_cpu_ms(server) - before) / looks:.0f} ms of the database's CPU each", flush=True)
    await door.close()
    late = [one for one in found if not one.kept()]
    print(*late, f"{len(found)} looks, {len(late)} of them too slow", sep="\n")
    return not late


def _server(backend: int) -> int:
    """The process that started this one: the database must be on this machine."""
    return int(_stat(backend)[1])


def _cpu_ms(server: int) -> float:
    """What the server and all its processes have used, those that have ended included."""
    ticks = sum(int(ticks) for ticks in _stat(server)[11:15])
    for process in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        ticks += sum(int(ticks) for ticks in _stat(int(process))[11:13])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _stat(process: int) -> list[str]:
    """Its state and what follows, as proc(5) lists it."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
