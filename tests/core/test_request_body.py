import contextlib
import json
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.hanging import not_hanging
from tollgate.completions.translations import translated
from tollgate.core import request_body
from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.errors import BadRequest
from tollgate.core.extras.requested import Extras
from tollgate.core.request_body import (
    FORBIDDEN,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    TEMPLATE_TOKENS,
    TOOLS_TOKENS,
    Ask,
    Endpoint,
    most_tokens,
)

PROMPTS: dict[Endpoint, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hello"}]},
    "completions": {"prompt": "Hello"},
    "embeddings": {"input": "Hello"},
}
TRANSLATED: list[tuple[Endpoint, str]] = [("responses", "max_output_tokens"), ("messages", "max_tokens")]
EVERY_ENDPOINT = pytest.mark.parametrize("endpoint", list(PROMPTS))
GENERATING = pytest.mark.parametrize("endpoint", ["chat", "completions"])
PNG = "data:image/png;base64," + "iVBORw0KGgo+/" * 8000

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
acted_on = st.sampled_from(
    [
        "model", "models", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "n", "best_of",
        "max_completion_tokens", "plugins", "tools", "web_search_options", "user", "usage", "api_key",
        "n_predict", "echo", "prompt_embeds",
    ]
)  # fmt: skip


def ask(endpoint: Endpoint = "chat", **more: Any) -> Ask:
    return request_body.read(
        json.dumps({"model": "openai/gpt-4o", **PROMPTS.get(endpoint, {}), **more}).encode(), endpoint
    )


