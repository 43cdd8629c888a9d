"""What a paid call may use and cost, and what is stored of its answer."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.completions import endings, replay, rules
from tollgate.core import request_body
from tollgate.core.extras import pricing
from tollgate.core.extras.pricing import NO_EXTRAS
from tollgate.core.extras.register import REGISTER
from tollgate.core.models import OPENROUTER, Model, Retirement, Route, Upstream
from tollgate.core.prices import read
from tollgate.core.sse import Tally

PRICE = read({"prompt": "0.000001", "completion": "0.000002"})
OPEN_ROUTER = Upstream(OPENROUTER, "openrouter", "https://openrouter.test/api/v1")
HERE = Route(Upstream("ups_ours", "vllm", "http://gpu.test/v1"), "ours", PRICE)


def an_ask(**more: Any) -> request_body.Ask:
    body = {"model": "a/model", "messages": [{"role": "user", "content": "hello"}], **more}
    return request_body.read(json.dumps(body).encode(), "chat")


def a_model(*routes: Route) -> Model:
    return Model("a/model", routes)


KNOWN = a_model(Route(OPEN_ROUTER, "a/model", PRICE, context_tokens=8000, most_output=1000))
UNKNOWN = a_model(Route(OPEN_ROUTER, "a/model", PRICE))


def test_a_bound_goes_up_only_where_the_models_own_is_not_enough() -> None:
    sizes = rules.bounds(an_ask(), [KNOWN])
    assert (sizes.output, sizes.most_output, sizes.enforced) == (None, 1000, True)
    assert rules.bound_to_send(an_ask(), sizes, 1000) is None
    assert rules.bound_to_send(an_ask(), sizes, 999) == 999
    assert rules.bound_to_send(an_ask(max_tokens=500), sizes, 500) is None
    unknown = rules.bounds(an_ask(), [UNKNOWN])
    assert rules.bound_to_send(an_ask(), unknown, unknown.most_output) == rules.MOST_OUTPUT_UNKNOWN


def test_the_hold_covers_the_longest_of_all_models_that_may_answer() -> None:
    longer = a_model(Route(OPEN_ROUTER, "b/model", PRICE, context_tokens=32_000, most_output=4000))
    assert rules.bounds(an_ask(), [KNOWN, longer]).most_output == 4000
    assert rules.bounds(an_ask(), [KNOWN, UNKNOWN]).enforced is False
    assert rules.bounds(an_ask(max_tokens=10**9), [KNOWN]).output == 8000


def test_each_turn_of_a_loop_of_tools_reads_the_prompt_again_with_all_results_before_it() -> None:
    fetch = {"type": "openrouter:web_fetch", "parameters": {"max_content_tokens": 100}}
    asked = an_ask(tools=[fetch], max_tool_calls=3)
    added = pricing.worst_case(asked.extras, REGISTER, PRICE, {}, asked.choices)
    step, prompt = added.step_tokens, asked.prompt.tokens
    assert step >= 100
    assert rules.bounds(asked, [UNKNOWN], added).prompt_tokens == 4 * prompt + (1 + 2 + 3) * step


@given(st.integers(0, 2_000_000), st.integers(0, 200_000), st.integers(0, 10**7))
def test_a_bill_within_the_bounds_is_within_the_hold(prompt: int, completion: int, markup: int) -> None:
    """What the upstream can use at most, at the listed price, is never more than what was held."""
    ask = an_ask(max_tokens=max(completion, 1))
    sizes = rules.Bounds(
        prompt_tokens=prompt, limited_tokens=prompt, output=completion, most_output=10**6, enforced=True
    )
    worst = rules.worst_case(ask, sizes, PRICE)
    hold = rules.credits.charge_for(worst.with_output(completion), markup)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    tally = Tally()
    tally.take_plain({"usage": usage})
    granted = rules.Grant("org_1", (), PRICE, hold, markup, prompt_tokens=0, context_tokens=None)
    charge = endings.of_answer(tally, HERE, granted, None).charge_nanos
    assert charge is not None
    assert charge <= hold


def test_the_price_of_a_hold_is_kept_exactly() -> None:
    price = read({"prompt": "0.000000000000000000001", "completion": "0.000002", "request": "0.1"})
    worst = rules.worst_case(an_ask(), rules.bounds(an_ask(), [KNOWN]), price)
    kept = rules.kept_price(worst, rules.kept_components(price))
    assert {name: Decimal(value) for name, value in kept.items()} == {
        "fixed_nanos": worst.fixed_nanos,
        "output_nanos": worst.output_nanos,
        "prompt": price.prompt,
        "completion": price.completion,
        "request": price.request,
    }


def test_openrouter_comes_once_and_is_told_only_the_names_it_knows() -> None:
    ours, both = Model("ours", (HERE,)), Model("b/model", (HERE, Route(OPEN_ROUTER, "b/model", PRICE)))
    assert rules.routes_of([KNOWN, ours, both]) == (KNOWN.routes[0], HERE, HERE)
    ask, listing = an_ask(), an_ask(models=["an/alias"])
    assert rules.openrouter_models([KNOWN, ours, both], ask) == ("a/model", "b/model")
    assert rules.openrouter_models([KNOWN, both], ask) == ()
    assert rules.openrouter_models([ours, ours], ask) == ()
    assert rules.openrouter_models([KNOWN, both], ask, by_alias=True) == ("a/model", "b/model")
    assert rules.openrouter_models([KNOWN, ours], ask, by_alias=True) == ()
    for models in ([KNOWN], [KNOWN, ours]):
        assert rules.openrouter_models(models, listing, by_alias=True) == ("a/model",), "no alias goes to OpenRouter"


@given(st.integers(200, 599), st.sampled_from(["application/json", "text/event-stream"]), st.binary(max_size=2000))
def test_an_answer_is_kept_as_it_was(status: int, content_type: str, body: bytes) -> None:
    kept = json.loads(json.dumps(replay.stored(status, content_type, body)))
    made = replay.response(kept | {"request_id": "req_1"})
    assert (made.status_code, made.headers["content-type"], made.body) == (status, content_type, body)


def test_an_answer_too_large_is_not_kept() -> None:
    assert replay.stored(200, "application/json", bytes(replay.MOST_STORED_BYTES))["kept"]
    assert replay.stored(200, "application/json", bytes(replay.MOST_STORED_BYTES + 1)) == {"kept": False}


def test_what_a_lost_call_is_charged_leaves_out_the_images_that_nobody_saw() -> None:
    price = read({"prompt": "0.000001", "output_image": "0.04"})
    body = json.dumps({"model": "a/model", "prompt": "x", "n": 3}).encode()
    ask = request_body.read(body, "images")
    model = a_model(Route(OPEN_ROUTER, "a/model", price))
    sizes = rules.bounds(ask, [model])
    added = rules.with_floor(ask, [model], NO_EXTRAS, REGISTER)
    worst = rules.worst_case(ask, sizes, price, added)
    assert worst.made_nanos == 3 * REGISTER["output:image"].nanos
    assert Decimal(rules.kept_price(worst, rules.kept_components(price))["fixed_nanos"]) == sizes.prompt_tokens * 1000
    ours = a_model(HERE)
    assert rules.with_floor(ask, [ours], NO_EXTRAS, REGISTER) is NO_EXTRAS


def test_a_query_is_counted_with_each_document() -> None:
    def tokens(documents: int, query: str) -> int:
        body = {"model": "a/model", "query": query, "documents": ["a"] * documents}
        return request_body.read(json.dumps(body).encode(), "rerank").prompt.tokens

    assert tokens(10, "ABCDEFGH") - tokens(10, "A") == (10 + 1) * 7


def test_the_end_of_a_model_is_told_as_the_rfcs_write_it() -> None:
    told = rules.notices(Retirement("2026-01-02", "2026-11-30", "a/next"))
    assert told == {
        "deprecation": "@1767312000",
        "sunset": "Tue, 01 Dec 2026 00:00:00 GMT",
        "x-tollgate-replacement": "a/next",
    }
    assert rules.notices(Retirement(retires_on="9999-12-31", replacement="次")) == {}
    assert rules.notices(None) == {}


SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, None),
        ({"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "modalities"),
        ({"messages": [{"role": "user", "content": [SOUND]}]}, "messages"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
    ],
)
def test_what_a_vendor_bills_apart_is_known(asked: dict[str, Any], param: str | None) -> None:
    assert rules.is_billed_apart(an_ask(**asked)) == param
