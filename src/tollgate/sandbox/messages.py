"""Answers in the form of Anthropic's Messages, as OpenRouter gives them."""

from collections.abc import Iterator
from typing import Any

from tollgate.sandbox import parameters
from tollgate.sandbox.catalog import PROVIDER
from tollgate.sandbox.encoding import encode, utf8
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.parameters import Parameters
from tollgate.sandbox.refusals import PROVIDER_ERROR, anthropic_error
from tollgate.sandbox.speech import Call, Said
from tollgate.sandbox.stream import PROCESSING, Event, Script, gigantic, with_excess
from tollgate.sandbox.usage_names import of_messages

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", None: None}
SIGNATURE = "c2FuZGJveA=="
TEXT = {"type": "text", "text": "", "citations": None}
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
ERROR = anthropic_error(502, PROVIDER_ERROR["message"], PROVIDER_ERROR["metadata"])

read = parameters.messages


def whole(generation: Generation, params: Parameters, said: Said, reported: dict[str, Any]) -> str:
    if said.finish == "error":
        return encode(ERROR | {"request_id": generation.id})
    said = with_excess(said, generation.faults)
    blocks: list[dict[str, Any]] = [
        *([{**THOUGHT, "thinking": "".join(said.reasoning), "signature": SIGNATURE}] if said.reasoning else []),
        *([{**TEXT, "text": "".join(said.content)}] if said.content else []),
        *([_call(generation, said.call, "".join(said.call.arguments))] if said.call else []),
    ]
    return encode(_message(generation, blocks, STOP_REASONS[said.finish]) | of_messages(reported))


class Stream:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._generation = script.generation
        self._index = 0

    def opening(self) -> Iterator[Event]:
        faults = self._script.faults
        yield Event(PROCESSING)
        opened = of_messages(self._script.usage).get("usage") or {}
        prompt = {name: value for name, value in opened.items() if name.startswith(("input", "cache"))}
        usage = {"usage": {**prompt, "output_tokens": 0}} if opened else {}
        yield _event("message_start", message=_message(self._generation, [], None) | usage)
        yield _event("ping")
        if "many" in faults:
            yield from (_event("ping") for _ in range(faults.whole("many")))
        if "bad-json" in faults:
            yield Event(b'event: ping\ndata: {"type":\n\n')

    def telling(self) -> Iterator[Event]:
        said, excess = self._script.said, gigantic(self._script.faults)
        if said.reasoning:
            yield self._starts(THOUGHT)
            yield from (self._says("thinking_delta", "thinking", token, reasoning=1) for token in said.reasoning)
            yield self._says("signature_delta", "signature", SIGNATURE, tokens=0)
            yield self._stops()
        if said.content:
            yield self._starts(TEXT)
            if excess:
                yield self._says("text_delta", "text", excess, tokens=0)
            yield from (self._says("text_delta", "text", token) for token in said.content)
            yield self._stops()
        if said.call:
            yield self._starts(_call(self._generation, said.call, None), said.call.tokens - len(said.call.arguments))
            yield from (self._says("input_json_delta", "partial_json", token) for token in said.call.arguments)
            yield self._stops()

    def closing(self) -> Iterator[Event]:
        delta = {"stop_reason": STOP_REASONS[self._script.said.finish], **_NO_MORE}
        yield _event("message_delta", delta=delta, **of_messages(self._script.usage))
        if "no-done" not in self._script.faults:
            yield _event("message_stop")

    def failing(self) -> Iterator[Event]:
        yield _event("error", error=ERROR["error"])

    def _starts(self, block: dict[str, Any], tokens: int = 0) -> Event:
        return _event("content_block_start", tokens, index=self._index, content_block=block)

    def _says(self, kind: str, name: str, token: str, tokens: int = 1, reasoning: int = 0) -> Event:
        return _event("content_block_delta", tokens, reasoning, index=self._index, delta={"type": kind, name: token})

    def _stops(self) -> Event:
        self._index += 1
        return _event("content_block_stop", index=self._index - 1)


_NO_MORE: dict[str, Any] = dict.fromkeys(("stop_sequence", "stop_details", "container"))


def _event(kind: str, tokens: int = 0, reasoning: int = 0, **members: Any) -> Event:
    return Event(utf8(f"event: {kind}\ndata: {encode({'type': kind, **members})}\n\n"), tokens, reasoning)


def _message(generation: Generation, blocks: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    named = {} if "no-id" in generation.faults else {"id": generation.id.replace("gen-", "msg_", 1)}
    return {
        **named,
        "type": "message",
        "role": "assistant",
        "model": generation.shown_model,
        "content": blocks,
        "stop_reason": reason,
        **_NO_MORE,
        "provider": PROVIDER,
    }


def _call(generation: Generation, call: Call, arguments: str | None) -> dict[str, Any]:
    named = {"type": "tool_use", "id": generation.call_id.replace("call_", "toolu_", 1), "name": call.name}
    return {**named, "input": parameters.arguments(arguments), "caller": {"type": "direct"}}