def refused(endpoint: Endpoint = "chat", **more: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        ask(endpoint, **more)
    assert type(caught.value) is BadRequest
    assert caught.value.facts == {}
    assert caught.value.message.endswith(".")
    return caught.value


def with_parts(*parts: Any, **more: Any) -> Ask:
    return ask(messages=[{"role": "user", "content": list(parts)}], **more)


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@EVERY_ENDPOINT
def test_a_plain_request_asks_for_one_answer_and_leaves_the_rest_open(endpoint: Endpoint) -> None:
    plain = ask(endpoint)
    assert (plain.endpoint, plain.model, plain.fallbacks, plain.models) == (
        endpoint,
        "openai/gpt-4o",
        (),
        ("openai/gpt-4o",),
    )
    assert (plain.stream, plain.include_usage, plain.extras, plain.user) == (False, False, Extras(), None)
    assert plain.bound == (0 if endpoint == "embeddings" else None)
    assert plain.bound_field is None
    assert plain.choices == 1
    assert not plain.prompt.open_ended


@EVERY_ENDPOINT
def test_null_is_absent(endpoint: Endpoint) -> None:
    fields = ("models", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "best_of", "user")
    nulls: dict[str, Any] = dict.fromkeys((*fields, "plugins", "tools", "web_search_options", "usage"))
    nothing, plain = ask(endpoint, **nulls), ask(endpoint)
    assert (nothing.bound, nothing.choices, nothing.stream) == (plain.bound, plain.choices, plain.stream)
    assert (nothing.models, nothing.user, nothing.extras) == (plain.models, plain.user, plain.extras)


@EVERY_ENDPOINT
@given(name=acted_on, value=anything)
def test_whatever_a_field_holds_the_request_is_read_or_refused(endpoint: Endpoint, name: str, value: Any) -> None:
    with contextlib.suppress(BadRequest):
        assert ask(endpoint, **{name: value}).prompt.tokens > 0


@given(st.binary(max_size=50))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        request_body.read(body, "chat")


def test_an_unreadable_body_is_refused_in_the_words_of_its_reader() -> None:
    with pytest.raises(BadRequest, match='"model" occurs twice'):
        request_body.read(b'{"model":"a","messages":[{}],"model":"b"}', "chat")


def test_parameters_that_nobody_here_knows_pass() -> None:
    assert ask(temperature=0.7, reasoning={"effort": "high"}, brand_new={"a": [1]}, route="fallback").model


@EVERY_ENDPOINT
@pytest.mark.parametrize(
    "name", [None, 7, True, "", [], "a b", "a\n", "a\r\nX: y", "a\x00", "a\u200b", "a\u202eb", "a\u00a0b", "x" * 257]
)
def test_a_model_has_a_name_that_can_be_written_anywhere(endpoint: Endpoint, name: Any) -> None:
    assert refused(endpoint, model=name).param == "model"
    assert refused(endpoint, model=None, models=[]).param == "model"
    assert refused(endpoint, models=["fine", name]).param == "models"


@EVERY_ENDPOINT
def test_a_model_must_be_named(endpoint: Endpoint) -> None:
    with pytest.raises(BadRequest) as caught:
        request_body.read(json.dumps(PROMPTS[endpoint]).encode(), endpoint)
    assert caught.value.param == "model"


@pytest.mark.parametrize("name", ["x" * 256, "~openai/gpt-latest", "@preset/a", "org/模型:free", "a"])
def test_names_in_use_are_names(name: str) -> None:
    assert ask(model=name).model == name


def test_every_model_that_may_answer_is_named_once() -> None:
    asked = ask(model="a/b", models=["a/b", "c/d:free", "e/f", "c/d:free"])
    assert asked.fallbacks == ("a/b", "c/d:free", "e/f", "c/d:free")
    assert asked.models == ("a/b", "c/d:free", "e/f")


@EVERY_ENDPOINT
@pytest.mark.parametrize("more", [{}, {"model": None}])
def test_the_first_of_models_is_the_model_where_none_is_named(endpoint: Endpoint, more: dict[str, Any]) -> None:
    body = {**PROMPTS[endpoint], "models": ["a/b", "c/d"], **more}
    asked = request_body.read(json.dumps(body).encode(), endpoint)
    assert (asked.model, asked.models) == ("a/b", ("a/b", "c/d"))


@pytest.mark.parametrize("models", ["a", {"a": 1}, 7, [[]], ["m"] * 33])
def test_fallbacks_are_a_short_list_of_names(models: Any) -> None:
    assert refused(models=models).param == "models"
    assert len(ask(models=["m"] * 32).fallbacks) == 32


@pytest.mark.parametrize("messages", [None, [], {}, "Hello", 7, ["Hello"], [{}, None], [[]]])
def test_messages_are_objects_and_at_least_one(messages: Any) -> None:
    assert refused("chat", messages=messages).param == "messages"


@pytest.mark.parametrize("prompt", [None, [], {}, 7, [None], [{}], [1.5]])
def test_a_prompt_is_text_or_tokens(prompt: Any) -> None:
    assert refused("completions", prompt=prompt).param == "prompt"


@pytest.mark.parametrize("given", [None, [], 7, [None], [1.5]])
def test_an_input_is_text_or_tokens_or_content(given: Any) -> None:
    assert refused("embeddings", input=given).param == "input"
    assert ask("embeddings", input=[{"content": [{"type": "text", "text": "x"}]}]).model


@GENERATING
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("bound", [0, -1, 10**9 + 1, 10**12, True, 5.7, "5.5", "", " 5", "1e3", "-1", "0", []])
def test_a_bound_is_a_positive_whole_number(endpoint: Endpoint, field: str, bound: Any) -> None:
    assert refused(endpoint, **{field: bound}).param == field


@pytest.mark.parametrize(("written", "bound"), [("5", 5), ("05", 5), ("5.0", 5), (5.0, 5), (1e3, 1000)])
def test_a_bound_that_only_some_servers_read_is_respelled(written: Any, bound: int) -> None:
    asked = ask(max_tokens=written)
    assert (asked.bound, asked.bound_field, asked.respells_bound) == (bound, "max_tokens", True)
    assert not ask(max_tokens=bound).respells_bound
    for endpoint, name in TRANSLATED:
        body = {"model": "m", name: written, ENDPOINTS[endpoint].prompt: [{"role": "user", "content": "Hello"}]}
        assert translated(endpoint, json.dumps(body).encode()).ask.bound == bound


@pytest.mark.parametrize(("endpoint", "field"), [("chat", "max_tokens"), ("completions", "max_tokens")])
def test_n_predict_is_another_name_of_the_bound(endpoint: Endpoint, field: str) -> None:
    assert (ask(endpoint, n_predict=5).bound, ask(endpoint, n_predict=5).bound_field) == (5, "n_predict")
    assert ask(endpoint, n_predict=-1).bound is None
    assert refused(endpoint, n_predict=0).param == "n_predict"
    assert refused(endpoint, n_predict=5, **{field: 5}).param == "n_predict"


def test_a_prompt_is_scored_only_as_a_completion_with_echo() -> None:
    scored = ask("completions", max_tokens=0, echo=True, logprobs=1)
    assert (scored.bound, scored.bound_field, scored.only_vllm) == (1, "max_tokens", "max_tokens")
    assert ask("completions", max_tokens=1, echo=True).only_vllm is None
    for unlike in ({}, {"echo": False}, {"echo": True, "max_tokens": False}, {"echo": True, "max_tokens": "0"}):
        assert refused("completions", **{"max_tokens": 0, "logprobs": 1, **unlike}).param == "max_tokens"
    assert refused("chat", max_tokens=0, echo=True).param == "max_tokens"
    assert refused("completions", max_tokens=None, n_predict=0, echo=True).param == "n_predict"


def test_embeddings_may_take_the_place_of_a_completion_s_prompt() -> None:
    tensor = "QUJD" * 200
    alone = ask("completions", prompt=None, prompt_embeds=tensor)
    assert (alone.prompt.embeds, alone.choices, alone.only_vllm) == (1, 1, "prompt_embeds")
    assert alone.prompt.text_bytes < len(tensor)
    assert ask("completions", prompt=["a", "b"], prompt_embeds=[tensor, tensor], n=3).choices == 12
    none = ask("completions", prompt_embeds=[])
    assert (none.prompt.embeds, none.only_vllm) == (0, None)
    for wrong in ("", [], [""], [7], {}, 7):
        assert refused("completions", prompt=None, prompt_embeds=wrong).param in ("prompt", "prompt_embeds")
    assert refused("completions", prompt=None).param == "prompt"


@pytest.mark.parametrize("endpoint", [*ENDPOINTS])
def test_a_prompt_of_the_wrong_kind_is_told_what_is_meant(endpoint: Endpoint) -> None:
    name = ENDPOINTS[endpoint].prompt
    assert refused(endpoint, **{name: []}).message == f"{name}: is empty. Send {ENDPOINTS[endpoint].expected}."
    objects = [] if endpoint == "embeddings" else [{"role": "user"}]
    for wrong in (None, 7, [None], True, *objects):
        assert refused(endpoint, **{name: wrong}).message == f"{name}: send {ENDPOINTS[endpoint].expected}."


def test_an_object_to_embed_needs_no_list_around_it() -> None:
    """llama.cpp reads it alone, as it reads a text."""
    picture = {"content": [image("data:image/png;base64,AAAA")]}
    alone, listed = ask("embeddings", input=picture), ask("embeddings", input=[picture])
    assert (alone.choices, alone.prompt.images) == (listed.choices, listed.prompt.images) == (1, 1)
    assert listed.prompt.tokens - 2 <= alone.prompt.tokens <= listed.prompt.tokens


def test_usage_in_every_chunk_needs_usage_at_the_end() -> None:
    """As at vLLM."""
    for include, continuous in ((True, True), (False, False)):
        options = {"include_usage": include, "continuous_usage_stats": True}
        assert ask(stream=True, stream_options=options).continuous_usage == continuous
    assert not ask(stream=True, stream_options={"continuous_usage_stats": True}).continuous_usage


@pytest.mark.parametrize("bound", [1, 16, 10**9])
def test_a_bound_goes_by_either_name_in_a_chat_but_not_by_both(bound: int) -> None:
    older, newer = ask(max_tokens=bound), ask(max_completion_tokens=bound, max_tokens=None)
    assert (older.bound, older.bound_field) == (bound, "max_tokens")
    assert (newer.bound, newer.bound_field) == (bound, "max_completion_tokens")
    assert refused(max_completion_tokens=bound, max_tokens=bound).param == "max_completion_tokens"


def test_a_completion_s_bound_has_one_name() -> None:
    assert ask("completions", max_tokens=5).bound == 5
    assert refused("completions", max_completion_tokens=5).param == "max_completion_tokens"


def test_embeddings_have_no_output_whatever_they_say() -> None:
    asked = ask("embeddings", max_tokens="x", n=5000, stream=True)
    assert (asked.bound, asked.choices, asked.stream) == (0, 1, False)


@GENERATING
@pytest.mark.parametrize("field", ["n", "best_of"])
@pytest.mark.parametrize("value", [0, -1, 129, 10**6, True, 1.0, "2", []])
def test_choices_are_one_to_128(endpoint: Endpoint, field: str, value: Any) -> None:
    assert refused(endpoint, **{field: value}).param == field


@pytest.mark.parametrize(
    ("asked", "choices"),
    [
        ({"n": 128}, 128),
        ({"n": 2, "best_of": 5}, 5),
        ({"n": 3, "best_of": 1}, 3),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6),
        ({"prompt": [1, 2, 3], "n": 2}, 2),
        ({"prompt": [[1, 2], [3]], "best_of": 4}, 8),
        ({"prompt": [1, "a", "b"]}, 2),
    ],
)
def test_every_answer_to_every_prompt_is_paid_for(asked: dict[str, Any], choices: int) -> None:
    assert ask("completions", **asked).choices == choices


