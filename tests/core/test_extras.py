"""What the upstream bills beside tokens is priced before it goes up, or refused."""

import base64
import contextlib
import json
import zlib
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.completions import rules
from tollgate.core import request_body, strict_json
from tollgate.core.endpoints import Endpoint
from tollgate.core.errors import BadRequest, ExtraUnpriced
from tollgate.core.extras import edits, pricing, register
from tollgate.core.extras import pdf as counting
from tollgate.core.extras import requested as reader
from tollgate.core.extras.pricing import Added
from tollgate.core.extras.register import REGISTER
from tollgate.core.models import OPENROUTER, Model, Route, Upstream
from tollgate.core.money import EXACT
from tollgate.core.prices import Price, nanos
from tollgate.core.prices import read as read_price
from tollgate.core.request_body import Ask
from tollgate.sandbox import extras as vendor
from tollgate.sandbox import parameters as vendors_reading
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.prices import PICOS_PER_NANO, Pricing, Used

FREE = read_price({"prompt": "0", "completion": "0"})
SEARCH = {"type": "openrouter:web_search"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
HOME = Upstream(OPENROUTER, "openrouter", "https://openrouter.test/api/v1")


def body_of(**more: Any) -> bytes:
    chatting = {"model": "a/model:free", "messages": [{"role": "user", "content": "Hello"}]}
    return json.dumps(chatting | more).encode()


def ask(**more: Any) -> Ask:
    return request_body.read(body_of(**more), "chat")


def added(price: Price = FREE, helpers: dict[str, Price] | None = None, **more: Any) -> Added:
    asked = ask(**more)
    pricing.refuse_unpriced(asked.extras, REGISTER)
    return pricing.worst_case(asked.extras, REGISTER, price, helpers or {}, asked.choices)


def dollars(amount: str) -> Decimal:
    return nanos(amount)


def pdf(pages: int, *, packed: bool = False, name: bytes = b"/ObjStm") -> str:
    """As a plain or a packed file."""
    kids = b" ".join(b"%d 0 R" % (page + 3) for page in range(pages))
    tree = b"<</Type /Pages /Kids [%s] /Count %d>>" % (kids, pages)
    leaves = b"".join(b"<</Type /Page /Parent 2 0 R>>\n" for _ in range(pages))
    objects = tree + leaves
    if packed:
        objects = b"<</Type %s /N 3 /Filter /FlateDecode>>\nstream\n%s\nendstream" % (name, zlib.compress(objects))
    return "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.5\n" + objects).decode()


def reading(*payloads: str, engine: str | None = "mistral-ocr") -> dict[str, Any]:
    parts = [{"type": "file", "file": {"filename": "a.pdf", "file_data": payload}} for payload in payloads]
    return {
        "messages": [{"role": "user", "content": parts}],
        "plugins": [{"id": "file-parser", "pdf": {"engine": engine}}],
    }


@pytest.mark.parametrize(
    ("asked", "fees"),
    [
        ({}, "0"),
        ({"tools": [FUNCTION, {"type": "custom"}]}, "0"),
        ({"plugins": [{"id": "web", "engine": "exa"}]}, "0.007"),
        ({"plugins": [{"id": "web", "engine": "exa", "mode": "deep-lite"}]}, "0.012"),
        ({"plugins": [{"id": "web", "engine": "exa", "mode": "not a mode"}]}, "0.015"),
        ({"plugins": [{"id": "web", "engine": "exa", "max_results": 25}]}, "0.022"),
        ({"plugins": [{"id": "web", "engine": "parallel"}]}, "0.005"),
        ({"plugins": [{"id": "web", "engine": "perplexity"}]}, "0.005"),
        ({"plugins": [{"id": "web", "engine": "exa"}, {"id": "web", "engine": "exa"}]}, "0.014"),
        ({"plugins": [{"id": "web", "max_uses": 2}]}, "0.07"),
        ({"plugins": [{"id": "web", "enabled": False}]}, "0"),
        ({"plugins": [{"id": "anything", "enabled": False}]}, "0"),
        ({"plugins": [{"id": "response-healing"}, {"id": "context-compression"}]}, "0"),
        ({"web_search_options": {}}, "0.175"),
        ({"model": "a/model:free:online"}, "0.175"),
        ({"models": ["b/model:online"]}, "0.175"),
        ({"model": "a/model:online", "plugins": [{"id": "web", "engine": "exa"}]}, "0.007"),
        ({"tools": [{**SEARCH, "parameters": {"engine": "exa"}}]}, "0.035"),
        ({"tools": [{"type": "web_search_preview", "engine": "exa"}], "max_tool_calls": 2}, "0.014"),
        ({"tools": [{**SEARCH, "parameters": {"engine": "exa"}}], "max_tool_calls": 100}, "0.21"),
        ({"tools": [{"type": "openrouter:web_fetch"}], "max_tool_calls": 4}, "0.004"),
        ({"tools": [{"type": "openrouter:web_fetch"}, SEARCH], "max_tool_calls": 2}, "0.07"),
        ({"tools": [{"type": "openrouter:datetime"}]}, "0"),
        ({"plugins": [{"id": "web-fetch", "max_uses": 40}]}, "0.04"),
        ({"modalities": ["text", "image"], "n": 2}, "2.4"),
        (reading(pdf(7), engine=None), "0"),
        (reading(pdf(7), engine="cloudflare-ai"), "0"),
        ({"model": "perplexity/sonar"}, "0.175"),
    ],
)
def test_an_extra_has_a_price_of_its_own_whatever_the_model_costs(asked: dict[str, Any], fees: str) -> None:
    assert added(**asked).fees == dollars(fees)


