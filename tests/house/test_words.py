"""What the repository says of itself is true, and nothing in it speaks of the machine it was made on."""

import re
import subprocess
from pathlib import Path

import pytest

from tollgate.core import prices
from tollgate.core.errors import tree
from tollgate.core.extras.register import REGISTER

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_path_of_a_machine_is_committed() -> None:
    private = re.compile(r"/(?:work|root|home/\w+|Users)/")
    for file in tracked():
        if file.suffix in {".lock", ".png"}:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not private.search(line), f"{file.relative_to(ROOT)}:{number}: {line.strip()}"


def test_every_error_a_database_function_refuses_with_is_known() -> None:
    known = {error.code: error.status for error in tree()}
    refusals = re.compile(r"tollgate\.refus(?:e|al)\((\d{3}), '(\w+)'")
    found = [
        (int(status), code)
        for file in (ROOT / "supabase" / "schemas").rglob("*.sql")
        for status, code in refusals.findall(file.read_text())
    ]
    assert len(found) > 10
    for status, code in found:
        assert known.get(code) == status, f"{code} is refused with {status}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_links_lead_somewhere(page: str) -> None:
    start = ROOT / page
    for file in [start] if start.is_file() else sorted(start.rglob("*.md")):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.relative_to(ROOT)} links to {target}"


def test_the_page_on_extras_lists_the_register() -> None:
    page = (ROOT / "docs" / "how-to" / "price-extras.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w:-]+)` \| ([\d.]+) \|", page, re.MULTILINE)
    assert {name: prices.nanos(price) for name, price in listed} == {name: fee.nanos for name, fee in REGISTER.items()}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
