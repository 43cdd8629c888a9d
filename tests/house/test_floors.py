"""The floors hold, and would be seen to break."""

import re
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
        ("account/routes/keys.py", "import tollgate.admin.routes"),
        ("health/store.py", "import tollgate.app"),
        ("keys/rules.py", "import time"),
        ("core/money.py", "import os"),
        ("health/rules.py", "import httpx"),
        ("keys/store.py", "import tollgate.keys.authentication"),
        ("admin/schemas/orgs.py", "import tollgate.admin.routes.orgs"),
        ("health/store.py", "import tollgate.health.routes"),
        ("sandbox/app.py", "import tollgate.process.clock"),
        ("app.py", "import tollgate.sandbox.app"),
        ("app.py", "import tollgate.agent.phases"),
        ("agent/tasks.py", "import tollgate.settings"),
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


KINDS = {"routes", "schemas", "store", "rules"}
"""Each a file, or a folder with a file for each noun."""
OF_NO_ROOM = {"core", "database", "process", "sandbox", "speech", "web"}
PLAIN_ENGLISH = {"authentication", "files", "openapi", "redis"}
"""Names that need no line in the glossary. Fewer than ten."""
WEASEL_WORDS = {"service", "services", "utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def glossary() -> set[str]:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    return {term.lower() for term in re.findall(r"\*\*([^*]+)\*\*", page)}


def is_defined(name: str, room: str) -> bool:
    """Whether the glossary has the word, or the word after the name of the room, in the singular or plural."""
    words = name.replace("_", " ")
    singular = re.sub(r"ies$", "y", words).removesuffix("s")
    return not {words, singular, f"{room.removesuffix('s')} {singular}"}.isdisjoint(glossary())


def rooms() -> list[Path]:
    package = ROOT / "src" / "tollgate"
    return sorted(path.parent for path in package.glob("*/__init__.py") if path.parent.name not in OF_NO_ROOM)


def test_a_file_of_a_room_is_of_a_known_kind_or_named_by_the_glossary() -> None:
    assert len(PLAIN_ENGLISH) < 10
    for room in rooms():
        names = {path.stem for path in room.iterdir()} - {"__init__", "__pycache__"}
        unknown = {name for name in names - KINDS - PLAIN_ENGLISH if not is_defined(name, room.name)}
        assert unknown == set(), room.name


@pytest.mark.parametrize("room", ["account", "admin"])
def test_schemas_have_the_nouns_of_their_routes(room: str) -> None:
    """Or fewer, where another room has them."""
    folder = ROOT / "src" / "tollgate" / room
    kinds = {kind: {file.name for file in (folder / kind).glob("*.py")} for kind in ("routes", "schemas")}
    assert len(kinds["routes"]) > 4
    assert kinds["schemas"] <= kinds["routes"] | {"pricing.py", "transfers.py"}


def test_no_file_has_a_name_that_says_nothing() -> None:
    for file in (ROOT / "src").rglob("*.py"):
        assert file.stem not in WEASEL_WORDS, file