@pytest.mark.parametrize("value", ["true", 1, 0, [], {}])
def test_flags_are_true_or_false(value: Any) -> None:
    assert refused(stream=value).param == "stream"
    assert refused(stream_options={"include_usage": value}).param == "stream_options.include_usage"
    assert ask(stream=True).stream
    assert ask(stream_options={"include_usage": True}).include_usage
    assert not ask(stream_options={"include_usage": False}).include_usage


@pytest.mark.parametrize("field", ["stream_options", "usage"])
@pytest.mark.parametrize("value", [[], "x", 7, True])
def test_what_we_may_write_into_is_an_object(field: str, value: Any) -> None:
    assert refused(**{field: value}).param == field


@pytest.mark.parametrize("field", ["plugins", "tools"])
@pytest.mark.parametrize("value", [{}, "web", 7, ["web"], [None]])
def test_plugins_and_tools_are_lists_of_objects(field: str, value: Any) -> None:
    assert refused(**{field: value}).param == field


@EVERY_ENDPOINT
@pytest.mark.parametrize("field", list(FORBIDDEN))
@pytest.mark.parametrize("value", ["x", None, {}, 7])
def test_what_leads_past_us_is_refused_even_when_it_is_empty(endpoint: Endpoint, field: str, value: Any) -> None:
    refusal = refused(endpoint, **{field: value})
    assert refusal.param == field
    assert refusal.message == f"{field}: {FORBIDDEN[field]}"


