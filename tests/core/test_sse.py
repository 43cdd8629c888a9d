import json
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.hanging import not_hanging
from core.test_request_body import COUNTED
from tollgate.core import sse
from tollgate.core.sse import (
    CALL_TOKENS,
    END_TOKENS,
    MOST_EVENT_BYTES,
    Ending,
    Event,
    Events,
    EventTooLarge,
    Failure,
    Tally,
    is_done,
)

OPENROUTER = """\
: OPENROUTER PROCESSING

data: {"id":"gen-1755842000-KqT","provider":"OpenAI","model":"openai/gpt-4o-mini","object":"chat.completion.chunk",\
"created":1755842000,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,\
"native_finish_reason":null,"logprobs":null}],"system_fingerprint":"fp_1"}

: OPENROUTER PROCESSING

data: {"id":"gen-1755842000-KqT","model":"openai/gpt-4o-mini","choices":[{"index":0,"delta":{"content":\
"Grüße, 世界 😀 \\"usage\\":{\\"cost\\":0}"},"finish_reason":null,"native_finish_reason":null}]}

data: {"id":"gen-1755842000-KqT","model":"openai/gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"content":""},\
"finish_reason":"stop","native_finish_reason":"stop"}]}

data: {"id":"gen-1755842000-KqT","model":"openai/gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":14,\
"completion_tokens":163,"total_tokens":177,"cost":0.0000999000000000000001,"is_byok":false,"prompt_tokens_details":\
{"cached_tokens":0},"cost_details":{"upstream_inference_cost":0.0000999},"completion_tokens_details":\
{"reasoning_tokens":0}}}

data: [DONE]

"""

FAILING = """\
data: {"id":"gen-2","model":"anthropic/claude-sonnet-4.5","choices":[{"index":0,"delta":{"content":"Hel"},\
"finish_reason":null}]}

data: {"id":"gen-2","object":"chat.completion.chunk","created":1,"model":"anthropic/claude-sonnet-4.5","provider":\
"anthropic","error":{"code":"server_error","message":"Provider disconnected unexpectedly","metadata":{"error_type":\
"provider_unavailable"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}

"""

VLLM = """\
data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"Qwen/Qwen3-8B","choices":[{"index":0,\
"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":5,\
"total_tokens":5,"completion_tokens":0}}

data: {"id":"chatcmpl-9","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":\
{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}

data: {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": null, \
"code": 500}}

data: [DONE]

"""

ODD = """\
\ufeff:comment
event: chunk
id: 7
retry: 100
data:{"id":"gen-4","model":"m/m",
data: "choices":[{"index":0,"finish_reason" : "length"},{"index":1,"finish_reason":"stop"}],
data
data:"usage": {"prompt_tokens":1}}
dataset: nothing


data: [DONE]
"""

