from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.money import NANOS_PER_CREDIT, credits_text, with_credits

BIGINT = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"), (5 * 10**9, "5.00"), (4_999_996_000, "4.999996"), (10_500, "0.0000105"),
        (-500_000_000, "-0.50"), (123_456_789_012, "123.456789012"), (-1, "-0.000000001"),
    ],
)  # fmt: skip
def test_credits_are_written_without_zeros_beyond_two_places(nanos: int, text: str) -> None:
    assert credits_text(nanos) == text


@given(nanos=BIGINT)
def test_written_credits_are_exact(nanos: int) -> None:
    assert Decimal(credits_text(nanos)) * NANOS_PER_CREDIT == nanos


def test_each_amount_in_nanos_has_its_twin_in_credits() -> None:
    amounts = {"credits_nanos": 5 * 10**8, "cost_nanos": None, "requests": 7}
    assert with_credits(amounts) == amounts | {"credits": "0.50", "cost_credits": None}
