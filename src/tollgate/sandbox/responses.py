"""Answers in the form of OpenAI's Responses, as OpenRouter gives them."""

from collections.abc import Iterator
from typing import Any

from tollgate.sandbox import parameters
from tollgate.sandbox.encoding import encode, utf8
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.parameters import Parameters
from tollgate.sandbox.refusals import PROVIDER_ERROR
from tollgate.sandbox.speech import Said
from tollgate.sandbox.stream import DONE, PROCESSING, Event, Script, gigantic, with_excess
from tollgate.sandbox.usage_names import of_responses

Item = dict[str, Any]

ERROR = {"code": "server_error", "message": PROVIDER_ERROR["message"]}
STATUSES = {"length": "incomplete", "error": "failed"}
ENDS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}
USUAL: dict[str, Any] = {
    **dict.fromkeys(
        ("instructions", "max_output_tokens", "metadata", "previous_response_id", "reasoning", "temperature", "top_p")
    ),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "user", "safety_identifier", "prompt_cache_key")),
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "background": False,
    "store": False,
    "service_tier": "default",
    "text": {"format": {"type": "text"}},
    "truncation": "disabled",
    "top_logprobs": 0,
}
"""What an answer repeats of its request, and what it says where the request said nothing."""

read = parameters.responses


def whole(generation: Generation, params: Parameters, said: Said, reported: dict[str, Any]) -> str:
    status = STATUSES.get(str(said.finish), "completed")
    items = _items(generation, with_excess(said, generation.faults), status)
    return encode(_answer(generation, params, status, items) | of_responses(reported))


class Stream:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._generation = script.generation
        self._sent = 0
        self._index = 0

    def opening(self) -> Iterator[Event]:
        faults = self._script.faults
        yield Event(PROCESSING)
        begun = self._answer("in_progress", []) | {"usage": None}
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        if "many" in faults:
            yield from (self._event("response.in_progress", response=begun) for _ in range(faults.whole("many")))
        if "bad-json" in faults:
            yield Event(b'event: response.in_progress\ndata: {"type":\n\n')

    def telling(self) -> Iterator[Event]:
        said = self._script.said
        if said.reasoning:
            yield from self._part(self._item("reasoning"), "reasoning_text", said.reasoning, reasoning=1)
        if said.content:
            yield from self._part(self._item("message"), "output_text", said.content, gigantic(self._script.faults))
        if said.call:
            yield from self._call(self._item("function_call"))

    def closing(self) -> Iterator[Event]:
        status = STATUSES.get(str(self._script.said.finish), "completed")
        items = _items(self._generation, self._script.said, status)
        yield self._event(ENDS[status], response=self._answer(status, items) | of_responses(self._script.usage))
        if "no-done" not in self._script.faults:
            yield Event(DONE)

    def failing(self) -> Iterator[Event]:
        answer = self._answer("failed", []) | {"usage": None, "error_type": PROVIDER_ERROR["metadata"]["error_type"]}
        yield self._event("response.failed", response=answer)

    def _part(
        self, item: Item, kind: str, tokens: list[str], excess: str = "", *, reasoning: int = 0
    ) -> Iterator[Event]:
        place: dict[str, Any] = {"item_id": item["id"], "output_index": self._index, "content_index": 0}
        logprobs: dict[str, Any] = {} if reasoning else {"logprobs": []}
        yield self._added(item | {"content": []})
        yield self._event("response.content_part.added", **place, part=_text(kind, ""))
        if excess:
            yield self._event(f"response.{kind}.delta", **place, delta=excess, **logprobs)
        for token in tokens:
            yield self._event(f"response.{kind}.delta", 1, reasoning, **place, delta=token, **logprobs)
        yield self._event(f"response.{kind}.done", **place, text="".join(tokens), **logprobs)
        yield self._event("response.content_part.done", **place, part=_text(kind, "".join(tokens)))
        yield self._done(item)

    def _call(self, item: Item) -> Iterator[Event]:
        call = self._script.said.call
        assert call  # noqa: S101
        place: dict[str, Any] = {"item_id": item["id"], "output_index": self._index}
        yield self._added(item | {"arguments": ""}, call.tokens - len(call.arguments))
        for token in call.arguments:
            yield self._event("response.function_call_arguments.delta", 1, **place, delta=token)
        done: dict[str, Any] = {"name": call.name, "arguments": "".join(call.arguments)}
        yield self._event("response.function_call_arguments.done", **place, **done)
        yield self._done(item)

    def _item(self, kind: str) -> Item:
        items = _items(self._generation, self._script.said, "completed")
        return next(item for item in items if item["type"] == kind)

    def _added(self, item: Item, tokens: int = 0) -> Event:
        begun = item | {"status": "in_progress"}
        return self._event("response.output_item.added", tokens, output_index=self._index, item=begun)

    def _done(self, item: Item) -> Event:
        self._index += 1
        return self._event("response.output_item.done", output_index=self._index - 1, item=item)

    def _answer(self, status: str, items: list[Item]) -> dict[str, Any]:
        return _answer(self._generation, self._script.params, status, items)

    def _event(self, kind: str, tokens: int = 0, reasoning: int = 0, **members: Any) -> Event:
        told = {"type": kind, "sequence_number": self._sent, **members}
        self._sent += 1
        return Event(utf8(f"event: {kind}\ndata: {encode(told)}\n\n"), tokens, reasoning)


def _answer(generation: Generation, params: Parameters, status: str, items: list[Item]) -> dict[str, Any]:
    named = {} if "no-id" in generation.faults else {"id": generation.id.replace("gen-", "resp_", 1)}
    repeated = {name: usual if params.asked.get(name) is None else params.asked[name] for name, usual in USUAL.items()}
    return {
        **named,
        "object": "response",
        "created_at": int(generation.started),
        "completed_at": int(generation.started) if status == "completed" else None,
        "status": status,
        "error": ERROR if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": generation.shown_model,
        "output": items,
        **repeated,
    }


def _items(generation: Generation, said: Said, status: str) -> list[Item]:
    """All of what was said."""
    items: list[Item] = []
    if said.reasoning:
        content = [_text("reasoning_text", "".join(said.reasoning))]
        items.append({"type": "reasoning", "id": _id(generation, "rs"), "summary": [], "content": content})
    if said.content:
        content = [_text("output_text", "".join(said.content))]
        items.append({"type": "message", "id": _id(generation, "msg"), "role": "assistant", "content": content})
    if said.call:
        call = {"call_id": generation.call_id, "name": said.call.name, "arguments": "".join(said.call.arguments)}
        items.append({"type": "function_call", "id": _id(generation, "fc"), **call})
    return [item | {"status": "completed" if status == "failed" else status} for item in items]


def _text(kind: str, text: str) -> Item:
    return {"type": kind, "text": text} | ({"annotations": [], "logprobs": []} if kind == "output_text" else {})


def _id(generation: Generation, kind: str) -> str:
    return generation.id.replace("gen-", f"{kind}_", 1)