STREAMS = {"openrouter": OPENROUTER, "failing": FAILING, "vllm": VLLM, "odd": ODD}
LINE_ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}
RECORDED = [text.replace("\n", end).encode() for text in STREAMS.values() for end in LINE_ENDS.values()]
EVERY_LINE_END = pytest.mark.parametrize("end", LINE_ENDS.values(), ids=list(LINE_ENDS))
MIXED = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"data", b":", b" ", b"x", b"data: y", b"\xef\xbb\xbf", b"\xf0\x9f", b"[DONE]"]
    )
).map(b"".join)


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream in pieces: any sizes, and between CR and LF or inside of a character as likely as anywhere."""
    tender = [at for at in range(1, len(stream)) if stream[at - 1] in b"\r\n" or stream[at] >= 0x80]
    places = st.integers(0, len(stream)) | (st.sampled_from(tender) if tender else st.nothing())
    ordered = sorted([0, *draw(st.lists(places, max_size=12)), len(stream)])
    return [stream[start:end] for start, end in pairwise(ordered)]


def events(*pieces: bytes, most_bytes: int = MOST_EVENT_BYTES) -> list[Event]:
    cutter = Events(most_bytes)
    return [event for piece in pieces for event in cutter.feed(piece)] + list(cutter.finish())


def told(*pieces: bytes | str, choices: int = 1) -> Tally:
    tally = Tally(choices)
    for event in events(*(piece.encode() if isinstance(piece, str) else piece for piece in pieces)):
        tally.see(event.data)
    return tally


def chunk(**members: Any) -> str:
    return f"data: {json.dumps({'id': 'gen-1', 'model': 'a/b', 'choices': [], **members})}\n\n"


def finished(reason: str | None, index: int = 0) -> str:
    return chunk(choices=[{"index": index, "delta": {}, "finish_reason": reason}])


def in_single_bytes(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def of_the_standard(stream: bytes) -> list[bytes]:
    """What the standard dispatches, done the plain way; what is unfinished is handed out here as well."""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found: list[bytes] = []
    data: list[bytes] = []
    for line in [*lines, b""]:
        name, _, value = line.partition(b":")
        if line == b"":
            found.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return [one for one in found if one]


@given(st.data(), st.sampled_from(RECORDED) | MIXED)
def test_where_the_input_is_cut_makes_no_difference(data: st.DataObject, stream: bytes) -> None:
    pieces = data.draw(cuts(stream))
    assert events(*pieces) == events(stream)
    assert told(*pieces) == told(stream)


@pytest.mark.parametrize("stream", RECORDED)
def test_every_single_cut_makes_no_difference(stream: bytes) -> None:
    whole, tally = events(stream), told(stream)
    for at in range(len(stream)):
        assert events(stream[:at], stream[at:]) == whole
    assert events(*in_single_bytes(stream)) == whole
    assert told(*in_single_bytes(stream)) == tally


@given(st.data(), st.sampled_from(RECORDED) | MIXED | st.binary())
def test_every_byte_comes_out_once_and_in_order(data: st.DataObject, stream: bytes) -> None:
    assert b"".join(event.raw for event in events(*data.draw(cuts(stream)))) == stream


@given(MIXED)
@example(b"data: a\r\rdata: b\n\ndata: c\r\n\r\n\r\ndata: d\r\n\ndata: e\n\r\ndata: f\r\n\r")
@example(b"data\n\ndata:\n\ndata: \n\ndata:  x\n\ndata: a\ndata\ndata: b")
def test_the_events_are_those_of_the_standard(stream: bytes) -> None:
    assume_no_other_bom = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\xef\xbb\xbf", b"")
    stream = stream[:3] + assume_no_other_bom if stream.startswith(b"\xef\xbb\xbf") else assume_no_other_bom
    assert [event.data for event in events(stream) if event.data] == of_the_standard(stream)


@EVERY_LINE_END
def test_a_recorded_stream_comes_out_event_by_event(end: str) -> None:
    stream = OPENROUTER.replace("\n", end).encode()
    found = events(stream)
    assert [event.raw for event in found] == [
        block + (end * 2).encode() for block in stream.split((end * 2).encode())[:-1]
    ]
    assert [event.data[:7] for event in found] == [b"", b'{"id":"', b"", b'{"id":"', b'{"id":"', b'{"id":"', b"[DONE]"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_event_comes_out_as_soon_as_it_is_whole(end: str) -> None:
    cutter = Events()
    first, second = f": hello{end}{end}".encode(), f"data: x{end}{end}".encode()
    assert list(cutter.feed(first)) == [Event(b"", first)]
    assert list(cutter.feed(second[:-1])) == []
    assert list(cutter.feed(second[-1:])) == [Event(b"x", second)]
    assert list(cutter.finish()) == []


def test_events_that_were_not_taken_come_with_the_next() -> None:
    cutter = Events()
    assert next(cutter.feed(b"data: 1\n\ndata: 2\n\n")).data == b"1"
    cutter.feed(b"data: 3\n\nda")
    assert [event.data for event in cutter.feed(b"ta: 4\n\n")] == [b"2", b"3", b"4"]


def test_what_is_unfinished_comes_out_at_the_end_and_only_once() -> None:
    cutter = Events()
    assert list(cutter.feed(b"data: [DONE]")) == []
    assert list(cutter.finish()) == [Event(b"[DONE]", b"data: [DONE]")]
    assert list(cutter.finish()) == []


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
@given(st.data())
def test_an_event_beyond_the_bound_is_an_error_however_it_comes(end: bytes, data: st.DataObject) -> None:
    fits = b"data: " + b"x" * (100 - 6 - len(end)) + end
    assert len(fits) == 100
    assert [event.raw for event in events(*data.draw(cuts(fits)), most_bytes=100)] == [fits]
    cutter = Events(100)
    got: list[bytes] = []

    def feed_all(*pieces: bytes) -> None:
        for piece in pieces:
            got.extend(event.raw for event in cutter.feed(piece))

    with pytest.raises(EventTooLarge):
        feed_all(*data.draw(cuts(b": before\n\n" + b"y" + fits)))
    assert got == [b": before\n\n"]
    with pytest.raises(EventTooLarge):
        feed_all(b"\n\n")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_what_precedes_an_endless_event_still_comes_out(end: bytes) -> None:
    flowing = Events(100).feed(b"data: 1" + end * 2 + b"x" * 101)
    assert next(flowing).data == b"1"
    with pytest.raises(EventTooLarge):
        next(flowing)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b""])
def test_a_large_event_in_small_pieces_takes_time_by_its_size_and_not_by_its_square(end: bytes) -> None:
    """Thirty megabytes in half a million pieces: searched anew with each, that would be seven terabytes."""
    stream = b"data: " + b"x" * 30_000_000 + end
    with not_hanging():
        assert events(*(stream[at : at + 60] for at in range(0, len(stream), 60)))


@pytest.mark.parametrize("tiny", [b"\n", b"data: x\n\n", b": x\r\n\r\n", b"data\n"])
def test_many_tiny_things_in_one_piece_are_cheap(tiny: bytes) -> None:
    with not_hanging():
        assert events(tiny * 300_000)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b""])
def test_a_byte_order_mark_hides_no_data(end: bytes) -> None:
    stream = b"\xef\xbb\xbfdata: x" + end
    assert events(*in_single_bytes(stream)) == [Event(b"x", stream)]


@EVERY_LINE_END
def test_openrouter_s_stream_is_tallied(end: str) -> None:
    tally = told(OPENROUTER.replace("\n", end))
    assert tally.generation_id == "gen-1755842000-KqT"
    assert tally.model == "openai/gpt-4o-mini-2024-07-18"
    assert tally.usage is not None
    assert tally.usage["cost"] == Decimal("0.0000999000000000000001")
    assert tally.usage["cost_details"]["upstream_inference_cost"] == Decimal("0.0000999")
    assert tally.usage["completion_tokens"] == 163
    assert tally.finish_reasons == {0: "stop"}
    assert (tally.failure, tally.done, tally.unreadable, tally.ending) == (None, True, 0, "complete")


def test_openrouter_s_failure_in_mid_stream_is_tallied() -> None:
    tally = told(FAILING)
    assert tally.failure == Failure("server_error", "Provider disconnected unexpectedly", "provider_unavailable")
    assert (tally.generation_id, tally.finish_reasons, tally.usage) == ("gen-2", {0: "error"}, None)
    assert (tally.done, tally.ending) == (False, "failed")


def test_vllm_s_failure_is_one_in_spite_of_its_done_and_its_counts_so_far_are_kept() -> None:
    tally = told(VLLM)
    assert tally.failure == Failure(500, "EngineCore encountered an issue.", "InternalServerError")
    assert tally.usage == {"prompt_tokens": 5, "total_tokens": 6, "completion_tokens": 1}
    assert (tally.done, tally.ending) == (True, "failed")


def test_an_odd_stream_is_tallied() -> None:
    tally = told(ODD, choices=2)
    assert (tally.generation_id, tally.model, tally.usage) == ("gen-4", "m/m", {"prompt_tokens": 1})
    assert (tally.finish_reasons, tally.done, tally.ending) == ({0: "length", 1: "stop"}, True, "complete")


@pytest.mark.parametrize(
    ("stream", "choices", "ending"),
    [
        ("", 1, "cut"),
        (": OPENROUTER PROCESSING\n\n", 1, "cut"),
        (finished(None), 1, "cut"),
        (finished(""), 1, "cut"),
        (finished("stop"), 1, "complete"),
        (finished("length") + chunk(usage={"cost": 1}), 1, "complete"),
        (finished("stop"), 2, "cut"),
        (finished("stop") + finished("stop"), 2, "cut"),
        (finished("stop") + finished("tool_calls", 1), 2, "complete"),
        (finished("stop") + "data: [DONE]\n\n", 2, "complete"),
        (finished(None) + "data: [DONE]\n\n", 1, "complete"),
        (finished(None) + "data: [DONE]", 1, "complete"),
        (finished(None) + "data: [DON", 1, "cut"),
        (finished("error"), 1, "failed"),
        (finished("error") + "data: [DONE]\n\n", 1, "failed"),
        (finished("stop") + finished("error", 1), 2, "failed"),
        (chunk(error={"code": 502, "message": "x"}), 1, "failed"),
        (chunk(error=None) + finished("stop"), 1, "complete"),
        (chunk(choices=[{"index": 0, "error": {"code": 1, "message": "x"}, "finish_reason": None}]), 1, "failed"),
        ('data: {"error":"Unauthorized"}\n\n', 1, "failed"),
    ],
)
def test_how_a_stream_ended(stream: str, choices: int, ending: Ending) -> None:
    assert told(stream, choices=choices).ending == ending


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ({"code": 429, "message": "slow"}, Failure(429, "slow")),
        ({"code": "server_error", "message": "x"}, Failure("server_error", "x")),
        ({"code": None, "message": None}, Failure(None, "")),
        ({"code": True, "message": "a\nb\x00c"}, Failure(None, "a\ufffdb\ufffdc")),
        ({"code": [], "message": "x" * 5000, "type": "t"}, Failure(None, "x" * 1000, "t")),
        ({"message": "x", "type": "t", "metadata": {"error_type": "timeout"}}, Failure(None, "x", "timeout")),
        ({"message": "x", "metadata": "none"}, Failure(None, "x")),
        ("Unauthorized", Failure(None, "Unauthorized")),
        (["odd"], Failure(None, "['odd']")),
    ],
)
def test_an_upstream_s_error_in_whatever_form_is_a_failure(error: Any, failure: Failure) -> None:
    assert told(chunk(error=error)).failure == failure


def test_a_finish_reason_is_fit_to_be_kept() -> None:
    assert told(finished("a\nb" + "x" * 500)).finish_reasons == {0: "a\ufffdb" + "x" * 253}


def test_the_first_failure_is_the_one() -> None:
    assert told(chunk(error={"code": 1}), chunk(error={"code": 2})).failure == Failure(1, "")


def test_the_last_usage_counts_and_none_is_not_zero() -> None:
    some, zero = {"prompt_tokens": 5}, {"prompt_tokens": 0, "cost": 0}
    assert told(chunk(usage=some), chunk(usage=zero)).usage == zero
    assert told(chunk(usage=some), chunk(usage=None), chunk(usage={}), chunk(usage=7)).usage == some
    assert told(chunk(usage=None), chunk()).usage is None


@pytest.mark.parametrize("blank", ["", " ", "  ", "\t"])
def test_blanks_in_a_chunk_hide_nothing(blank: str) -> None:
    tally = told(
        f'data: {{"choices":[{{"finish_reason"{blank}:{blank}"stop"}}]}}\n\n',
        f'data: {{"usage"{blank}:{blank}{{"cost":1}}}}\n\n',
        f'data: {{"error"{blank}:{blank}{{"code":1}}}}\n\n',
    )
    assert (tally.finish_reasons, tally.usage, tally.failure) == ({0: "stop"}, {"cost": 1}, Failure(1, ""))


@pytest.mark.parametrize(
    "broken", ['{"usage":{"cost":0.1}', '{"usage":{"cost":NaN}}', '[{"error":1}]', '{"id":"gen-1"']
)
def test_what_cannot_be_read_is_noted_and_nothing_is_made_of_it(broken: str) -> None:
    tally = told(f"data: {broken}\n\n")
    assert tally == Tally(events=1, unreadable=1)


def test_chunks_that_only_carry_text_are_not_read() -> None:
    """They are not even JSON here, and nobody minds."""
    assert told(
        chunk(), 'data: {"choices":[{"finish_reason":null,"delta":{"content":"\\"error\\":1"}}],"usage":null\n\n'
    ) == Tally(generation_id="gen-1", model="a/b", events=2)


def test_the_id_may_come_late_or_not_at_all() -> None:
    assert told('data: {"choices":[]}\n\n', chunk()).generation_id == "gen-1"
    assert told(chunk(), chunk(id="gen-2", usage={"cost": 1})).generation_id == "gen-1"
    assert told('data: {"choices":[{"delta":{"tool_calls":[{"id":"call_1"}]}}]}\n\n').generation_id is None


@pytest.mark.parametrize("unfit", [7, None, "", "a b", "a\n", "a\x00", "x" * 257, {"a": 1}])
def test_what_is_not_fit_to_be_kept_is_not_known(unfit: Any) -> None:
    tally = told(chunk(id=unfit, model=unfit, usage={"cost": 1}))
    assert (tally.generation_id, tally.model, tally.usage) == (None, None, {"cost": 1})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["index", "code", "message"]), inner),
    max_leaves=5,
)
choice = st.fixed_dictionaries({}, optional=dict.fromkeys(("index", "finish_reason", "error"), anything))
members = dict.fromkeys(("id", "model", "usage", "error"), anything) | {
    "choices": anything | st.lists(choice | anything)
}


@given(st.fixed_dictionaries({}, optional=members))
def test_no_chunk_upsets_the_tally_and_all_it_keeps_can_be_stored(given: dict[str, Any]) -> None:
    tally = told(f"data: {json.dumps(given)}\n\n")
    message = tally.failure.message if tally.failure else None
    kept = [tally.generation_id, tally.model, message, *tally.finish_reasons.values()]
    assert all(text is None or (text.isprintable() and text.encode().decode() == text) for text in kept)
    assert tally.unreadable == 0
    assert tally.ending in ("complete", "failed", "cut")


def test_a_whole_reply_is_tallied_like_a_stream() -> None:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"content": "x"}}]
    tally = Tally()
    tally.take_plain({"id": "gen-1", "model": "a/b", "choices": choices, "usage": {"cost": Decimal("0.1")}})
    streamed = told(finished("stop"), chunk(usage={"cost": 0.1}), "data: [DONE]\n\n")
    assert tally == replace(streamed, events=1)


@pytest.mark.parametrize(
    ("reply", "ending"),
    [
        ({"data": [], "usage": {"prompt_tokens": 1}}, "complete"),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "x"}}]}, "failed"),
        ({"error": {"code": 502, "message": "x"}}, "failed"),
    ],
)
def test_a_whole_reply_ends_whole_or_failed(reply: dict[str, Any], ending: Ending) -> None:
    tally = Tally()
    tally.take_plain(reply)
    assert tally.ending == ending


@pytest.mark.parametrize(
    ("data", "is_the_end"),
    [
        (b"[DONE]", True),
        (b" [DONE] ", True),
        (b"[done]", False),
        (b'"[DONE]"', False),
        (b"", False),
        (b"[DONE]" * 9, False),
    ],
)
def test_done_is_done(data: bytes, is_the_end: bool) -> None:
    assert is_done(data) is is_the_end


texts = st.sampled_from(
    ["hello", '"usage"', "data: x", "[DONE]", "a\\u0022usage\\u0022:1", ": comment", '"finish_reason":']
)
chunks = st.builds(
    lambda text, reason, usage: json.dumps(
        {
            "id": "gen-1",
            "model": "m",
            "choices": [{"delta": {"content": text}, "finish_reason": reason}],
            "usage": usage,
        }
    ),
    texts,
    st.sampled_from([None, None, None, "stop"]),
    st.sampled_from([None, None, None, {"prompt_tokens": 1}]),
)
whole_events = st.one_of(
    chunks.map(lambda chunk: f"data: {chunk}\n\n"),
    st.sampled_from([": ping\n\n", "data: [DONE]\n\n", "\n\n", "event: x\r\n\r\n", 'data: {"error": "x"}\n\n']),
)


@given(st.lists(whole_events, min_size=1, max_size=6), st.integers(0, 200))
def test_what_is_quiet_changes_no_tally(events: list[str], cut: int) -> None:
    """It may pass unread, is whole events, and counts as many of them as it has blank lines."""
    piece = "".join(events).encode()
    piece = piece[: len(piece) - cut]
    quiet = piece[: sse.quiet(piece)]
    tally = sse.Tally(generation_id="gen-1", awaits_start=False)
    cutter = sse.Events()
    found = list(cutter.feed(quiet))
    for event in found:
        tally.see(event.data)
    assert tally == sse.Tally(generation_id="gen-1", events=len(found))
    assert cutter.is_between
    assert b"".join(event.raw for event in found) == quiet
    assert len([event for event in found if event.data]) <= quiet.count(b"\n\n")


def test_mere_text_is_quiet_and_the_end_of_a_stream_is_not() -> None:
    text = b'data: {"id":"gen-1","choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n' * 3
    stop = b'data: {"id":"gen-1","choices":[{"delta":{"content":""},"finish_reason":"stop"}]}\n\n'
    assert sse.quiet(text) == len(text)
    assert sse.quiet(text + stop) == sse.quiet(text + b"data: [DONE]\n\n") == sse.quiet(text + text[:20]) == len(text)
    assert sse.quiet(stop) == sse.quiet(b": ping\n\n") == sse.quiet(text[:20]) == 0


def a_chunk(*choices: dict[str, Any]) -> bytes:
    return json.dumps({"id": "gen-1", "choices": list(choices)}).encode()


@given(st.sampled_from(sorted(COUNTED)), st.lists(st.integers(1, 400), max_size=30), st.sampled_from(["delta", "text"]))
def test_what_was_said_is_never_estimated_below_what_a_tokenizer_counts(name: str, cuts: list[int], kind: str) -> None:
    """However the server cuts it into chunks, and though it counts the end of the answer too."""
    text, counted = COUNTED[name]
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    tally = Tally(counts=True)
    for start, end in pairwise(places):
        piece = text[start:end]
        tally.see(a_chunk({"index": 0, "text": piece} if kind == "text" else {"delta": {"content": piece}}))
    assert counted + 1 <= tally.said_tokens <= len(text.encode()) + END_TOKENS


def test_all_that_a_model_says_is_counted_and_nothing_that_its_server_says() -> None:
    tally = Tally(choices=2, counts=True)
    tally.see(a_chunk({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}))
    assert tally.said_tokens == 0
    tally.see(a_chunk({"index": 0, "delta": {"reasoning_content": "A"}}, {"index": 1, "delta": {"content": "BC"}}))
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "F", "arguments": "{}"}}
    tally.see(a_chunk({"index": 1, "delta": {"tool_calls": [call]}, "logprobs": {"content": [{"token": "BC"}]}}))
    tally.see(a_chunk({"index": 1, "delta": {}, "finish_reason": "tool_calls"}))
    assert tally.said_tokens == 1 + 2 + 1 + 2 + CALL_TOKENS + 2 * END_TOKENS


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_choices_upset_the_count(choices: Any) -> None:
    tally = Tally(counts=True)
    tally.see(json.dumps({"choices": choices}).encode())
    assert tally.said_tokens >= 0


def apart(choices: int, prompts: int = 1) -> Tally:
    return Tally(choices=choices, prompts=prompts, apart=True, counts=True)


def one(index: int, prompt_tokens: int, completion_tokens: int, cached: int = 0) -> bytes:
    """The end of a choice, as llama.cpp states it."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    choice = {"index": index, "text": "", "finish_reason": "stop"}
    return json.dumps(
        {"choices": [choice], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": cached}}}
    ).encode()


@pytest.mark.parametrize(
    ("prompts", "ends", "counted"),
    [
        (1, [one(0, 31, 6, 30), one(1, 31, 4)], (31, 10, 0)),
        (2, [one(1, 20, 4), one(0, 7, 5)], (27, 9, 0)),
        (2, [one(0, 7, 1), one(1, 7, 2), one(2, 20, 3), one(3, 20, 4)], (27, 10, 0)),
    ],
    ids=["two answers to a prompt", "two prompts", "two answers to each of two prompts"],
)
def test_usages_that_come_apart_are_added_when_all_have_come(
    prompts: int, ends: list[bytes], counted: tuple[int, int, int]
) -> None:
    tally = apart(len(ends), prompts)
    for end in ends:
        assert tally.usage is None
        tally.see(end)
    usage = tally.usage or {}
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], cached) == counted
    assert not tally.is_guessed


