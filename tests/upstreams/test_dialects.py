"""How each kind of server is asked, what of its stream a client sees, and how its no reads."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core import models, request_body
from tollgate.core.sse import Event, Events
from tollgate.upstreams.dialects import DIALECTS
from tollgate.upstreams.dialects.openai import AT_THE_END
from upstreams.scripted import a_call, a_route

SELF_HOSTED: list[models.Dialect] = ["vllm", "sglang", "llamacpp", "tgi", "openai"]
CONTINUOUS: list[models.Dialect] = ["vllm", "sglang"]
ALL: list[models.Dialect] = ["openrouter", *SELF_HOSTED]


def prepared(dialect: models.Dialect, *, model: str = "a/model", **call: Any) -> Any:
    return json.loads(DIALECTS[dialect].prepare(a_call(**call), a_route("http://x", dialect, model=model)))


def shown(dialect: models.Dialect, stream: bytes, **call: Any) -> bytes:
    made = a_call(stream=True, **call)
    show = DIALECTS[dialect].shown(made.ask)
    events = Events()
    return b"".join(show(event) or b"" for event in [*events.feed(stream), *events.finish(), AT_THE_END])


@pytest.mark.parametrize("dialect", ALL)
def test_a_plain_answer_is_asked_for_as_the_client_did(dialect: models.Dialect) -> None:
    made = a_call(odd={"a": 1})
    assert DIALECTS[dialect].prepare(made, a_route("http://x")) == made.body


@pytest.mark.parametrize("dialect", SELF_HOSTED)
def test_a_stream_is_asked_to_say_what_it_used(dialect: models.Dialect) -> None:
    options = prepared(dialect, stream=True)["stream_options"]
    assert options == {"include_usage": True} | ({"continuous_usage_stats": True} if dialect in CONTINUOUS else {})


def test_openrouter_says_it_without_being_asked() -> None:
    assert "stream_options" not in prepared("openrouter", stream=True)


@pytest.mark.parametrize(
    ("dialect", "endpoint", "clients", "bound", "expected"),
    [
        ("openrouter", "chat", {}, 9, {"max_completion_tokens": 9}),
        ("openrouter", "completions", {}, 9, {"max_tokens": 9}),
        ("openrouter", "chat", {"max_tokens": 20}, 9, {"max_tokens": 9}),
        ("openrouter", "chat", {"max_tokens": 20}, None, {"max_tokens": 20}),
        ("vllm", "chat", {}, 9, {"max_tokens": 9}),
        ("vllm", "chat", {"max_completion_tokens": 20}, 9, {"max_completion_tokens": 9}),
        ("tgi", "chat", {"max_completion_tokens": 20}, 9, {"max_tokens": 9}),
        ("tgi", "chat", {"max_completion_tokens": 20}, None, {"max_tokens": 20}),
        ("llamacpp", "chat", {"max_completion_tokens": 20, "max_tokens": None}, None, {"max_tokens": 20}),
        ("llamacpp", "chat", {}, None, {}),
        ("llamacpp", "chat", {"max_tokens": "20"}, None, {"max_tokens": 20}),
        ("vllm", "completions", {"max_tokens": 20.0}, None, {"max_tokens": 20}),
        ("tgi", "chat", {"max_completion_tokens": "20"}, None, {"max_tokens": 20}),
        ("openrouter", "chat", {"max_completion_tokens": "20"}, None, {"max_completion_tokens": 20}),
        ("llamacpp", "chat", {"n_predict": 20}, None, {"max_tokens": 20}),
        ("openrouter", "chat", {"n_predict": 20}, None, {"max_completion_tokens": 20}),
        ("vllm", "completions", {"n_predict": -1}, 9, {"max_tokens": 9}),
        ("openai", "chat", {"n_predict": -1}, None, {}),
        ("vllm", "completions", {"max_tokens": 0, "echo": True}, None, {"max_tokens": 0}),
        ("openrouter", "responses", {}, 9, {"max_output_tokens": 9}),
        ("openrouter", "messages", {}, 9, {"max_tokens": 9}),
        ("vllm", "responses", {}, 9, {"max_output_tokens": 9}),
        ("llamacpp", "responses", {"max_output_tokens": 20}, None, {"max_output_tokens": 20}),
        ("llamacpp", "messages", {"max_tokens": 20}, 9, {"max_tokens": 9}),
        ("vllm", "count_tokens", {}, None, {}),
        ("vllm", "embeddings", {}, None, {}),
        ("openrouter", "embeddings", {}, 0, {}),
    ],
)
def test_a_bound_goes_up_under_one_name(
    dialect: models.Dialect, endpoint: Any, clients: dict[str, Any], bound: int | None, expected: dict[str, int]
) -> None:
    body = prepared(dialect, endpoint=endpoint, bound=bound, **clients)
    assert {name: body[name] for name in body if name.startswith(("max_", "n_"))} == expected


BODY = b' {"model" : "a\\/model",\t"messages":[{"role":"user","content":"\\u00e9"}], "seed":1e2 ,"x":{"model":0}}\n'
STREAMED = BODY.replace(b'"seed"', b'"stream":true, "seed"')


def sent(dialect: models.Dialect, body: bytes, *, model: str = "a/model", bound: int | None = None) -> bytes:
    call = a_call()._replace(ask=request_body.read(body, "chat"), body=body, bound=bound)
    return DIALECTS[dialect].prepare(call, a_route("http://x", dialect, model=model))


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", 'a"b', "模型"])
@pytest.mark.parametrize("dialect", ALL)
def test_a_route_s_own_name_for_the_model_takes_its_place(dialect: models.Dialect, model: str) -> None:
    assert sent(dialect, BODY, model=model) == BODY.replace(rb'"a\/model"', json.dumps(model).encode())
    assert sent(dialect, BODY) == BODY


@pytest.mark.parametrize("dialect", ALL)
def test_a_granted_bound_comes_first_or_takes_the_place_of_the_client_s(dialect: models.Dialect) -> None:
    name = b"max_completion_tokens" if dialect == "openrouter" else b"max_tokens"
    assert sent(dialect, BODY, bound=16) == BODY.replace(b"{", b'{"%s":16,' % name, 1)
    bounded = BODY.replace(b'"seed":1e2', b'"max_tokens" :\n 4096')
    assert sent(dialect, bounded, bound=16) == bounded.replace(b"4096", b"16")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b'"stream_options":null', b'"stream_options":{"include_usage":true}'),
        (b'"stream_options":{ }', b'"stream_options":{"include_usage":true }'),
        (b'"stream_options":{"x":[1]}', b'"stream_options":{"include_usage":true,"x":[1]}'),
        (b'"stream_options":{"include_usage" : false}', b'"stream_options":{"include_usage" : true}'),
        (b'"stream_options":{"include_usage":true}', b'"stream_options":{"include_usage":true}'),
    ],
)
def test_the_usage_is_asked_for_without_touching_anything_else(written: bytes, expected: bytes) -> None:
    asked = STREAMED.replace(b'"seed":1e2', written)
    assert sent("openai", asked) == asked.replace(written, expected)
    assert sent("openai", STREAMED) == STREAMED.replace(b"{", b'{"stream_options":{"include_usage":true},', 1)


@given(
    st.dictionaries(st.sampled_from(["max_tokens", "usage", "x", "stream_options"]), st.none() | st.just({})),
    st.sampled_from(SELF_HOSTED),
)
def test_all_edits_together_change_their_members_and_no_other(more: dict[str, Any], dialect: models.Dialect) -> None:
    given = {"model": "m", "messages": [{"role": "user"}], "stream": True, **more, "max_tokens": None}
    body = json.loads(sent(dialect, json.dumps(given).encode(), model="other", bound=99))
    options = body.pop("stream_options")
    assert options["include_usage"] is True
    given.pop("stream_options", None)
    assert body == {**given, "max_tokens": 99, "model": "other"}


def test_openrouter_gets_the_fallbacks_that_it_knows() -> None:
    call = a_call(models=["ours", "b/model"])._replace(openrouter_models=("a/model", "b/model"))
    body = json.loads(DIALECTS["openrouter"].prepare(call, a_route("http://x")))
    assert body["models"] == ["a/model", "b/model"]


def test_falling_back_is_openrouters_to_know_and_no_other_servers() -> None:
    assert prepared("openrouter", models=["b/model"])["models"] == ["b/model"]
    assert "models" not in prepared("openai", models=["b/model"])
    alone = b'{"models":["a/model","b/model"],"messages":[{"role":"user"}]}'
    assert sent("openrouter", alone) == alone
    assert json.loads(sent("openai", alone)) == {"model": "a/model", "messages": [{"role": "user"}]}


def chunk(**more: Any) -> bytes:
    said = {"id": "c", "choices": [{"index": 0, "delta": {"content": 'say "usage": 1'}}], **more}
    return f"data: {json.dumps(said)}\n\n".encode()


USAGE = {"prompt_tokens": 1, "completion_tokens": 2}
LAST = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"engine died"},"choices":[],"usage":{"prompt_tokens":1}}\n\n'
BROKEN = b'data: {"usage": oh\n\n'


@pytest.mark.parametrize("dialect", CONTINUOUS)
def test_counting_on_the_way_is_not_seen(dialect: models.Dialect) -> None:
    counted = chunk(usage=USAGE) + b": ping\n\n" + chunk(usage=USAGE) + LAST + DONE
    assert shown(dialect, counted) == chunk() + b": ping\n\n" + chunk() + DONE
    asked = {"stream_options": {"include_usage": True}}
    assert shown(dialect, counted, **asked) == chunk() + b": ping\n\n" + chunk() + LAST + DONE
    asked = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    assert shown(dialect, counted, **asked) == counted
    asked = {"stream_options": {"include_usage": False, "continuous_usage_stats": True}}
    assert shown(dialect, counted, **asked) == chunk() + b": ping\n\n" + chunk() + DONE


@pytest.mark.parametrize("dialect", SELF_HOSTED)
def test_a_usage_that_nobody_asked_for_is_taken_out(dialect: models.Dialect) -> None:
    assert shown(dialect, chunk() + chunk(usage=None) + LAST + DONE) == chunk() + chunk() + DONE


def test_llama_servers_timings_stay_in_the_chunk_that_ends_the_answer() -> None:
    """It sends them there to clients that do not ask for the usage, and beside the usage to us."""
    end = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"id":"c"}\n\n'
    last = b'data: {"choices":[],"id":"c","usage":{"prompt_tokens":1},"timings":{"predicted_ms":2.50}}\n\n'
    left = end.replace(b'"id":"c"', b'"id":"c","timings":{"predicted_ms":2.50}')
    assert shown("llamacpp", chunk() + end + last + end + last + DONE) == chunk() + left + left + DONE
    assert shown("llamacpp", end + last, stream_options={"include_usage": True}) == end + last


@pytest.mark.parametrize("after", [chunk() + DONE, LAST + DONE, ERROR, DONE, b""])
def test_the_end_of_an_answer_is_not_lost_if_llama_server_states_no_timings_after_it(after: bytes) -> None:
    end = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"id":"c"}\n\n'
    assert shown("llamacpp", end + after) == end + shown("openai", after)


def test_llama_servers_usage_of_a_text_completion_stays() -> None:
    """Its last chunk states it, asked for or not."""
    last = b'data: {"choices":[{"text":"","index":0,"finish_reason":"length"}],"usage":{"prompt_tokens":1}}\n\n'
    assert shown("llamacpp", last + DONE) == last + DONE


@pytest.mark.parametrize("dialect", ALL)
def test_what_was_asked_for_is_there(dialect: models.Dialect) -> None:
    stream = chunk() + LAST + DONE
    assert shown(dialect, stream, stream_options={"include_usage": True}) == stream


def test_openrouters_stream_passes_as_it_is() -> None:
    stream = chunk(usage=None) + LAST + ERROR + BROKEN + DONE
    assert shown("openrouter", stream) == stream


def test_an_error_is_shown_whatever_stands_beside_it_and_so_is_what_nobody_can_read() -> None:
    assert shown("vllm", ERROR + BROKEN) == b'data: {"error":{"message":"engine died"},"choices":[]}\n\n' + BROKEN


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b'event: x\r\nid: 7\r\ndata: {"a":1, "usage":{"p":1}}\r\n\r\n', b'event: x\r\nid: 7\r\ndata: {"a":1}\r\n\r\n'),
        (b'data:{"usage":null ,"a":1}\n\n', b'data:{"a":1}\n\n'),
        (b'data: {"a":1,\ndata: "usage":2}\n\n', b'data: {"a":1}\n\n'),
    ],
)
def test_the_rest_of_an_event_stays_byte_for_byte(raw: bytes, left: bytes) -> None:
    assert shown("openai", raw) == left


@given(
    st.dictionaries(st.sampled_from(["id", "choices", "usage", "model", "x"]), st.integers() | st.text(), max_size=5)
)
def test_only_the_usage_goes(said: dict[str, Any]) -> None:
    made = a_call(stream=True)
    data = json.dumps(said).encode()
    left = DIALECTS["vllm"].shown(made.ask)(Event(data, b"data: " + data + b"\n\n"))
    assert left is not None
    assert json.loads(left[6:]) == {name: value for name, value in said.items() if name != "usage"}


def refusal(
    dialect: models.Dialect, status: int, body: bytes, kind: str = "application/json"
) -> tuple[int, bytes, bool]:
    made = DIALECTS[dialect].refusal(status, kind, body)
    return made.status, made.body, made.by_upstream


SHAPED = b'{ "error": {"message":"no such model", "type":"NotFoundError","code":404}, "x": 1.50}'


@pytest.mark.parametrize("dialect", ALL)
def test_an_error_in_the_shape_that_all_know_passes_as_it_is(dialect: models.Dialect) -> None:
    assert refusal(dialect, 404, SHAPED) == (404, SHAPED, True)
    assert refusal(dialect, 500, SHAPED) == (500, SHAPED, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"error":"Input validation error","error_type":"validation"}', "Input validation error"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body","n"],"msg":"too many"},{"msg":"odd"}]}', "body.n: too many; body: odd"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b'{"error":{"code":1}}', ""),
        (b'{"error":{"message":7}}', ""),
        (b"<html>nginx</html>", ""),
        (b"", ""),
        (b"[]", ""),
        (b'{"error":' * 200, ""),
    ],
)
def test_other_errors_are_put_into_it(body: bytes, message: str) -> None:
    status, made, by_upstream = refusal("vllm", 422, body)
    error = json.loads(made)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == (message or "The upstream refused the request with status 422.")
    assert (status, error["type"], by_upstream) == (422, "invalid_request_error", bool(message))


def test_a_line_of_text_may_say_something() -> None:
    _, made, by_upstream = refusal("tgi", 503, b"model is\tloading", "text/plain; charset=utf-8")
    assert (json.loads(made)["error"]["message"], by_upstream) == ("model is loading", True)


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("http://10.0.0.7:8000/v1", "address"),
        ("https://user:word@gpu.internal/x", "address"),
        ("10.0.0.7:8000", "address"),
        ("/srv/models/llama/config.json", "path"),
        ("C:\\models\\llama", "path"),
        ("0x7f3a2c1b9d00", "pointer"),
        ("Bearer abc.def", "token"),
        ("sk-proj-abcdefgh", "api_key"),
        ("hf_abcdefghijkl", "api_key"),
        ("A" * 64, "token"),
    ],
)
@pytest.mark.parametrize("dialect", SELF_HOSTED)
def test_what_is_nobodys_business_is_hidden(dialect: models.Dialect, secret: str, kind: str) -> None:
    said = f"failed at {secret} sadly"
    for status, body in (
        (400, {"error": said}),
        (400, {"detail": said}),
        (500, {"error": {"message": said}}),
        (500, {"message": said}),
    ):
        _, made, _ = refusal(dialect, status, json.dumps(body).encode())
        assert json.loads(made)["error"]["message"] == f"failed at [hidden: {kind}] sadly"


def test_a_place_in_memory_is_never_told() -> None:
    body = b'{"error":{"message":"cannot identify <_io.BytesIO object at 0x7f3a2c1b9d00>", "code":400}}'
    assert refusal("vllm", 400, body)[1] == body.replace(b"0x7f3a2c1b9d00", b"0x0")


def test_a_message_has_an_end_and_no_control_characters() -> None:
    message = json.loads(refusal("vllm", 400, json.dumps({"error": "a\x1b[31m\u202e" + "b " * 9000}).encode())[1])
    assert len(message["error"]["message"]) <= 500
    assert message["error"]["message"].isprintable()


def test_llama_servers_500_for_what_the_client_sent_is_the_clients() -> None:
    for said in (
        "[json.exception.parse_error.101] parse error",
        '"prompt" must not be empty',
        "input (2050 tokens) is too large to process. increase the physical batch size (current batch size: 128)",
    ):
        body = json.dumps({"error": {"code": 500, "message": said, "type": "server_error"}}).encode()
        assert refusal("llamacpp", 500, body) == (400, body, True)
        assert refusal("vllm", 500, body)[0] == 500
        assert refusal("llamacpp", 503, body)[0] == 503
    for said in ("Context size has been exceeded.", "image input is not supported"):
        assert refusal("llamacpp", 500, json.dumps({"error": {"message": said}}).encode())[0] == 500
