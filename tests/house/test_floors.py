"""The floors hold, and would be seen to break."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).parent / "lint-imports"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache", "--config", str(folder / "pyproject.toml")],
        cwd=folder / "src",
        env={"PYTHONPATH": str(folder / "src"), "PATH": ""},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_floors_hold(copy: Path) -> None:
    linted = lint(copy)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("file", "breach"),
    [
        ("core/money.py", "import tollgate.process.clock"),
        ("process/clock.py", "import tollgate.keys.rules"),
        ("keys/rules.py", "import tollgate.audit.store"),
        ("credits/store.py", "import tollgate.audit.store"),
        ("account/store.py", "import tollgate.admin.routes"),
        ("health/store.py", "import tollgate.app"),
        ("keys/rules.py", "import time"),
        ("core/money.py", "import os"),
        ("health/rules.py", "import httpx"),
        ("keys/store.py", "import tollgate.keys.authentication"),
        ("account/store.py", "import tollgate.account.routes"),
        ("sandbox/app.py", "import tollgate.process.clock"),
        ("app.py", "import tollgate.sandbox.app"),
        ("newcomer/__init__.py", "import tollgate.core.money"),
    ],
)
def test_a_planted_breach_is_found(copy: Path, file: str, breach: str) -> None:
    planted = copy / "src" / "tollgate" / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"{breach}\n{planted.read_text() if planted.exists() else ''}")
    linted = lint(copy)
    assert linted.returncode != 0
    assert "BROKEN" in linted.stdout or "newcomer" in linted.stdout, linted.stdout


ROOM_FILES = {"__init__.py", "routes.py", "schemas.py", "store.py", "rules.py"}
NOUNS = {
    "keys": {"authentication.py", "shown.py"},
    "audit": {"chain_heads.py", "report.py", "security_counters.py", "security_reporter.py"},
    "usage": {"answered.py", "asked.py", "counted.py", "export.py", "monitor.py"},
    "account": {"keys.py", "monitor.py", "profile.py", "transactions.py", "usage.py"},
    "admin": {
        "audit.py",
        "compliance.py",
        "credit_forms.py",
        "credits.py",
        "funds.py",
        "keys.py",
        "limits.py",
        "metrics.py",
        "models.py",
        "monitor.py",
        "monitor_forms.py",
        "orgs.py",
        "plans.py",
        "pricing.py",
        "registry.py",
        "security.py",
        "system.py",
        "transfers.py",
        "upkeep.py",
        "upstream_forms.py",
        "upstreams.py",
        "usage.py",
        "users.py",
        "visibility.py",
    },
    "health": {"checks.py", "redis.py"},
    "catalog": {"cache.py", "source.py", "entries.py", "index.py", "snapshot.py", "status.py"},
    "upstreams": {
        "client.py",
        "breaker.py",
        "address_guard.py",
        "health_checks.py",
        "key_variables.py",
        "org_shares.py",
    },
    "completions": {
        "admission.py",
        "content.py",
        "endings.py",
        "flow.py",
        "late_endings.py",
        "openapi.py",
        "paid_call.py",
        "plain.py",
        "relay.py",
        "replay.py",
        "settlements.py",
        "stream.py",
        "sweeper.py",
    },
}
NO_ROOM = {"core", "database", "process", "sandbox", "web"}
WEASEL_WORDS = {"service", "services", "utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def test_rooms_have_the_same_files_everywhere() -> None:
    package = ROOT / "src" / "tollgate"
    for room in (folder for folder in package.iterdir() if folder.is_dir() and folder.name not in NO_ROOM):
        files = {file.name for file in room.glob("*.py")}
        assert files <= ROOM_FILES | NOUNS.get(room.name, set()), room.name


def test_no_file_has_a_name_that_says_nothing() -> None:
    for file in (ROOT / "src").rglob("*.py"):
        assert file.stem not in WEASEL_WORDS, file
