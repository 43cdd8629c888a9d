"""docs/how-to/coming-from.md names only what is there."""

import json
import re
from pathlib import Path

import pytest

from tollgate.web import aliases

ROOT = Path(__file__).parents[2]
PATHS = json.loads((ROOT / "src" / "tollgate" / "openapi.json").read_text())["paths"]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "how-to" / "coming-from.md").read_text().splitlines()
    if line.startswith("| ") and line.count(" | ") == 2
]
OPERATION = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^` ]*)`")
ALIASED = [row for row in ROWS if row[2].startswith("alias")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_named_as_ours_is_in_the_openapi_document(row: list[str]) -> None:
    for method, path in OPERATION.findall(row[1]):
        assert method.lower() in PATHS.get(path, {}), (method, path)


@pytest.mark.parametrize("row", ALIASED, ids=lambda row: row[0])
def test_what_is_called_an_alias_is_one_of_the_path_beside_it(row: list[str]) -> None:
    ((_, theirs),) = OPERATION.findall(row[0])
    ((_, ours),) = OPERATION.findall(row[1])
    assert aliases.canonical(theirs) == ours
    assert ours in PATHS


def test_every_table_was_read() -> None:
    assert len(ROWS) > 80
    assert len(ALIASED) > 15
