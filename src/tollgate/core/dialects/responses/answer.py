"""The answer of a chat server as one of /v1/responses.

Reasoning is the summary of its item: the events of a summary are the same in OpenAI's API and in the Open Responses
specification, clients show summaries, and they send them back. The events of raw reasoning differ between the two.
"""

from collections.abc import Mapping
from typing import Any, Final

from tollgate.core.dialects import chat
from tollgate.core.dialects.chat import ChatEvents, Item, Object
from tollgate.core.dialects.responses.request import ENCRYPTED
from tollgate.core.fields import as_mapping, as_mappings

END: Final = b"data: [DONE]\n\n"
INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
PREFIXES: Final[Mapping[chat.Kind, str]] = {"reasoning": "rs", "text": "msg", "refusal": "msg", "call": "fc"}
DEFAULTS: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "user": None,
}
"""Of the members that an answer repeats as they were asked."""
AS_IT_IS: Final[Mapping[str, Any]] = {
    "background": False,
    "store": False,
    "previous_response_id": None,
    "service_tier": "default",
    "top_logprobs": 0,
    "truncation": "disabled",
}


def answer(asked: Mapping[str, Any], chat_answer: Mapping[str, Any], now: int) -> Object:
    events = Events(asked)
    events.feed(chat.as_chunk(chat_answer))
    last = events.finish(now)[-1]
    response: Object = last["response"]
    return response


def error(error: Mapping[str, Any], status: int, request_id: str | None = None) -> Object:
    """Our errors have OpenAI's shape already."""
    return {"error": dict(error)}


