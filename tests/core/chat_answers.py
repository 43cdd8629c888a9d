"""Answers of chat servers, whole and cut into chunks in every way."""

import json
from typing import Any

from hypothesis import strategies as st

from tollgate.core.dialects.chat import Object

HEAD: Object = {"id": "gen-1", "model": "served/model", "created": 1_755_842_000}
USAGE: Object = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 25},
    "cost": 0.25,
}


def calling(number: int, name: str = "look", arguments: str = '{"at":"sky"}') -> Object:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def answered(finish_reason: str = "stop", usage: Object | None = USAGE, **message: Any) -> Object:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}


def chunk(finish_reason: str | None = None, **delta: Any) -> Object:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def said(position: int, call: Object, arguments: str, *, first: bool) -> Object:
    """A delta of one tool call."""
    if first:
        return {"tool_calls": [{**call, "index": position, "function": {**call["function"], "arguments": arguments}}]}
    return {"tool_calls": [{"index": position, "function": {"arguments": arguments}}]}


TWO_CALLS = [calling(0), calling(1, arguments='{"at":"sea"}')]
TWO_CALLS_CUT = [
    chunk(reasoning="H"),
    chunk(reasoning="m"),
    chunk(content="I "),
    chunk(content="look."),
    chunk(**said(0, calling(0), '{"at"', first=True)),
    chunk(**said(1, calling(1), '{"at":"s', first=True)),
    chunk(**said(0, calling(0), ':"sky"}', first=False)),
    chunk(**said(1, calling(1), 'ea"}', first=False)),
]
"""Thoughts, words and both calls, before the chunk that ends the answer."""

texts = st.text(max_size=12)
objects = st.dictionaries(texts, st.one_of(st.integers(), texts, st.lists(texts, max_size=2)), max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> Object:
    source = draw(st.sampled_from(("reasoning", "reasoning_content")))
    arguments = draw(st.lists(objects.map(json.dumps), max_size=3))
    calls = [calling(number, arguments=written) for number, written in enumerate(arguments)]
    message = {
        source: draw(texts),
        "content": draw(texts),
        "refusal": draw(st.sampled_from((None, "", "No."))),
        "tool_calls": calls,
    }
    reasons = ("stop", "length", "content_filter", "tool_calls")
    return answered(draw(st.sampled_from(reasons)), usage=draw(usages), **message)


counts = st.integers(0, 1000)
usages = st.fixed_dictionaries(
    {"prompt_tokens": counts, "completion_tokens": counts},
    optional={
        "prompt_tokens_details": st.none()
        | st.fixed_dictionaries({"cached_tokens": counts, "cache_write_tokens": counts}),
        "completion_tokens_details": st.none() | st.fixed_dictionaries({"reasoning_tokens": counts}),
        "cost": st.floats(0, 10),
    },
)


@st.composite
def chunks(draw: st.DrawFn, answer: Object) -> list[Object]:
    """The same answer as a stream: texts cut anywhere, pieces of several tool calls in turn, usage apart or not."""
    choice = answer["choices"][0]
    message = choice["message"]
    deltas: list[Object] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning", "reasoning_content", "content", "refusal"):
        deltas += [{name: piece} for piece in draw(_cut(message.get(name) or ""))]
    deltas += draw(_in_turn(message["tool_calls"]))
    last = {**chunk(choice["finish_reason"])}
    if draw(st.booleans()):
        return [*(chunk(**delta) for delta in deltas), {**last, "usage": answer["usage"]}]
    return [*(chunk(**delta) for delta in deltas), last, {**HEAD, "choices": [], "usage": answer["usage"]}]


@st.composite
def _cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def _in_turn(draw: st.DrawFn, calls: list[Object]) -> list[Object]:
    """A call begins only after those before it have begun, as its place says."""
    left = [draw(_cut(call["function"]["arguments"])) for call in calls]
    begun, deltas = 0, []
    while any(left):
        places = [place for place, pieces in enumerate(left) if pieces and place <= begun]
        place = draw(st.sampled_from(places))
        deltas.append(said(place, calls[place], left[place].pop(0), first=place == begun))
        begun = max(begun, place + 1)
    return deltas
