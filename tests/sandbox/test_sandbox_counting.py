"""Tokens, prices and numbers: exact to the last digit."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.serving import exact
from tollgate.sandbox import tokens
from tollgate.sandbox.billing import bill
from tollgate.sandbox.encoding import NotJson, decode, encode, number, utf8
from tollgate.sandbox.faults import Faults, parse
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.prices import Pricing, UnusablePrice, Used, dollars, nanos, picos

PRICES = st.decimals(0, "0.01", places=12).map(lambda price: format(price, "f"))
COUNTS = st.integers(0, 10**9)
ANY_TEXT = st.text(st.characters(codec=None))


@st.composite
def usages(draw: st.DrawFn) -> Used:
    prompt = draw(COUNTS)
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return Used(prompt, draw(COUNTS), 0, cached, written, draw(st.integers(0, 20)))


@given(PRICES, PRICES, PRICES, PRICES, PRICES, PRICES, usages())
def test_a_cost_is_the_exact_sum_of_tokens_times_price(
    prompt: str, completion: str, request: str, image: str, read: str, write: str, used: Used
) -> None:
    pricing = Pricing(
        {
            "prompt": prompt,
            "completion": completion,
            "request": request,
            "image": image,
            "input_cache_read": read,
            "input_cache_write": write,
        }
    )
    plain = used.prompt - used.cached - used.written
    expected = (
        plain * Fraction(prompt)
        + used.cached * Fraction(read)
        + used.written * Fraction(write)
        + used.completion * Fraction(completion)
        + used.images * Fraction(image)
        + Fraction(request)
    )
    total = pricing.cost(used).total
    assert Fraction(total, 10**12) == expected == Fraction(dollars(total))
    assert nanos(total) == ceil(expected * 10**9)


@given(COUNTS, COUNTS)
def test_the_ledgers_nanos_are_the_decimals_for_whole_nano_prices(prompt: int, completion: int) -> None:
    echo = MODELS[0].pricing
    with localcontext(prec=60):
        by_decimal = prompt * Decimal(echo.shown["prompt"]) + completion * Decimal(echo.shown["completion"])
        assert Decimal(nanos(echo.cost(Used(prompt, completion)).total)) == by_decimal * 10**9


@given(st.integers(0, 10**18))
def test_a_number_in_json_has_exactly_the_digits_of_the_cost(of_picos: int) -> None:
    written = number(dollars(of_picos))
    assert Fraction(exact(written)) == Fraction(of_picos, 10**12)
    assert json.loads(written) == float(Fraction(of_picos, 10**12))


@pytest.mark.parametrize(
    ("of_picos", "written"),
    [
        (0, "0"),
        (3_300_000, "0.0000033"),
        (330_000, "3.3e-7"),
        (10**12, "1"),
        (10**14, "100"),
        (-7_000_000, "-0.000007"),
        (37_500, "3.75e-8"),
    ],
)
def test_a_number_is_written_as_javascript_writes_it(of_picos: int, written: str) -> None:
    assert number(dollars(of_picos)) == written


def test_a_price_finer_than_a_picodollar_is_refused() -> None:
    with pytest.raises(UnusablePrice):
        picos("0.0000000000001")


@pytest.mark.parametrize(("tokens_before", "price"), [(1000, 1_000_000), (1001, 2_000_000)])
def test_an_override_applies_strictly_above_its_threshold(tokens_before: int, price: int) -> None:
    (long,) = [model for model in MODELS if model.id == "sandbox/long-context"]
    assert long.pricing.cost(Used(tokens_before)).total == tokens_before * price


@given(COUNTS, COUNTS)
def test_ones_own_provider_key_costs_a_fee_on_top(prompt: int, completion: int) -> None:
    billed = bill(MODELS[0].pricing, Used(prompt, completion), parse("byok"))
    assert billed.cost == ceil(Fraction(billed.upstream.total, 20))
    assert billed.owed == billed.cost + billed.upstream.total


@given(COUNTS)
def test_ordinarily_the_upstreams_cost_is_the_cost(prompt: int) -> None:
    billed = bill(MODELS[0].pricing, Used(prompt), Faults())
    assert billed.cost == billed.upstream.total == billed.owed


@given(ANY_TEXT)
def test_tokens_together_are_the_text(text: str) -> None:
    pieces = tokens.split(text)
    assert "".join(pieces) == text
    assert all(0 < tokens.size(piece) <= tokens.BYTES_PER_TOKEN for piece in pieces)


@given(st.text(st.characters(codec="ascii")))
def test_ascii_counts_the_same_said_or_read(text: str) -> None:
    assert len(tokens.split(text)) == tokens.count(text)


@pytest.mark.parametrize(("text", "counted"), [("", 4), ("a", 5), ("four", 5), ("fives", 6), ("ü" * 2, 5), ("漢", 5)])
def test_a_message_costs_four_tokens_and_one_for_every_four_bytes(text: str, counted: int) -> None:
    assert tokens.of_message(text) == counted


@given(ANY_TEXT)
def test_any_text_survives_json_and_utf8(text: str) -> None:
    assert decode(utf8(encode({"text": text})))["text"] == text


ODD = {
    "empty": b"",
    "open": b"{",
    "not UTF-8": b"\xff",
    "NaN": b'{"a": NaN}',
    "deep": b"[" * 100_000,
    "long number": b"1" * 5000,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_is_not_json_is_refused(odd: bytes) -> None:
    with pytest.raises(NotJson):
        decode(odd)
