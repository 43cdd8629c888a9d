from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.extras.pricing import IMAGE_TOKENS, NO_EXTRAS
from tollgate.core.prices import Price, read
from tollgate.core.units import Units, delivered
from tollgate.credits.rules import (
    Nonsense,
    Usage,
    at_our_prices,
    at_the_hold,
    bill,
    charge_for,
    read_usage,
    worst_case,
    worst_case_of_units,
)

tokens = st.integers(0, 2_000_000)
unit = st.decimals(0, 10**15, allow_nan=False, places=21)
markups = st.integers(0, 10_000_000)
costs = st.decimals(0, 10**15, allow_nan=False, places=21)
prices = st.builds(
    lambda **parts: Price(**parts),
    prompt=unit, completion=unit, request=unit, image=unit, internal_reasoning=unit, input_cache_read=unit,
    input_cache_write=unit,
)  # fmt: skip
PLAIN = read({"prompt": "0.000001", "completion": "0.000002"})


@given(costs, markups)
def test_a_charge_loses_less_than_a_nano_and_never_in_our_disfavour(cost: Decimal, markup: int) -> None:
    exact = Fraction(cost) * (1_000_000 + markup) / 1_000_000
    assert exact <= charge_for(cost, markup) < exact + 1


@given(costs, costs, markups)
def test_a_dearer_cost_is_never_a_smaller_charge(one: Decimal, other: Decimal, markup: int) -> None:
    less, more = sorted((one, other))
    assert charge_for(less, markup) <= charge_for(more, markup)


@given(prices, tokens, tokens, markups)
def test_the_worst_case_covers_what_tokens_cost(price: Price, prompt: int, completion: int, markup: int) -> None:
    worst = worst_case(price, prompt_tokens=prompt)
    hold = charge_for(worst.with_output(completion), markup)
    usage = Usage(prompt, completion, None)
    assert bill(usage, price, markup_ppm=markup).charge_nanos <= hold


@given(prices, tokens, tokens, tokens, tokens)
def test_more_tokens_never_cost_less(price: Price, prompt: int, completion: int, more: int, still_more: int) -> None:
    less = bill(Usage(prompt, completion, None), price, markup_ppm=0)
    other = bill(Usage(prompt + more, completion + still_more, None), price, markup_ppm=0)
    assert 0 <= less.charge_nanos <= other.charge_nanos


def test_no_digit_of_a_worst_case_is_rounded_away() -> None:
    """The default decimal context keeps 28 digits, one less than this needs."""
    price = Price(request=Decimal("30517578125.000000000000000000001"))
    assert charge_for(worst_case(price, prompt_tokens=0).with_output(0), 0) == 30517578126


def test_the_worst_case_counts_every_priced_dimension() -> None:
    price = read(
        {
            "prompt": "0.000001",
            "completion": "0.000002",
            "request": "0.001",
            "image": "0.01",
            "internal_reasoning": "0.000005",
            "input_cache_write": "0.00000125",
        }
    )
    worst = worst_case(price, prompt_tokens=1000, images=2, choices=3)
    assert worst.fixed_nanos == 1000 * 1250 + 1_000_000 + 2 * 10_000_000
    assert worst.output_nanos == 3 * 5000


def test_openrouter_s_cost_is_the_cost() -> None:
    usage = read_usage(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "cost": Decimal("0.0000033"),
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": Decimal("0.0000033")},
        }
    )
    assert usage == Usage(10, 5, Decimal(3300))
    assert bill(usage, PLAIN, markup_ppm=50_000).charge_nanos == 3465


def test_what_the_vendor_bills_comes_on_top_only_with_one_s_own_key() -> None:
    usage = read_usage(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "cost": Decimal("0.00001"),
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": Decimal("0.0002")},
        }
    )
    assert usage is not None
    assert usage.cost_nanos == 210_000


@pytest.mark.parametrize("given", [None, {}])
def test_absent_usage_is_not_zero(given: Any) -> None:
    assert read_usage(given) is None


