"""Makes the orgs that a benchmark spends from: migrated, each with a key, credits and all six windows.

    DATABASE_URL=… KEY_PEPPER=… python bench/prepare.py KEYS_FILE ORGS

KEYS_FILE gets a thousand secrets, those of the orgs in turn: with one org, a thousand times the same.
"""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from tollgate import settings
from tollgate.credits import store as credits
from tollgate.database import migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.keys import rules
from tollgate.keys import store as keys
from tollgate.keys.authentication import console

SECRETS = 1000
BALANCE_NANOS = 10**15
WINDOWS = "row(10000000, 100000000, 1000000000, 10000000000, 50000000000, 100000000000)::tollgate.limits"
"""Wider than any benchmark, but checked and taken all the same."""


async def orgs(number_of_orgs: int) -> list[str]:
    chosen = settings.read(os.environ)
    url = chosen.database_url.get_secret_value() if chosen.database_url else ""
    await migrations.migrate(url)
    door = PostgresDoor(url, pool_size=8, deadline_seconds=30)
    secrets = [await _org(door, chosen.peppers[0], number) for number in range(number_of_orgs)]
    await door.close()
    connection = await asyncpg.connect(url)
    await connection.execute(f"update tollgate.orgs set limits = {WINDOWS}")  # noqa: S608
    await connection.execute("vacuum analyze")
    await connection.close()
    return [secrets[number % number_of_orgs] for number in range(SECRETS)]


async def _org(door: PostgresDoor, pepper: str, number: int) -> str:
    secret = f"sk-bench-{number + 1:016d}"
    operator = console(door, "bench")
    org = {"id": f"org_bench{number}", "name": "Bench", "plan_id": "enterprise"}
    owner = {"id": f"usr_bench{number}", "email": f"{number}@bench.example", "name": "", "role": "member"}
    await keys.seed(operator, org, owner, rules.stored(secret, pepper, name="Bench", scopes=rules.MEMBER_SCOPES))
    await credits.grant(operator, org["id"], BALANCE_NANOS, source="funding", reason="", reference=org["id"])
    return secret


if __name__ == "__main__":
    file, wanted = sys.argv[1:]
    Path(file).write_text("".join(f"{secret}\n" for secret in asyncio.run(orgs(int(wanted)))))