@pytest.mark.parametrize("field", ["api_key", "base_url", "api_base", "extra_headers"])
def test_the_known_ways_past_a_gateway_are_among_them(field: str) -> None:
    assert field in FORBIDDEN


def test_tools_add_what_a_server_writes_around_them() -> None:
    function = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert ask(tools=[function]).prompt.tokens > ask().prompt.tokens + TOOLS_TOKENS


@pytest.mark.parametrize("user", [7, True, ["a"], "a\r\nb", "a\x00b", "x" * 257, "a\u2028b"])
def test_a_user_s_name_can_be_written_anywhere(user: Any) -> None:
    assert refused(user=user).param == "user"


def test_a_user_s_name_may_have_spaces() -> None:
    assert ask(user="Zoë Müller <z@x.de>").user == "Zoë Müller <z@x.de>"


def test_every_kind_of_part_is_counted() -> None:
    counted = with_parts(
        {"type": "text", "text": "see"},
        image("https://x.de/a.png"),
        image(PNG),
        {"type": "image_url", "image_url": PNG},
        {"type": "input_audio", "input_audio": {"data": "UklG" * 1000, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
        {"type": "video_url", "video_url": {"url": "https://x.de/a.mp4"}},
        None,
        "text",
        {"type": "image_url", "image_url": None},
    ).prompt
    assert (counted.images, counted.audios, counted.files, counted.videos) == (4, 1, 1, 1)


@pytest.mark.parametrize("slash", ["/", r"\/"])
def test_an_image_s_bytes_are_not_text_however_its_slashes_are_written(slash: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"content": [image(PNG), {"text": "a/b" * 99}, image(PNG)]}]})
    prompt = request_body.read(body.replace("/", slash).encode(), "chat").prompt
    assert len(PNG) > 100_000
    assert prompt.text_bytes == len(body) - 2 * len(PNG)
    assert TEMPLATE_TOKENS + 2 * IMAGE_TOKENS < prompt.tokens < TEMPLATE_TOKENS + 2 * IMAGE_TOKENS + prompt.text_bytes


def test_an_image_by_link_holds_as_much_as_one_that_is_here() -> None:
    linked, here = with_parts(image("https://x.de/a.png")).prompt, with_parts(image(PNG)).prompt
    assert 0 <= linked.tokens - here.tokens < 20