@pytest.mark.parametrize("cost", [0, "0", Decimal("0.0")])
def test_an_explicit_zero_is_zero(cost: Any) -> None:
    usage = read_usage({"prompt_tokens": 1000, "completion_tokens": 1000, "cost": cost})
    assert usage is not None
    assert bill(usage, PLAIN, markup_ppm=50_000).charge_nanos == 0


@pytest.mark.parametrize("given", [{"cost": None}, {}])
def test_tokens_without_a_cost_are_billed_at_the_listed_price(given: dict[str, Any]) -> None:
    usage = read_usage({"prompt_tokens": 10, "completion_tokens": 5, **given})
    assert usage is not None
    assert bill(usage, PLAIN, markup_ppm=0).cost_nanos == 10 * 1000 + 5 * 2000


CACHES = {
    "chat": {"prompt_tokens_details": {"cached_tokens": 40}},
    "responses": {"input_tokens_details": {"cached_tokens": 40}},
    "openrouter": {"prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10}},
    "messages": {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 10},
    "for 1h": {"cache_creation_input_tokens": 10, "cache_creation": {"ephemeral_1h_input_tokens": 8}},
    "beyond the prompt": {"cache_read_input_tokens": 900, "cache_creation_input_tokens": 900},
    "no numbers": {"cache_read_input_tokens": "many", "prompt_tokens_details": [], "cache_creation": 5},
}
READ, WRITE, HOUR = "0.0000001", "0.00000125", "0.000002"


@pytest.mark.parametrize(
    ("stated", "prices", "prompt_nanos"),
    [
        ("chat", {"input_cache_read": READ}, 60 * 1000 + 40 * 100),
        ("responses", {"input_cache_read": READ}, 60 * 1000 + 40 * 100),
        ("openrouter", {"input_cache_read": READ, "input_cache_write": WRITE}, 60 * 1000 + 30 * 100 + 10 * 1250),
        ("messages", {"input_cache_read": READ, "input_cache_write": WRITE}, 60 * 1000 + 30 * 100 + 10 * 1250),
        ("messages", {}, 100 * 1000),
        ("for 1h", {"input_cache_write": WRITE, "input_cache_write_1h": HOUR}, 90 * 1000 + 2 * 1250 + 8 * 2000),
        ("for 1h", {"input_cache_write": WRITE}, 90 * 1000 + 10 * 1250),
        ("beyond the prompt", {"input_cache_read": READ}, 100 * 100),
        ("no numbers", {"input_cache_read": READ}, 100 * 1000),
    ],
)
def test_tokens_of_a_cache_have_its_price_where_that_is_listed(
    stated: str, prices: dict[str, str], prompt_nanos: int
) -> None:
    given = {"prompt_tokens": 100, "completion_tokens": 5, **CACHES[stated]}
    usage = read_usage(given)
    assert usage is not None
    price = read({"prompt": "0.000001", "completion": "0.000002", **prices})
    assert bill(at_our_prices(usage, given), price, markup_ppm=0).cost_nanos == prompt_nanos + 5 * 2000


@pytest.mark.parametrize(
    "given",
    [
        {"prompt_tokens": -1},
        {"completion_tokens": 10**12},
        {"prompt_tokens": "10"},
        {"prompt_tokens": True},
        {"prompt_tokens": Decimal("1.5")},
        {"cost": Decimal(-1)},
        {"cost": Decimal("NaN")},
        {"cost": Decimal("Infinity")},
        {"cost": "cheap"},
        {"cost": True},
        {"cost": 10**9},
        {"cost": 1, "is_byok": True, "cost_details": {"upstream_inference_cost": -1}},
    ],
)
def test_usage_that_cannot_be_true_is_nonsense(given: dict[str, Any]) -> None:
    with pytest.raises(Nonsense):
        read_usage({"prompt_tokens": 1, "completion_tokens": 1, **given})


def test_more_tokens_than_the_context_holds_are_nonsense() -> None:
    with pytest.raises(Nonsense):
        bill(Usage(900, 200, None), PLAIN, markup_ppm=0, context_tokens=1000)


def test_a_cost_of_many_holds_is_nonsense_and_one_above_the_hold_is_not() -> None:
    assert bill(Usage(1, 1, Decimal(9_000)), PLAIN, markup_ppm=0, most_nanos=10_000).charge_nanos == 9_000
    with pytest.raises(Nonsense):
        bill(Usage(1, 1, Decimal(10_001)), PLAIN, markup_ppm=0, most_nanos=10_000)


@given(st.integers(0, 10**15), markups)
def test_nonsense_is_charged_at_the_hold_and_flagged(hold: int, markup: int) -> None:
    quarantined = at_the_hold(hold, markup)
    assert quarantined.charge_nanos == hold
    assert quarantined.quarantined
    assert 0 <= quarantined.cost_nanos <= hold


UNITS = st.builds(
    Units,
    st.integers(0, 128),
    st.integers(0, 10**6),
    st.decimals(0, 10**6, places=3),
    st.integers(1, 1000),
    st.decimals(0, 10**6, places=3),
).filter(lambda units: units.likely_seconds <= units.seconds)
BY_UNITS = read(
    {
        "prompt": "0.000001",
        "completion": "0",
        "request": "0.002",
        "character": "0.000015",
        "second": "0.0001",
        "output_image": "0.04",
    }
)


@given(UNITS, tokens, markups, st.integers(0, 200), st.decimals(0, 10**7, places=3), st.integers(0, 2000))
def test_the_worst_case_covers_whatever_units_an_answer_states(
    asked: Units, prompt: int, markup: int, images: int, seconds: Decimal, searches: int
) -> None:
    worst = worst_case_of_units(BY_UNITS, asked, prompt_tokens=prompt)
    came = delivered(asked, {"seconds": seconds, "search_units": searches}, images)
    charge = bill(Usage(prompt, 0, None, came), BY_UNITS, markup_ppm=markup).charge_nanos
    assert charge <= charge_for(worst.with_output(0), markup)


def test_each_unit_is_billed_at_its_price() -> None:
    of = {
        Units(images=2): 80_000_000,
        Units(characters=100): 1_500_000,
        Units(seconds=Decimal("2.5")): 250_000,
        Units(requests=3): 6_000_000,
    }
    for units, cost in of.items():
        once = 0 if units.requests > 1 else 2_000_000
        assert bill(Usage(0, 0, None, units), BY_UNITS, markup_ppm=0).cost_nanos == cost + once


def test_what_was_not_made_is_held_and_not_due() -> None:
    worst = worst_case_of_units(BY_UNITS, Units(images=3), prompt_tokens=10)
    assert (worst.made_nanos, worst.fixed_nanos) == (120_000_000, 120_000_000 + 2_000_000 + 10_000)
    assert Units(images=3, characters=5).read == Units(characters=5)


@pytest.mark.parametrize(
    ("pricing", "nanos"),
    [
        ({"output_image": "0.04"}, 40_000_000),
        ({"image_output": "0.04"}, 40_000_000),
        ({"image_output": "0.00003"}, IMAGE_TOKENS * 30_000),
        ({"completion": "0.00001"}, IMAGE_TOKENS * 10_000),
    ],
)
def test_an_image_is_held_at_the_price_by_which_it_may_be_billed(pricing: dict[str, str], nanos: int) -> None:
    price = read({"prompt": "0", **pricing})
    assert worst_case_of_units(price, Units(images=1), prompt_tokens=0).made_nanos == nanos
    floor = NO_EXTRAS._replace(image_nanos=Decimal(10**9))
    assert worst_case_of_units(price, Units(images=2), prompt_tokens=0, added=floor).made_nanos == 2 * 10**9
