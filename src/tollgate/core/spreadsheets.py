"""Cells that a spreadsheet shows and never runs."""

import re

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet may run a text that starts with one of these, also after spaces."""
NEGATIVE_AMOUNT = re.compile(r"-\d+\.\d{2,9}", re.ASCII)


def as_text(cell: str) -> str:
    """The cell with an apostrophe before it if it would be run. A negative amount stays a number."""
    is_formula = cell.startswith(FORMULA_STARTS) or cell.lstrip().startswith(FORMULA_STARTS)
    return f"'{cell}" if is_formula and not NEGATIVE_AMOUNT.fullmatch(cell) else cell