@pytest.mark.parametrize(
    ("asked", "extra", "param"),
    [
        ({"tools": [{"type": "openrouter:shell"}]}, "tool:openrouter:shell", "tools"),
        ({"tools": [{"type": "openrouter:next_year"}]}, "tool:openrouter:next_year", "tools"),
        ({"tools": [{"type": "code_execution_20250825", "name": "x"}]}, "tool:code_execution_20250825", "tools"),
        ({"tools": [FUNCTION, {"type": "mcp", "server_url": "https://x.test"}]}, "tool:mcp", "tools"),
        ({"tools": [{"type": "openrouter:image_generation"}]}, "openai/gpt-5-image", "tools"),
        ({"plugins": [{"id": "fusion"}]}, "plugin:fusion", "plugins"),
        ({"plugins": [{"id": "web", "engine": "firecrawl"}]}, "search:firecrawl", "plugins"),
        ({"plugins": [{}]}, "plugin:None", "plugins"),
        (reading(pdf(1), engine="next-ocr"), "pdf:next-ocr", "plugins"),
        (reading("https://x.test/a.pdf"), "pdf:mistral-ocr", "plugins"),
        (reading(pdf(1), "file-123"), "pdf:mistral-ocr", "plugins"),
        ({"model": "@preset/support"}, "preset:support", "model"),
        ({"model": "a/model@preset/support"}, "preset:support", "model"),
        ({"preset": "support"}, "preset:support", "preset"),
        ({"service_tier": "priority"}, "tier:priority", "service_tier"),
        ({"model": "openrouter/fusion"}, "plugin:fusion", "model"),
    ],
)
def test_what_has_no_price_is_refused_by_name(asked: dict[str, Any], extra: str, param: str) -> None:
    with pytest.raises(ExtraUnpriced) as caught:
        added(**asked)
    assert (caught.value.facts["extra"], caught.value.param) == (extra, param)
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"plugins": [{"id": "web", "max_results": "many"}]}, "plugins"),
        ({"plugins": [{"id": "web", "max_results": 0}]}, "plugins"),
        ({"plugins": [{"id": "web", "engine": ["exa"]}]}, "plugins"),
        ({"plugins": [{"id": "file-parser", "pdf": "mistral-ocr"}]}, "plugins"),
        ({"tools": [{"type": 7}]}, "tools"),
        ({"tools": [{**SEARCH, "parameters": []}]}, "tools"),
        ({"tools": [SEARCH], "max_tool_calls": -1}, "max_tool_calls"),
        ({"tools": [SEARCH], "stop_server_tools_when": [{"type": "max_cost", "max_cost_in_dollars": 9}]},
         "stop_server_tools_when"),
        ({"tools": [SEARCH], "stop_server_tools_when": []}, "stop_server_tools_when"),
        ({"tool_choice": {"type": "openrouter:web_search"}}, "tool_choice"),
        ({"web_search_options": True}, "web_search_options"),
    ],
)  # fmt: skip
def test_what_cannot_be_bounded_is_refused_by_the_name_of_its_field(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ask(**asked)
    assert caught.value.param == param


@pytest.mark.parametrize("more", [{"temperature": 1}, {"brand_new": [1]}, {"service_tier": "flex"}, {"plugins": None}])
def test_parameters_that_cost_nothing_pass(more: dict[str, Any]) -> None:
    assert added(**more) == Added()


def test_a_models_own_price_of_a_search_is_a_floor_too() -> None:
    dear = Price(web_search=dollars("0.05"))
    assert added(dear, plugins=[{"id": "web", "engine": "exa"}]).fees == dollars("0.05")


def test_an_image_costs_what_its_model_lists_where_that_is_more() -> None:
    tools = [{"type": "openrouter:image_generation", "parameters": {"model": "a/painter"}}]
    asked = ask(tools=tools, max_tool_calls=2)
    assert asked.extras.models == ("a/painter",)
    dear = {"a/painter": Price(image_output=dollars("0.0001"))}
    assert added(helpers=dear, tools=tools, max_tool_calls=2).fees == 2 * dollars("1")
    assert added(helpers={"a/painter": FREE}, tools=tools, max_tool_calls=2).fees == 2 * dollars("0.30")


def test_conditions_that_overrule_max_tool_calls_are_the_bound() -> None:
    conditions = [{"type": "step_count_is", "step_count": 3}, {"type": "has_tool_call", "tool_name": "f"}]
    asked = ask(tools=[SEARCH], max_tool_calls=1, stop_server_tools_when=conditions)
    assert (asked.extras.steps, asked.extras.sends_steps) == (4, False)


@pytest.mark.parametrize(("count", "packed"), [(1, False), (40, False), (40, True)])
def test_a_file_has_no_more_pages_than_are_held_for(count: int, packed: bool) -> None:
    held = counting.pages(pdf(count, packed=packed))
    assert held is not None
    assert count <= held
    assert added(**reading(pdf(count, packed=packed), pdf(count))).fees >= 2 * count * dollars("0.002")


@pytest.mark.parametrize(
    "payload",
    [
        "https://x.test/a.pdf",
        "file-123",
        "data:application/pdf;base64,!",
        "data:application/pdf;base64," + base64.b64encode(b"Not a PDF").decode(),
        "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.5 <</Encrypt 7 0 R>>").decode(),
        "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.5 <</Type /ObjStm>> stream\nnot deflated").decode(),
        pdf(40, packed=True, name=b"/Obj#53tm"),
    ],
)
def test_a_file_whose_pages_cannot_be_counted_is_refused_where_each_costs(payload: str) -> None:
    assert counting.pages(payload) is None
    with pytest.raises(ExtraUnpriced) as caught:
        added(**reading(payload))
    assert caught.value.facts["extra"] == "pdf:mistral-ocr"