class Events(ChatEvents):
    def __init__(self, asked: Mapping[str, Any]) -> None:
        super().__init__(asked)
        self._repeated = _repeated(asked)
        self._sent = 0

    def began(self) -> list[Object]:
        response = self._response("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def opened(self, item: Item) -> list[Object]:
        shown = {**self._item(item), "status": "in_progress", **_EMPTY[item.kind]}
        added = self._event("response.output_item.added", output_index=item.index, item=shown)
        return [added] if item.kind == "call" else [added, self._part_event(item, "added", "")]

    def added(self, item: Item, text: str) -> Object:
        return self._within(item, f"{_TEXT_EVENTS[item.kind]}.delta", delta=text, **_LOGARITHMS.get(item.kind, {}))

    def closed(self, item: Item) -> list[Object]:
        whole = self._within(item, f"{_TEXT_EVENTS[item.kind]}.done", **_whole(item))
        part = [] if item.kind == "call" else [self._part_event(item, "done", item.text)]
        done = self._event("response.output_item.done", output_index=item.index, item=self._item(item))
        return [whole, *part, done]

    def ended(self, now: int) -> list[Object]:
        reason = INCOMPLETE.get(self.facts.finish_reason or "")
        if reason:
            response = self._response("incomplete", incomplete_details={"reason": reason})
            return [self._event("response.incomplete", response=response)]
        return [self._event("response.completed", response=self._response("completed", completed_at=now))]

    def failed(self, failure: Mapping[str, Any], status: int) -> list[Object]:
        """The error is in an object, as the specification has it, and beside it, as OpenAI's API has it."""
        stated = {
            name: None if failure.get(name) is None else str(failure[name]) for name in ("message", "code", "param")
        }
        kind = failure.get("type") or "server_error"
        code = "rate_limit_exceeded" if stated["code"] == "rate_limit_exceeded" else "server_error"
        response = self._response("failed", error={"code": code, "message": stated["message"]})
        return [
            self._event("error", error={**failure, **stated, "type": kind}, **stated),
            self._event("response.failed", response=response),
        ]

    def _event(self, kind: str, **members: Any) -> Object:
        self._sent += 1
        return {"type": kind, "sequence_number": self._sent - 1, **members}

    def _within(self, item: Item, kind: str, **members: Any) -> Object:
        place = {"content_index": 0} if item.kind in ("text", "refusal") else {}
        place = {"summary_index": 0} if item.kind == "reasoning" else place
        return self._event(kind, item_id=self._id(item), output_index=item.index, **place, **members)

    def _part_event(self, item: Item, change: str, text: str) -> Object:
        kind = "reasoning_summary_part" if item.kind == "reasoning" else "content_part"
        return self._within(item, f"response.{kind}.{change}", part=_part(item.kind, text))

    def _id(self, item: Item) -> str:
        return f"{PREFIXES[item.kind]}_{self.facts.id}_{item.index}"

    def _item(self, item: Item) -> Object:
        about = {"id": self._id(item), "status": "completed" if item.is_whole else "incomplete"}
        if item.kind == "call":
            call_id = item.call_id or f"call_{self.facts.id}_{item.index}"
            return {"type": "function_call", **about, "call_id": call_id, "name": item.name, "arguments": item.text}
        part = _part(item.kind, item.text)
        if item.kind != "reasoning":
            return {"type": "message", **about, "role": "assistant", "content": [part]}
        included = {"encrypted_content": item.source} if ENCRYPTED in (self.asked.get("include") or ()) else {}
        return {"type": "reasoning", **about, "summary": [part], **included}

    def _response(self, status: str, **more: Any) -> Object:
        return {
            "id": f"resp_{self.facts.id}",
            "object": "response",
            "created_at": self.facts.created,
            "completed_at": None,
            "status": status,
            "incomplete_details": None,
            "error": None,
            "model": self.model,
            **AS_IT_IS,
            **self._repeated,
            "output": [self._item(item) for item in self.items.all],
            "usage": None if status == "in_progress" else self._usage(),
            **more,
        }

    def _usage(self) -> Object | None:
        if not self.facts.usage:
            return None
        usage = chat.usage(self.facts.usage)
        return {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
            **usage.beside,
        }


_EMPTY: Final[Mapping[chat.Kind, Object]] = {
    "reasoning": {"summary": []},
    "text": {"content": []},
    "refusal": {"content": []},
    "call": {"arguments": ""},
}
_TEXT_EVENTS: Final[Mapping[chat.Kind, str]] = {
    "reasoning": "response.reasoning_summary_text",
    "text": "response.output_text",
    "refusal": "response.refusal",
    "call": "response.function_call_arguments",
}


_LOGARITHMS: Final[Mapping[chat.Kind, Object]] = {"text": {"logprobs": []}}


def _whole(item: Item) -> Object:
    if item.kind == "call":
        return {"arguments": item.text, "name": item.name}
    return {"refusal" if item.kind == "refusal" else "text": item.text, **_LOGARITHMS.get(item.kind, {})}


def _part(kind: chat.Kind, text: str) -> Object:
    if kind == "reasoning":
        return {"type": "summary_text", "text": text}
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _repeated(asked: Mapping[str, Any]) -> Object:
    """What an answer repeats of its request, with every member that the specification requires."""
    as_asked = {name: default if asked.get(name) is None else asked[name] for name, default in DEFAULTS.items()}
    return {
        **as_asked,
        "tool_choice": _choice(as_asked["tool_choice"]),
        "reasoning": _members(asked["reasoning"], ("effort", "summary")) if asked.get("reasoning") else None,
        "text": _text(as_mapping(asked.get("text"))),
        "tools": [
            {"type": "function", **_members(tool, ("name", "description", "parameters", "strict"))}
            for tool in as_mappings(asked.get("tools"))
        ],
    }


def _choice(asked: Any) -> Any:
    """Allowed tools have a mode, also where the request left it out."""
    return {"mode": "auto", **asked} if as_mapping(asked).get("type") == "allowed_tools" else asked


def _text(text: Mapping[str, Any]) -> Object:
    given = as_mapping(text.get("format")) or {"type": "text"}
    if given["type"] == "json_schema":
        named = _members(given, ("type", "name", "description", "schema"))
        given = {**named, "strict": bool(given.get("strict"))}
    return {"format": given, **chat.given(verbosity=text.get("verbosity"))}


def _members(given: Mapping[str, Any], names: tuple[str, ...]) -> Object:
    return {name: given.get(name) for name in names}