def test_text_that_says_it_is_an_image_is_text() -> None:
    assert with_parts({"type": "text", "text": PNG}).prompt.tokens > len(PNG) * 4 // 5


def test_an_image_that_is_written_with_escapes_is_counted_as_text_and_not_searched_for() -> None:
    parts = [image("data:" + "a" * 2500)] * 8000
    body = json.dumps({"model": "m", "messages": [{"content": parts}]}).replace("data:a", r"data:\u0061")
    with not_hanging():
        assert request_body.read(body.encode(), "chat").prompt.text_bytes == len(body)


def test_images_of_embeddings_are_counted_too() -> None:
    """vLLM takes a conversation as messages as well, and several of them."""
    conversation = [{"content": [image(PNG)]}, {"content": [image(PNG)]}]
    alone, both = {"input": None, "messages": conversation}, {"input": "Hello", "messages": conversation}
    for more in ({"input": conversation}, {"input": [conversation]}, alone, both):
        prompt = ask("embeddings", **more).prompt
        assert prompt.images == 2
        assert prompt.text_bytes < 500
    for wrong in ([], [None], {}, 7):
        error = refused("embeddings", input=None, messages=wrong)
        assert error.param == "messages"
        assert error.message.endswith("end a list of messages, each an object.")


def test_images_in_the_content_of_documents_are_counted() -> None:
    linked = {"content": [image("https://x.de/a.png")]}
    prompt = ask("rerank", query="a", documents=[linked, linked]).prompt
    assert prompt.images == 2
    assert prompt.tokens > 2 * IMAGE_TOKENS


def test_embeddings_as_bytes_are_refused_for_they_state_no_usage() -> None:
    for as_bytes in ("bytes", "bytes_only"):
        assert refused("embeddings", encoding_format=as_bytes).param == "encoding_format"
    for unknown in ("float", "base64", "x", None, [], {}):
        assert ask("embeddings", encoding_format=unknown).model


@pytest.mark.parametrize(
    ("endpoint", "more", "inputs"),
    [
        ("embeddings", {"input": "Hi"}, 1),
        ("embeddings", {"input": [1, 2, 3]}, 1),
        ("embeddings", {"input": [[1, 2], [3]]}, 2),
        ("embeddings", {"input": ["a", "b", "c"]}, 3),
        ("rerank", {"query": "a", "documents": ["b", {"text": "c"}]}, 2),
        ("chat", {}, 0),
    ],
)
def test_vllm_pads_each_input_to_the_context(endpoint: Endpoint, more: dict[str, Any], inputs: int) -> None:
    assert ask(endpoint, padding="max_length", **more).prompt.padded == inputs
    assert ask(endpoint, padding="do_not_pad", **more).prompt.padded == 0


@pytest.mark.parametrize("name", ["prompt_embeds", "image_embeds", "audio_embeds", "video_embeds"])
def test_each_tensor_in_a_message_may_fill_the_context(name: str) -> None:
    """A tensor of few bytes may repeat its row. The vector of one token may have many."""
    tensor = "QUJD" * 2500
    part = {"type": name, "data": tensor} if name == "prompt_embeds" else {"type": name, name: tensor}
    with_two, without_type = with_parts(part, {"text": "Go on."}, part), with_parts({name: {}, "data": tensor})
    assert (with_two.prompt.embeds, without_type.prompt.embeds) == (2, 1)
    assert with_two.prompt.tokens < len(tensor)
    assert ask("embeddings", input=[{"content": [part]}]).prompt.embeds == 1
    assert ask("responses", input=[{"role": "user", "content": [part]}]).prompt.embeds == 1


@pytest.mark.parametrize(
    ("part", "open_ended"),
    [
        (image(PNG), False),
        (image("https://x.de/a.png"), False),
        ({"input_audio": {"data": "UklG" * 1000, "format": "mp3"}}, False),
        ({"audio_url": {"url": "https://x.de/a.mp3"}}, True),
        ({"audio_url": {"url": "HTTPS://x.de/a.mp3"}}, True),
        ({"file": {"file_id": "f"}}, True),
        ({"video_url": {"url": "data:video/mp4;base64,AAAA"}}, True),
    ],
)
def test_what_may_be_of_any_length_leaves_the_prompt_open(part: dict[str, Any], open_ended: bool) -> None:
    assert with_parts(part).prompt.open_ended is open_ended


