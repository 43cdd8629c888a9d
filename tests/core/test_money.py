from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollgate.core.money import NANOS_PER_CREDIT, credits_text, to_credits, with_credits

BIGINT = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("nanos", "read"),
    [(0, 0.0), (1, 1e-9), (NANOS_PER_CREDIT, 1.0), (5_000_000_000, 5.0), (-1_500_000_000, -1.5), (10_000, 0.00001)],
)
def test_a_credit_is_a_thousand_million_nanos(nanos: int, read: float) -> None:
    assert to_credits(nanos) == read


@given(nanos=st.integers(-(2**52), 2**52))
@example(nanos=123_456_789_012_345)
def test_what_people_read_is_exact_to_the_nano_up_to_four_million_credits(nanos: int) -> None:
    assert round(Decimal(to_credits(nanos)) * NANOS_PER_CREDIT) == nanos


@given(one=BIGINT, other=BIGINT)
def test_more_money_never_reads_as_less(one: int, other: int) -> None:
    assert to_credits(min(one, other)) <= to_credits(max(one, other))


@given(nanos=BIGINT)
def test_a_debt_reads_as_the_negative_of_the_same_credit(nanos: int) -> None:
    assert to_credits(-nanos) == -to_credits(nanos)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, "0.000000000"), (10**9, "1.000000000"), (123_456_789_012, "123.456789012"), (-1, "-0.000000001")],
)
def test_credits_are_written_to_the_last_nano(nanos: int, text: str) -> None:
    assert credits_text(nanos) == text


@given(nanos=BIGINT)
def test_written_credits_are_exact(nanos: int) -> None:
    assert Decimal(credits_text(nanos)) * NANOS_PER_CREDIT == nanos


def test_each_amount_in_nanos_has_its_twin_in_credits() -> None:
    amounts = {"credits_nanos": 5 * 10**8, "cost_nanos": None, "requests": 7}
    assert with_credits(amounts) == amounts | {"credits": 0.5, "cost_credits": None}