def sent(body: bytes, endpoint: Endpoint = "chat", *, search_off: bool = False) -> bytes:
    """As OpenRouter gets it."""
    return strict_json.edit(body, edits.edits(request_body.read(body, endpoint).extras, search_off=search_off))


def test_bounds_that_the_client_leaves_open_are_sent_and_its_own_stay() -> None:
    given = body_of(tools=[FUNCTION, SEARCH, {"type": "web_search"}], plugins=[{"id": "web-fetch"}])
    body = json.loads(sent(given))
    assert body["max_tool_calls"] == reader.STEPS
    assert body["tools"][0] == FUNCTION
    assert body["tools"][1]["parameters"] == {"max_uses": reader.STEPS}
    assert body["tools"][2] == {"type": "web_search", "max_uses": reader.STEPS}
    assert body["plugins"] == [{"max_content_tokens": reader.FETCH_TOKENS, "max_uses": reader.STEPS, "id": "web-fetch"}]

    given = body_of(tools=[{**SEARCH, "parameters": {"max_uses": 2}}], max_tool_calls=2)
    assert sent(given) == given
    plain = body_of(tools=[FUNCTION])
    assert sent(plain) == plain

    body = json.loads(sent(body_of(tools=[SEARCH], max_tokens=16), "messages"))  # they have no max_tool_calls
    assert body["stop_server_tools_when"] == [{"type": "step_count_is", "step_count": reader.STEPS - 1}]
    assert "max_tool_calls" not in body


OFF = {"id": "web", "enabled": False}
HEALING = {"id": "response-healing", "for": "web"}


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [(None, [OFF]), ([], [OFF]), ([HEALING], [OFF, HEALING]), ([OFF], [OFF]), ([HEALING, OFF], [HEALING, OFF])],
)
def test_a_free_request_says_that_it_wants_no_search(plugins: Any, expected: Any) -> None:
    assert json.loads(sent(body_of(plugins=plugins), search_off=True))["plugins"] == expected


def test_a_search_is_switched_off_beside_the_bounds_of_tools() -> None:
    body = json.loads(sent(body_of(tools=[SEARCH], plugins=[{"id": "web-fetch"}]), search_off=True))
    assert [plugin["id"] for plugin in body["plugins"]] == ["web", "web-fetch"]
    assert body["plugins"][1]["max_uses"] == body["tools"][0]["parameters"]["max_uses"] == reader.STEPS