def test_one_usage_for_several_choices_is_that_of_all() -> None:
    tally = apart(2)
    tally.see(b'{"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":10}}')
    tally.see(b"[DONE]")
    assert tally.usage == {"prompt_tokens": 31, "completion_tokens": 10}


def plainly(*texts: str, prompts: int = 1) -> Tally:
    """A plain answer that states the usage of its first choice."""
    tally = apart(len(texts), prompts)
    choices = [{"index": place, "text": text, "finish_reason": "stop"} for place, text in enumerate(texts)]
    tally.take_plain({"choices": choices, "usage": {"prompt_tokens": 31, "completion_tokens": 6}})
    return tally


def test_the_other_choices_of_a_plain_answer_are_guessed_by_the_first() -> None:
    tally = plainly("The sea is wide", "The sea is wide", "The sea is wide and deep and wide")
    assert tally.is_guessed
    assert (tally.usage or {})["prompt_tokens"] == 31
    assert 18 <= (tally.usage or {})["completion_tokens"] <= 27


@pytest.mark.parametrize("tally", [plainly("", "The sea is wide"), plainly("a", "b", prompts=2)])
def test_what_the_first_choice_does_not_tell_is_no_usage(tally: Tally) -> None:
    assert tally.usage is None
    assert tally.ending == "complete"
