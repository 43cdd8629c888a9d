"""The answer of a chat server as one of /v1/messages."""

from collections.abc import Mapping
from typing import Any, Final

from tollgate.core.dialects import chat
from tollgate.core.dialects.chat import ChatEvents, Item, Object
from tollgate.core.errors import anthropic_type

END: Final = b""
STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
INVALID_INPUT: Final = "INVALID_JSON"
"""Where a call's arguments are not an object, its input has them as text under this name."""


def answer(asked: Mapping[str, Any], chat_answer: Mapping[str, Any], now: int) -> Object:
    events = Events(asked)
    events.feed(chat.as_chunk(chat_answer))
    events.finish(now)
    return events.message()


def error(error: Mapping[str, Any], status: int, request_id: str | None = None) -> Object:
    """Our code and facts stay beside the type that Anthropic has for this status."""
    return {"type": "error", "error": {**error, "type": anthropic_type(status)}, "request_id": request_id}


class Events(ChatEvents):
    def message(self) -> Object:
        """The whole answer."""
        content = [self._block(item) for item in self.items.all]
        return {**self._head(), "content": content, **self._stop(), "usage": self._usage()}

    def began(self) -> list[Object]:
        message = {**self._head(), "content": [], **_stopped(None, None), "usage": self._usage()}
        return [{"type": "message_start", "message": message}]

    def opened(self, item: Item) -> list[Object]:
        return [{"type": "content_block_start", "index": item.index, "content_block": self._empty(item)}]

    def added(self, item: Item, text: str) -> Object:
        return _delta(item, _grown(item, text))

    def closed(self, item: Item) -> list[Object]:
        signed = {"type": "signature_delta", "signature": item.source}
        stop = {"type": "content_block_stop", "index": item.index}
        return [_delta(item, signed), stop] if item.kind == "reasoning" else [stop]

    def ended(self, now: int) -> list[Object]:
        return [{"type": "message_delta", "delta": self._stop(), "usage": self._usage()}, {"type": "message_stop"}]

    def failed(self, failure: Mapping[str, Any], status: int) -> list[Object]:
        return [error(failure, status)]

    def _head(self) -> Object:
        return {"id": f"msg_{self.facts.id}", "type": "message", "role": "assistant", "model": self.model}

    def _empty(self, item: Item) -> Object:
        if item.kind == "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return self._tool_use(item, {}) if item.kind == "call" else chat.text_part("")

    def _block(self, item: Item) -> Object:
        if item.kind == "reasoning":
            return {"type": "thinking", "thinking": item.text, "signature": item.source}
        if item.kind == "call":
            arguments = chat.parsed(item.text)
            return self._tool_use(item, {INVALID_INPUT: item.text} if arguments is None else arguments)
        return chat.text_part(item.text)

    def _tool_use(self, item: Item, arguments: Object) -> Object:
        call_id = item.call_id or f"call_{self.facts.id}_{item.index}"
        return {"type": "tool_use", "id": call_id, "name": item.name, "input": arguments}

    def _stop(self) -> Object:
        """Some servers say `stop` although they call a tool. Which stop sequence it was, only some servers say."""
        kinds, reason = {item.kind for item in self.items.all}, self.facts.finish_reason or "stop"
        sequence = self.facts.stopped_by if self.facts.stopped_by in (self.asked.get("stop_sequences") or ()) else None
        stopped = STOP_REASONS.get(reason, "end_turn")
        if "refusal" in kinds:
            stopped = "refusal"
        elif stopped == "end_turn":
            stopped = "tool_use" if "call" in kinds else "stop_sequence" if sequence else "end_turn"
        return _stopped(stopped, sequence if stopped == "stop_sequence" else None)

    def _usage(self) -> Object:
        usage = chat.usage(self.facts.usage)
        return {
            "input_tokens": usage.uncached,
            "cache_creation_input_tokens": usage.cache_write,
            "cache_read_input_tokens": usage.cache_read,
            "output_tokens": usage.output,
            "output_tokens_details": {"thinking_tokens": usage.reasoning},
            **usage.beside,
        }


def _stopped(reason: str | None, sequence: str | None) -> Object:
    return {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None}


def _grown(item: Item, text: str) -> Object:
    if item.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": text}
    if item.kind == "call":
        return {"type": "input_json_delta", "partial_json": text}
    return {"type": "text_delta", "text": text}


def _delta(item: Item, delta: Object) -> Object:
    return {"type": "content_block_delta", "index": item.index, "delta": delta}
