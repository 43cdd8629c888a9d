"""`python -m tollgate audit`, as an operator runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

UNBALANCED = "insert into tollgate.orgs (id, name, balance_nanos) values ('org_wrong', 'Wrong', 5)"


@pytest.fixture
def audit(own_database: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": own_database}
        command = [sys.executable, "-m", "tollgate", "audit", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_books_that_agree_are_said_to(audit: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    audited = audit()
    assert audited.returncode == 0
    assert audited.stdout == "The books agree: 0 orgs, 0 transfers, 0 requests, 0 holds open.\n"


async def test_books_that_do_not_agree_end_with_one_and_name_the_row(
    audit: Callable[..., subprocess.CompletedProcess[str]], own_database: str, sql: Callable[..., Any]
) -> None:
    await sql(own_database, UNBALANCED)
    audited = audit()
    assert audited.returncode == 1
    assert 'balance org_wrong: {"transfers": 0, "balance_nanos": 5}' in audited.stdout
    assert audited.stderr == "tollgate: 1 rows of the books do not agree\n"


async def test_the_report_is_json_when_asked_for(
    audit: Callable[..., subprocess.CompletedProcess[str]], own_database: str, sql: Callable[..., Any]
) -> None:
    assert json.loads(audit("--json").stdout)["faults"] == []
    await sql(own_database, UNBALANCED)
    audited = audit("--json")
    assert audited.returncode == 1
    assert [fault["id"] for fault in json.loads(audited.stdout)["faults"]] == ["org_wrong"]