@pytest.mark.parametrize(
    ("kind", "least_bytes_a_second"), [("wav", 8_000), ("mp3", 1_000), ("flac", 1_000), (None, 1_000)]
)
def test_a_minute_of_sound_at_its_lowest_rate_is_covered(kind: str | None, least_bytes_a_second: int) -> None:
    data = "A" * (60 * least_bytes_a_second * 4 // 3)
    without, heard = with_parts({}), with_parts({"input_audio": {"data": data, "format": kind}})
    assert heard.prompt.text_bytes < 200
    assert 60 * 32 <= heard.prompt.tokens - without.prompt.tokens <= 60 * 32 * 1.5


def test_a_text_file_is_covered_by_its_bytes() -> None:
    text = "zq" * 3000
    data = "data:text/plain;base64," + "A" * (len(text) * 4 // 3)
    assert with_parts({"file": {"file_data": data}}).prompt.tokens > len(text)


def picked(letters: str, count: int) -> Iterator[str]:
    """The same for ever, or the counts below would not be of the same texts."""
    state = 12345
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        yield letters[(state >> 16) % len(letters)]


def words(letters: str, length: int, count: int, between: str = " ") -> str:
    text = "".join(picked(letters, length * count))
    return between.join(text[at : at + length] for at in range(0, len(text), length))


def in_turn(*texts: str) -> str:
    return "".join(map("".join, zip(*texts, strict=True)))


def span(first: str, last: str) -> str:
    return "".join(map(chr, range(ord(first), ord(last) + 1)))


LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
ANY = "".join(chr(code) for code in range(0x80, 0x110000, 997) if not 0xD800 <= code < 0xE000)

COUNTED = {
    "random lowercase": (words(LOWER, 1000, 1), 590),
    "random uppercase": (words(UPPER, 1000, 1), 701),
    "random letters": (words(LOWER + UPPER, 1000, 1), 747),
    "words of 1": (words(LOWER, 1, 500), 500),
    "words of 2": (words(LOWER, 2, 300), 469),
    "words of 3": (words(LOWER, 3, 250), 527),
    "words of 5": (words(LOWER, 5, 200), 654),
    "words of 8": (words(LOWER, 8, 100), 508),
    "camel": (in_turn(words(UPPER, 500, 1), words(LOWER, 500, 1)), 998),
    "snake": (words(LOWER, 2, 300, "_"), 681),
    "two spaces": (words(LOWER, 1, 300, "  "), 599),
    "letters and digits": (in_turn(words(LOWER, 500, 1), words(DIGITS, 500, 1)), 1000),
    "digits": (words(DIGITS, 1000, 1), 1000),
    "numbers": (words(DIGITS, 4, 200), 999),
    "hex": (words(DIGITS + "abcdef", 1000, 1), 905),
    "uuids": (words(DIGITS + "abcdef", 8, 100, "-"), 828),
    "base64": (words(UPPER + LOWER + DIGITS + "+/", 1000, 1), 810),
    "punctuation": (words(string.punctuation, 1000, 1), 816),
    "printable": (words(string.printable, 1000, 1), 893),
    "spaces": (" " * 1000, 1000),
    "newlines": ("\n" * 1000, 1000),
    "tabs": ("\t" * 1000, 1000),
    "line starts": ("\n " * 500, 1000),
    "whitespace": (words(" \t\n\r", 1000, 1), 954),
    "control": (words(span("\0", "\x1f"), 500, 1), 500),
    "cjk": (words(span("一", "鿿"), 500, 1), 1466),
    "rare cjk": (words(span("㐀", "䶿"), 500, 1), 1500),
    "hangul": (words(span("가", "힣"), 500, 1), 1498),
    "kana": (words(span("ぁ", "ヿ"), 500, 1), 798),
    "cyrillic": (words(span("а", "я"), 6, 100), 955),
    "arabic": (words(span("ء", "ي"), 5, 100), 835),
    "devanagari": (words(span("अ", "ह"), 5, 100), 1107),
    "thai": (words(span("ก", "ะ"), 500, 1), 1000),
    "accents": (words(span("à", "ÿ"), 500, 1), 641),
    "emoji": (words(span("🌀", "🙏"), 300, 1), 1200),
    "mathematics": (words(span("𝐀", "𝓿"), 300, 1), 1200),
    "any character": (words(ANY, 500, 1), 1960),
    "combining": (
        in_turn(words(LOWER, 300, 1), words(span("\u0300", "\u036f"), 300, 1), words(span("\u0300", "\u0340"), 300, 1)),
        1496,
    ),
    "english": (
        "The quick brown fox jumps over the lazy dog, and then it thinks about what it has done; nobody minds. " * 10,
        251,
    ),
    "python": (
        "def f(x: int) -> dict[str, list[int]]:\n    return {k: [v for v in range(x)] for k in 'abc' if k != 'b'}\n\n"
        * 8,
        391,
    ),
    "javascript": (
        (
            '!function(e,t){"object"==typeof exports?module.exports=t():e.x=t()}'
            "(this,function(){for(var e=0;e<9;)e++;return e?1:null});"
        )
        * 8,
        440,
    ),
    "json": ('{"a":{"b":[1,2,{"c":null}],"d":"x"},"e":true},' * 20, 520),
    "addresses": ("https://example.com/a/b/c?d=e&f=%20g#h " * 20, 461),
}
"""The most tokens that any of seven tokenizers counted: r50k (GPT-2), p50k, cl100k and o200k of npm's gpt-tokenizer 3,
llama-tokenizer-js, llama3-tokenizer-js and mistral-tokenizer-js, without their marks of beginning and end."""


@pytest.mark.parametrize(("text", "counted"), COUNTED.values(), ids=list(COUNTED))
def test_no_tokenizer_counts_more_than_we_hold_for(text: str, counted: int) -> None:
    assert counted <= most_tokens(text.encode()) <= len(text.encode())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (b"", 0), (b"a", 1), (b"ab", 2), (b"abc", 3), (b"abcdef", 4), (b"abcdefg", 5), (b" a", 1), (b"a b", 2),
        (b"aB", 2), (b" A", 2), (b"  a", 2), (b"a1b", 3), (b" 1", 2), (b"\na", 2), (b"a,", 2), ("é".encode(), 2),
    ],
)  # fmt: skip
def test_the_rule_of_counting(text: bytes, tokens: int) -> None:
    assert most_tokens(text) == tokens


