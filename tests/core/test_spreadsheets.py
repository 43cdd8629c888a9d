import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.spreadsheets import FORMULA_STARTS, as_text


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =", "\u00a0@", "\x0b+"]
)
def test_a_formula_becomes_a_text(start: str) -> None:
    assert as_text(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("cell", ["", "gpt-4o", "1=1", "-0.000000001", "-12.50"])
def test_other_texts_and_negative_amounts_stay_as_they_are(cell: str) -> None:
    assert as_text(cell) == cell


@pytest.mark.parametrize("cell", ["-1", "-1.5", "-1.0000000001", "-1.00+1", "-1.00\n", "-١.00"])
def test_only_an_amount_with_two_to_nine_places_may_begin_with_a_minus(cell: str) -> None:
    assert as_text(cell) == f"'{cell}"


@given(st.text(max_size=30))
def test_a_cell_comes_back_as_it_was_and_is_never_a_formula(text: str) -> None:
    cell = as_text(text)
    assert cell in (text, f"'{text}")
    assert cell == text or cell.startswith("'")
    assert not cell.lstrip().startswith(FORMULA_STARTS) or text[1:].replace(".", "").isdigit()
    line = io.StringIO(newline="")
    csv.writer(line).writerow([cell, "after"])
    assert next(csv.reader(io.StringIO(line.getvalue(), newline=""))) == [cell, "after"]
