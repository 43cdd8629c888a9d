"""The rendered compliance report: names are data, never formulas or Markdown."""

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollgate.audit import compliance_report as report

TIME = "2026-01-01T00:00:00.000Z"


def a_report(name: str = "CI", **books: Any) -> dict[str, Any]:
    key = {"key_id": "key_1", "masked_key": "tg_live_abcd…wxyz", "name": name, "org_id": "org_1", "user_id": "usr_1"}
    admin = {
        "kind": "user",
        "id": "usr_1",
        "email": "a@example.com",
        "role": "admin",
        "status": "active",
        "org_id": "org_1",
    }
    return {
        "from": TIME, "to": "2026-02-01T00:00:00.000Z", "made_at": "2026-02-01T00:00:01.000Z",
        "keys": {
            "issued": 3, "rotated": 2, "disabled": 0, "revoked": 1, "usable": 2, "never_used": 1, "unused_90_days": 0,
            "unused": [{**key, "created_at": TIME, "last_used_at": None}],
        },
        "people": {
            "admins": 1, "actors": 2,
            "done": [
                {**admin, "actions": {"key.created": 2, "org.created": 1}, "refused": 0},
                {**dict.fromkeys(admin), "kind": "console", "id": "seed-key", "actions": {}, "refused": 4},
            ],
        },
        "access": {
            "keys": 1, "requests": 7,
            "used": [{**key, "requests": 7, "charge_nanos": 1, "last_request_at": TIME, "last_used_at": TIME}],
        },
        "money": {"in_nanos": 5_000_000_000, "out_nanos": 2_000_000_001, "margin_nanos": -1_500_000_000},
        "books": {
            "audited": True, "agree": True, "fault_count": 0, "faults": [], "orgs": 1, "transfers": 2, "requests": 3,
            "open_holds": 0, "reason": None, **books,
        },
    }  # fmt: skip


def cells(given: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    lines = list(csv.reader(io.StringIO(report.as_csv(given))))
    assert lines[0] == ["section", "item", "field", "value"]
    assert all(len(line) == 4 for line in lines)
    return {(section, item, field): value for section, item, field, value in lines[1:]}


def test_a_spreadsheet_gets_one_table_with_a_line_for_each_fact() -> None:
    found = cells(a_report())
    assert found["keys", "", "issued"] == "3"
    assert found["unused keys", "key_1", "last_used_at"] == ""
    assert found["people", "usr_1", "key.created"] == "2"
    assert found["people", "seed-key", "refused"] == "4"
    assert found["access", "key_1", "requests"] == "7"
    assert found["money", "", "margin_nanos"] == "-1500000000"
    assert found["money", "", "margin_credits"] == "-1.50"
    assert found["money", "", "out_credits"] == "2.000000001"
    assert found["books", "", "agree"] == "true"


def test_a_name_is_never_a_formula() -> None:
    assert cells(a_report("=HYPERLINK(1)"))["access", "key_1", "name"] == "'=HYPERLINK(1)"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_name_comes_through(name: str) -> None:
    lines = list(csv.reader(io.StringIO(report.as_csv(a_report(name)), newline="")))
    (shown,) = [line[3] for line in lines if line[:3] == ["access", "key_1", "name"]]
    assert shown in (name, f"'{name}")


def test_a_person_reads_headings_tables_and_a_verdict() -> None:
    page = report.as_markdown(a_report())
    assert page.startswith("# Compliance report\n\nFrom 2026-01-01T00:00:00.000Z until 2026-02-01")
    assert "| issued | 3 |" in page
    assert "| usr\\_1 | a@example.com | admin | key.created × 2, org.created × 1 | 0 |" in page
    assert "| seed-key | – | console | nothing | 4 |" in page
    assert "| margin | -1.50 |" in page
    assert "The books agree: 1 orgs, 2 transfers, 3 requests, 0 open holds." in page


def test_a_fault_in_the_books_is_said_loudly() -> None:
    fault = {"fault": "balance", "id": "org_1", "facts": {"balance_nanos": 5}}
    page = report.as_markdown(a_report(agree=False, fault_count=1, faults=[fault]))
    assert "**The books do not agree**: 1 faults" in page
    assert "| balance | org\\_1 |" in page
    assert cells(a_report(agree=False, fault_count=1, faults=[fault]))["faults", "org_1", "balance"]


def test_books_that_were_not_read_are_not_called_good() -> None:
    unread = a_report(audited=False, agree=None, fault_count=None, reason="Too many rows.")
    page = report.as_markdown(unread)
    assert "Not audited. Too many rows." in page
    assert "agree" not in page
    assert cells(unread)["books", "", "agree"] == ""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_name_breaks_out_of_its_cell(name: str) -> None:
    plain, page = report.as_markdown(a_report("x")), report.as_markdown(a_report(name))
    assert page.count("\n") == plain.count("\n")
    assert "<" not in page.replace("\\\\", "").replace("\\<", "")
    (line,) = [line for line in page.splitlines() if line.startswith("| key\\_1 ") and "org\\_1 | 7 |" in line]
    assert line.replace("\\\\", "").replace("\\|", "").count("|") == 7