def test_an_operator_prices_what_the_register_does_not_and_overrules_it() -> None:
    operators = register.extended('{"tool:openrouter:shell": {"price": "0.05", "tokens": 7}, "search:exa": 0.02}')
    asked = ask(tools=[{"type": "openrouter:shell"}], max_tool_calls=2, plugins=[{"id": "web", "engine": "exa"}])
    found = pricing.worst_case(asked.extras, operators, FREE, {}, 1)
    assert found.fees == 2 * dollars("0.05") + dollars("0.02")
    assert found.step_tokens == 7


@pytest.mark.parametrize(
    "written",
    ["", "[]", "x", '{"a": "free"}', '{"a": -1}', '{"a": {"price": "1", "tokens": -1}}', '{"a": {}}', '{"a": NaN}'],
)
def test_a_price_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        register.extended(written)


engines = st.sampled_from([None, "auto", "native", "exa", "parallel", "perplexity", "firecrawl", "other"])
modes = st.sampled_from([None, "fast", "deep", "deep-reasoning", "turbo", "other"])
searches = st.fixed_dictionaries({}, optional={"engine": engines, "mode": modes, "max_results": st.integers(1, 25)})
fetches = st.fixed_dictionaries(
    {}, optional={"engine": st.sampled_from(["exa", "openrouter"]), "max_content_tokens": st.integers(1, 200_000)}
)
tools = st.one_of(
    st.just(FUNCTION),
    searches.map(lambda parameters: {**SEARCH, "parameters": parameters}),
    searches.map(lambda inline: {"type": "web_search", **inline}),
    fetches.map(lambda parameters: {"type": "openrouter:web_fetch", "parameters": parameters}),
    st.just({"type": "openrouter:image_generation", "parameters": {"model": "a/painter"}}),
    st.sampled_from(["openrouter:datetime", "openrouter:tool_search", "openrouter:shell"]).map(
        lambda kind: {"type": kind}
    ),
)
plugins = st.one_of(
    searches.map(lambda given: {"id": "web", **given}),
    searches.map(lambda given: {"id": "web", "enabled": False, **given}),
    st.sampled_from(["mistral-ocr", "native", "cloudflare-ai"]).map(
        lambda one: {"id": "file-parser", "pdf": {"engine": one}}
    ),
    st.sampled_from([{"id": "response-healing"}, {"id": "fusion"}]),
)
files = st.one_of(
    st.builds(pdf, st.integers(1, 60), packed=st.booleans()), st.sampled_from(["https://x.test/a.pdf", "file-1"])
)
bodies = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["a/model", "a/model:free", "a/model:online", "a/model:free:online"]),
        "messages": st.lists(files, max_size=2).flatmap(
            lambda payloads: st.just(reading(*payloads)["messages"] + [{"role": "user", "content": "Hello there"}])
        ),
    },
    optional={
        "tools": st.lists(tools, max_size=3),
        "plugins": st.lists(plugins, max_size=3),
        "web_search_options": st.just({"search_context_size": "high"}),
        "max_tool_calls": st.integers(1, 40),
        "max_tokens": st.integers(1, 500),
    },
)
listings = st.builds(
    lambda prompt, completion, image: {
        "prompt": f"{prompt}e-9", "completion": f"{completion}e-9", "image": f"{image}e-6", "request": "0",
    },
    st.integers(0, 20_000), st.integers(0, 90_000), st.integers(0, 9_000),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(bodies, listings, st.integers(0, 40))
def test_what_is_admitted_is_held_for_at_no_less_than_the_vendor_bills(
    body: dict[str, Any], listing: dict[str, str], eager: int
) -> None:
    """Whatever model and extras are asked for, and however often the model calls its tools."""
    given = json.dumps(body).encode()
    price = read_price(listing)
    model = Model(body["model"], (Route(HOME, body["model"], price, context_tokens=1_000_000, most_output=500),))
    with contextlib.suppress(ExtraUnpriced):
        asked = request_body.read(given, "chat")
        pricing.refuse_unpriced(asked.extras, REGISTER)
        more = pricing.worst_case(asked.extras, REGISTER, price, {"a/painter": FREE}, asked.choices)
        sizes = rules.bounds(asked, [model], more)
        output = sizes.most_output if sizes.output is None else sizes.output
        with localcontext(EXACT):
            hold = rules.worst_case(asked, sizes, price, more).with_output(output)
        assert hold * PICOS_PER_NANO >= billed(json.loads(sent(given)), listing, output, eager)


def billed(body: dict[str, Any], listing: dict[str, str], output: int, eager: int) -> int:
    """What the vendor of the sandbox asks for the same call, in picodollars."""
    prompt = vendors_reading.chat(body).prompt_tokens
    extra = vendor.of(body, prompt, Faults({"tool-steps": str(eager)}))
    used = Used(prompt=min(prompt + extra.prompt_tokens, 1_000_000), completion=output, extras=extra.picos)
    return Pricing(listing).cost(used).total
