import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.prices import COMPONENTS, UNITS, Price, UnitPrices, Unpriced, dearest, marked_up, nanos, read

price_strings = st.decimals(0, 1_000_000, allow_nan=False, places=30).map(str)
pricings = st.dictionaries(st.sampled_from(COMPONENTS), price_strings).map(lambda given: {"prompt": "0", **given})


@given(price_strings)
def test_a_price_string_becomes_nanos_exactly(text: str) -> None:
    assert Fraction(nanos(text)) == Fraction(text) * 10**9


def test_the_smallest_prices_survive() -> None:
    assert read({"prompt": "0.00000000005", "completion": "1e-12"}) == Price(
        prompt=Decimal("0.05"), completion=Decimal("0.001")
    )


@pytest.mark.parametrize(
    "price",
    ["-1", "-0.000001", "NaN", "Infinity", "-Infinity", "1e400", "1e-31", "2000000", "free", "", True, 0.1, [], {}],
)
def test_a_price_that_makes_no_sense_is_no_price(price: Any) -> None:
    with pytest.raises(Unpriced):
        read({"prompt": price, "completion": "0"})


def test_a_model_without_prices_is_unpriced_and_not_free() -> None:
    with pytest.raises(Unpriced):
        read({})


def test_a_component_that_is_null_costs_nothing() -> None:
    assert read({"prompt": "0.000001", "image": None}).image == 0


def test_a_long_prompt_is_priced_as_such_and_only_beyond_the_mark() -> None:
    price = read(
        {
            "prompt": "0.000001",
            "completion": "0.000002",
            "request": "0.01",
            "overrides": [{"min_prompt_tokens": 200000, "prompt": "0.000003"}],
        }
    )
    assert price.at_worst(200_000).prompt == 1000
    long = price.at_worst(200_001)
    assert (long.prompt, long.completion, long.request) == (3000, 2000, 10_000_000)


def test_an_override_by_the_hour_may_apply_at_any_time() -> None:
    price = read({"prompt": "1e-6", "overrides": [{"utc_start": "0800", "utc_end": "2000", "prompt": "2e-6"}]})
    assert price.at_worst(1).prompt == 2000


@pytest.mark.parametrize("tokens", [-1, "many", True, 1.5])
def test_an_override_that_makes_no_sense_unprices_the_model(tokens: Any) -> None:
    with pytest.raises(Unpriced):
        read({"prompt": "1e-6", "overrides": [{"min_prompt_tokens": tokens, "prompt": "2e-6"}]})


@given(st.lists(pricings, min_size=1, max_size=4))
def test_the_dearest_is_at_least_each_of_them(several: list[dict[str, str]]) -> None:
    prices = [read(pricing) for pricing in several]
    bound = dearest(prices)
    assert all(getattr(bound, name) >= getattr(price, name) for price in prices for name in COMPONENTS)
    assert all(any(getattr(bound, name) == getattr(price, name) for price in prices) for name in COMPONENTS)


@pytest.mark.parametrize("overrides", [5, "many", {"prompt": "1e-6"}, [5], [None], ["prompt"]])
def test_overrides_that_are_no_list_of_prices_unprice_the_model(overrides: Any) -> None:
    with pytest.raises(Unpriced):
        read({"prompt": "1e-6", "overrides": overrides})


@given(st.lists(st.tuples(pricings, pricings, st.integers(0, 1000)), min_size=1, max_size=4), st.integers(0, 1001))
def test_the_dearest_is_the_dearest_at_any_length_of_the_prompt(several: list[Any], tokens: int) -> None:
    prices = [read({**base, "overrides": [{**long, "min_prompt_tokens": mark}]}) for base, long, mark in several]
    at_worst = dearest(price.at_worst(tokens) for price in prices)
    assert dearest(prices).at_worst(tokens) == at_worst


@given(price_strings, st.integers(0, 100_000_000))
def test_a_markup_is_exact_and_written_plainly(text: str, ppm: int) -> None:
    shown = marked_up({"prompt": text}, ppm)["prompt"]
    assert Fraction(shown) == Fraction(text) * (1_000_000 + ppm) / 1_000_000
    assert Fraction(shown) >= Fraction(text)
    assert shown.replace(".", "", 1).isdigit()
    assert not ("." in shown and shown.endswith("0"))


@given(price_strings, price_strings, st.integers(0, 10**8), st.integers(0, 10**8))
def test_a_markup_keeps_the_order_of_prices(one: str, other: str, ppm: int, more: int) -> None:
    low, high = sorted((one, other), key=Fraction)
    shown = [marked_up({"prompt": text}, by)["prompt"] for text, by in ((low, ppm), (high, ppm), (high, ppm + more))]
    assert Fraction(shown[0]) <= Fraction(shown[1]) <= Fraction(shown[2])


def test_a_markup_is_on_every_price_and_on_nothing_else() -> None:
    pricing = {
        "prompt": "0.000001",
        "completion": Decimal("2e-6"),
        "request": 1,
        "image": "-0.0",
        "video_of_tomorrow": "0.5",
        "web_search": "-1",
        "audio": "free",
        "internal_reasoning": None,
        "discount": Decimal("0.25"),
        "overrides": [{"min_prompt_tokens": 1000, "utc_start": "0800", "prompt": "0.000002"}, "odd"],
    }
    assert marked_up(pricing, 100_000) == {
        "prompt": "0.0000011",
        "completion": "0.0000022",
        "request": "1.1",
        "image": "0",
        "video_of_tomorrow": "0.55",
        "web_search": "-1",
        "audio": "free",
        "internal_reasoning": None,
        "discount": Decimal("0.25"),
        "overrides": [{"min_prompt_tokens": 1000, "utc_start": "0800", "prompt": "0.0000022"}, "odd"],
    }


def test_a_number_of_a_json_answer_is_read_exactly() -> None:
    answer = json.loads('{"cost": 0.000003300000000000001}', parse_float=Decimal)
    assert nanos(answer["cost"]) == Decimal("3300.000000000001")


SPOKEN = {"prompt": "0", "completion": "0", "character": "0.000015", "second": "0.0001", "output_image": "0.04"}


def test_units_have_prices_and_a_model_without_them_has_none() -> None:
    assert read({"prompt": "0"}).units is None
    assert read(SPOKEN).units == UnitPrices(Decimal(15_000), Decimal(100_000), Decimal(40_000_000))
    assert read(SPOKEN).named() == dict(zip(UNITS, (15_000, 100_000, 40_000_000), strict=True))


def test_the_dearest_price_of_a_unit_applies_whether_by_a_route_or_by_an_override() -> None:
    dearer = {**SPOKEN, "second": "0", "overrides": [{"min_prompt_tokens": 0, "character": "0.00002"}]}
    bound = dearest([read({"prompt": "0.000001"}), read(SPOKEN), read(dearer)]).at_worst(10)
    assert bound.units == UnitPrices(Decimal(20_000), Decimal(100_000), Decimal(40_000_000))
    assert bound.prompt == 1000


def test_prices_of_units_are_marked_up_like_the_others() -> None:
    over = {**SPOKEN, "overrides": [{"min_prompt_tokens": 0, "character": "0.00002"}]}
    shown = marked_up(over, 500_000)
    assert (shown["character"], shown["output_image"]) == ("0.0000225", "0.06")
    assert shown["overrides"] == [{"min_prompt_tokens": 0, "character": "0.00003"}]


def test_the_price_of_a_character_is_the_one_that_is_named_so_or_openrouters_prompt() -> None:
    assert read(SPOKEN).of_character == 15_000
    assert read({"prompt": "0.00003"}).of_character == 30_000
