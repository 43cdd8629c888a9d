"""The table of faults names tests that are there, and leaves no fault out."""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "reference" / "faults.md"
FAULTS = range(1, 91)
REQUIREMENTS = range(1, 28)
ATTACKS = range(1, 79)

NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
EXCUSE = re.compile(r"\b(?:Later|By `make check`): \S+ \S+")


def rows() -> dict[str, str]:
    """What stands behind each number."""
    found = re.findall(r"^\| ([RA]?\d+) \|(.*)\|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == len(dict(found)), "a number stands twice"
    return dict(found)


@functools.cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_every_fault_requirement_and_attack_has_a_row() -> None:
    requirements, attacks = (f"R{number}" for number in REQUIREMENTS), (f"A{number}" for number in ATTACKS)
    assert list(rows()) == [*map(str, FAULTS), *requirements, *attacks]


def test_every_row_is_proven_or_says_why_not_yet() -> None:
    for number, row in rows().items():
        assert NAMED.search(row) or EXCUSE.search(row), number


def test_every_test_that_is_named_is_there() -> None:
    named = {(file, test) for row in rows().values() for file, test in NAMED.findall(row)}
    assert len(named) > 100
    missing = [f"{file}::{test}" for file, test in sorted(named) if test not in functions_of(file)]
    assert missing == []


def test_whatever_looks_like_a_test_is_one() -> None:
    """Else a name that is misspelled would not be looked for."""
    written = TABLE.read_text(encoding="utf-8")
    assert written.count("::") == len(NAMED.findall(written))