def test_ordinary_text_is_not_held_for_as_if_it_were_noise() -> None:
    for name, most in {"english": 2.5, "python": 2.0, "javascript": 2.0, "json": 2.0, "addresses": 2.0}.items():
        text, counted = COUNTED[name]
        assert most_tokens(text.encode()) < counted * most, name


@given(st.text())
def test_the_ceiling_is_a_token_for_each_byte_and_the_floor_is_half_of_that(text: str) -> None:
    size = len(text.encode(errors="surrogatepass"))
    assert size <= 2 * most_tokens(text.encode(errors="surrogatepass")) <= 2 * size


@given(
    st.text(st.characters(max_codepoint=127, exclude_characters=" " + LOWER))
    | st.text(st.characters(min_codepoint=128))
)
def test_all_but_lowercase_words_counts_by_its_bytes(text: str) -> None:
    encoded = text.encode(errors="surrogatepass")
    assert most_tokens(encoded) == len(encoded)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.text()), min_size=1), st.booleans()
)
def test_what_limits_count_covers_every_text_and_a_template_around_it(
    texts: list[tuple[str, str]], is_ascii: bool
) -> None:
    messages = [{"role": role, "content": text} for role, text in texts]
    settings = {"temperature": 0.5, "max_tokens": 20, "stream": True, "seed": None}
    body = json.dumps(
        {"model": "a/model", "messages": messages, **settings}, ensure_ascii=is_ascii, separators=(",", ":")
    )
    prompt = request_body.read(body.encode(errors="replace"), "chat").prompt
    least = sum(most_tokens(text.encode(errors="replace")) + MESSAGE_TOKENS for _, text in texts)
    assert least <= prompt.tokens - prompt.not_sent <= prompt.tokens - TEMPLATE_TOKENS


@given(st.text(), st.booleans())
def test_as_json_a_text_counts_no_less_than_by_itself(text: str, escaped: bool) -> None:
    quoted = json.dumps(text, ensure_ascii=escaped).encode(errors="surrogatepass")
    assert most_tokens(quoted) >= most_tokens(text.encode(errors="surrogatepass"))


@given(st.text(), st.text())
def test_two_texts_count_about_as_much_as_one_after_the_other(one: str, other: str) -> None:
    first, second = one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass")
    assert abs(most_tokens(first) + most_tokens(second) - most_tokens(first + second)) <= 2
