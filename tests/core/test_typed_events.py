"""What is read of typed events: usage under both names, the end, failures, and ids that OpenRouter knows."""

import json
from typing import Any

import pytest

from tollgate.core.sse import Tally
from tollgate.core.typed_events import MessagesTally, ResponsesTally

START = {"type": "message_start", "message": {"id": "msg_1", "model": "a/b", "usage": {"input_tokens": 5}}}
STOP = {"type": "message_stop"}


def delta(**usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


def told(tally: Tally, *events: dict[str, Any]) -> Tally:
    for event in events:
        tally.see(json.dumps(event).encode())
    return tally


def counts(tally: Tally) -> tuple[Any, Any]:
    assert tally.usage is not None
    return tally.usage["prompt_tokens"], tally.usage["completion_tokens"]


def test_the_prompt_of_a_message_is_the_sum_of_three_counts() -> None:
    cached = delta(output_tokens=7, cache_read_input_tokens=100, cache_creation_input_tokens=20, cost=1)
    tally = told(MessagesTally(), START, cached, STOP)
    assert counts(tally) == (125, 7)
    assert tally.usage is not None
    assert (tally.usage["input_tokens"], tally.usage["cost"]) == (5, 1)
    assert (tally.ending, tally.model, tally.generation_id) == ("complete", "a/b", None)


def test_the_end_overrules_the_start_and_null_does_not() -> None:
    assert counts(told(MessagesTally(), START, delta(input_tokens=9, output_tokens=7))) == (9, 7)
    assert counts(told(MessagesTally(), START, delta(input_tokens=None, output_tokens=7))) == (5, 7)


@pytest.mark.parametrize("odd", ["5", True, 1.5, {}])
def test_a_count_that_is_none_makes_the_sum_none(odd: Any) -> None:
    prompt, _ = counts(told(MessagesTally(), delta(input_tokens=odd, cache_read_input_tokens=3, output_tokens=1)))
    assert prompt == odd
    assert type(prompt) is not int


def test_a_message_that_breaks_off_after_its_start_has_no_usage() -> None:
    tally = told(MessagesTally(), START, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}})
    assert (tally.usage, tally.ending, tally.events) == (None, "cut", 2)


@pytest.mark.parametrize("kind", ["completed", "incomplete"])
def test_a_response_ends_with_its_last_event_and_not_with_done(kind: str) -> None:
    answer = {"id": "gen-1", "status": kind, "usage": {"input_tokens": 3, "output_tokens": 2}}
    begun = {"type": "response.created", "response": {**answer, "usage": None}}
    tally = told(ResponsesTally(), begun)
    tally.see(b"[DONE]")
    assert (tally.ending, tally.generation_id, tally.usage) == ("cut", "gen-1", None)
    told(tally, {"type": f"response.{kind}", "response": answer})
    assert (tally.ending, counts(tally)) == ("complete", (3, 2))


FAILURES: list[tuple[type[Tally], dict[str, Any]]] = [
    (MessagesTally, {"type": "error", "error": {"type": "api_error", "message": "no"}}),
    (MessagesTally, {"error": {"message": "no"}}),
    (ResponsesTally, {"type": "error", "code": "server_error", "message": "no"}),
    (ResponsesTally, {"type": "response.failed", "response": {"status": "failed", "error": {"message": "no"}}}),
    (ResponsesTally, {"error": {"message": "no"}}),
]


@pytest.mark.parametrize(("kind", "event"), FAILURES)
def test_a_failure_is_one_in_every_form(kind: type[Tally], event: dict[str, Any]) -> None:
    tally = told(kind(), event)
    assert tally.ending == "failed"
    assert tally.failure is not None
    assert tally.failure.message == "no"


@pytest.mark.parametrize("identifier", ["msg_1", "resp_1", "chatcmpl-1", 7, None, "gen-\n"])
def test_an_id_that_openrouter_cannot_look_up_is_none(identifier: Any) -> None:
    """A lookup by it would find nothing, as if the call had cost nothing."""
    message = {"type": "message", "id": identifier, "usage": {"input_tokens": 1, "output_tokens": 1}}
    tally = MessagesTally()
    tally.take_plain(message)
    assert (tally.generation_id, tally.ending, counts(tally)) == (None, "complete", (1, 1))


def test_texts_of_own_servers_are_counted_and_their_repetition_is_not() -> None:
    said = {"type": "response.output_text.delta", "delta": "five words of some text"}
    whole = {"type": "response.output_text.done", "text": said["delta"]}
    once = told(ResponsesTally(counts=True), said).said_tokens
    assert 0 < once == told(ResponsesTally(counts=True), said, whole).said_tokens
    block = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": said["delta"]}}
    signed = {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x" * 900}}
    assert told(MessagesTally(counts=True), block, signed).said_tokens == once
