"""Renders the compliance report as CSV and as Markdown.

Names and emails are chosen by users, so a spreadsheet must not run them and Markdown must not render them.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tollgate.core.money import credits_text
from tollgate.core.spreadsheets import as_text

Report = Mapping[str, Any]
Cell = str | int | None
Row = tuple[str, Cell, str, Cell]
"""Section, item, field and value."""

COLUMNS = ("section", "item", "field", "value")
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")
NANOS = "_nanos"


def as_csv(report: Report) -> str:
    """One table with a line for each value."""
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    writer.writerows([as_text(cell) if isinstance(cell, str) else cell for cell in line] for line in _lines(report))
    return written.getvalue()


def as_markdown(report: Report) -> str:
    sections = {
        "Keys": _keys(report["keys"]),
        "Operators and their actions": _people(report["people"]),
        "Access by key": _access(report["access"]),
        "Money, in credits": _money(report["money"]),
        "The books": _books(report["books"]),
    }
    head = f"# Compliance report\n\nFrom {report['from']} until {report['to']}, made at {report['made_at']}.\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())


def _lines(report: Report) -> Iterator[Row]:
    yield from (("report", None, name, report[name]) for name in ("from", "to", "made_at"))
    yield from (("keys", None, name, count) for name, count in report["keys"].items() if name != "unused")
    yield from _items("unused keys", report["keys"]["unused"], "key_id")
    yield ("people", None, "admins", report["people"]["admins"])
    for person in report["people"]["done"]:
        yield from _items("people", [{name: what for name, what in person.items() if name != "actions"}], "id")
        yield from (("people", person["id"], action, times) for action, times in person["actions"].items())
    yield from (("access", None, name, report["access"][name]) for name in ("keys", "requests"))
    yield from _items("access", report["access"]["used"], "key_id")
    for name, nanos in report["money"].items():
        yield ("money", None, name, nanos)
        yield ("money", None, name.replace(NANOS, "_credits"), credits_text(nanos))
    books = report["books"]
    yield from (("books", None, name, _plain(what)) for name, what in books.items() if name != "faults")
    yield from (("faults", fault["id"], fault["fault"], str(fault["facts"])) for fault in books["faults"])


def _items(section: str, items: Iterable[Mapping[str, Any]], id_name: str) -> Iterator[Row]:
    for item in items:
        yield from ((section, item[id_name], name, what) for name, what in item.items() if name != id_name)


def _plain(what: Any) -> Cell:
    return str(what).lower() if isinstance(what, bool) else what


def _keys(keys: Mapping[str, Any]) -> str:
    counts = [(_words(name), count) for name, count in keys.items() if name != "unused"]
    columns = ("key_id", "name", "org_id", "user_id", "created_at", "last_used_at")
    return f"{_table(('', 'keys'), counts)}\n\n### Unused\n\n{_listed(columns, keys['unused'])}"


def _people(people: Mapping[str, Any]) -> str:
    done = [{**who, "role": who["role"] or who["kind"], "did": _did(who["actions"])} for who in people["done"]]
    columns = ("id", "email", "role", "did", "refused")
    return f"Active operators: {people['admins']}.\n\n{_listed(columns, done)}"


def _access(access: Mapping[str, Any]) -> str:
    used = [{**use, "charged": credits_text(use["charge_nanos"])} for use in access["used"]]
    columns = ("key_id", "name", "org_id", "requests", "charged", "last_request_at")
    return f"{access['requests']} requests by {access['keys']} keys.\n\n{_listed(columns, used)}"


def _money(money: Mapping[str, int]) -> str:
    return _table(("", "credits"), [(_words(name), credits_text(nanos)) for name, nanos in money.items()])


def _books(books: Mapping[str, Any]) -> str:
    if not books["audited"]:
        return f"Not audited. {books['reason']}"
    counted = f"{books['orgs']} orgs, {books['transfers']} transfers, {books['requests']} requests"
    if books["agree"]:
        return f"The books agree: {counted}, {books['open_holds']} open holds."
    listed = _listed(("fault", "id", "facts"), books["faults"])
    return f"**The books do not agree**: {books['fault_count']} faults in {counted}.\n\n{listed}"


def _listed(columns: Sequence[str], items: Iterable[Mapping[str, Any]]) -> str:
    return _table([_words(name) for name in columns], [[item[name] for name in columns] for item in items])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return "None."
    lines = [head, ["---"] * len(head), *([_shown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(cell: Any) -> str:
    return MARKUP.sub(r"\\\1", " ".join(str("–" if cell is None else cell).split()))


def _words(name: str) -> str:
    return name.removesuffix(NANOS).removesuffix("_id").removesuffix("_at").replace("_", " ")


def _did(actions: Mapping[str, int]) -> str:
    return ", ".join(f"{action} × {times}" for action, times in sorted(actions.items())) or "nothing"
