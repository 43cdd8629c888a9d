"""What the Open Responses specification (2026-04-24) requires of a stream: the members of each object with their types,
and the order of events. Its names, without those of tools and contents that a translation never has."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from tollgate.core.dialects.chat import Object

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]


class Refusal(TypedDict):
    type: Literal["refusal"]
    refusal: str


class SummaryText(TypedDict):
    type: Literal["summary_text"]
    text: str


Part = Annotated[OutputText | Refusal | SummaryText, Field(discriminator="type")]


class Message(TypedDict):
    type: Literal["message"]
    id: str
    status: Status
    role: Literal["assistant"]
    content: list[Part]


class FunctionCall(TypedDict):
    type: Literal["function_call"]
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


class Reasoning(TypedDict):
    type: Literal["reasoning"]
    id: str
    summary: list[Part]


Item = Annotated[Message | FunctionCall | Reasoning, Field(discriminator="type")]


class Code(TypedDict):
    code: str
    message: str


class Reason(TypedDict):
    reason: str


class Cached(TypedDict):
    cached_tokens: int


class Reasoned(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: Cached
    output_tokens_details: Reasoned


class Tool(TypedDict):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class NamedTool(TypedDict):
    type: Literal["function"]
    name: str


class AllowedTools(TypedDict):
    type: Literal["allowed_tools"]
    tools: list[NamedTool]
    mode: Literal["none", "auto", "required"]


class PlainFormat(TypedDict):
    type: Literal["text", "json_object"]


class SchemaFormat(TypedDict):
    type: Literal["json_schema"]
    name: str
    description: str | None
    schema: Any
    strict: bool


class Text(TypedDict):
    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")]


class ReasoningAsked(TypedDict):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None
    summary: Literal["concise", "detailed", "auto"] | None


class Response(TypedDict):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed"]
    incomplete_details: Reason | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[Item]
    error: Code | None
    tools: list[Tool]
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools
    truncation: Literal["auto", "disabled"]
    parallel_tool_calls: bool
    text: Text
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: ReasoningAsked | None
    user: str | None
    usage: Usage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


class Failure(TypedDict):
    type: str
    code: str | None
    message: str
    param: str | None


_OF_RESPONSE: Final = {"response": Response}
_OF_ITEM: Final = {"output_index": int, "item": Item}
_IN_ITEM: Final = {"item_id": str, "output_index": int}
_IN_CONTENT: Final = {**_IN_ITEM, "content_index": int}
_IN_SUMMARY: Final = {**_IN_ITEM, "summary_index": int}
EVENTS: Final[dict[str, dict[str, Any]]] = {
    "response.created": _OF_RESPONSE,
    "response.in_progress": _OF_RESPONSE,
    "response.completed": _OF_RESPONSE,
    "response.incomplete": _OF_RESPONSE,
    "response.failed": _OF_RESPONSE,
    "response.output_item.added": _OF_ITEM,
    "response.output_item.done": _OF_ITEM,
    "response.content_part.added": {**_IN_CONTENT, "part": Part},
    "response.content_part.done": {**_IN_CONTENT, "part": Part},
    "response.output_text.delta": {**_IN_CONTENT, "delta": str},
    "response.output_text.done": {**_IN_CONTENT, "text": str},
    "response.refusal.delta": {**_IN_CONTENT, "delta": str},
    "response.refusal.done": {**_IN_CONTENT, "refusal": str},
    "response.reasoning_summary_part.added": {**_IN_SUMMARY, "part": Part},
    "response.reasoning_summary_part.done": {**_IN_SUMMARY, "part": Part},
    "response.reasoning_summary_text.delta": {**_IN_SUMMARY, "delta": str},
    "response.reasoning_summary_text.done": {**_IN_SUMMARY, "text": str},
    "response.function_call_arguments.delta": {**_IN_ITEM, "delta": str},
    "response.function_call_arguments.done": {**_IN_ITEM, "arguments": str},
    "error": {"error": Failure},
}
"""Of each event that a translation sends, what is required beside `type` and `sequence_number`."""
LEFT_OUT: Final = {
    "response.queued": "no answer is queued",
    "response.output_text.annotation.added": "chat servers have no annotations that are translated",
    "response.reasoning.delta": "reasoning is shown as its summary",
    "response.reasoning.done": "reasoning is shown as its summary",
}
"""The other events of the specification, and why a translation has none of them."""
WITHIN: Final = {
    "reasoning": ("reasoning_summary_part.added", "reasoning_summary_text", "reasoning_summary_part.done"),
    "output_text": ("content_part.added", "output_text", "content_part.done"),
    "refusal": ("content_part.added", "refusal", "content_part.done"),
    "function_call": ("", "function_call_arguments", ""),
}
"""The events between those of an item: before its deltas, the deltas and their end, and after them."""

_RESPONSE: Final = TypeAdapter[Any](Response)
_EVENTS: Final = {
    kind: TypeAdapter[Any](
        TypedDict("Event", {"type": Literal[kind], "sequence_number": int, **members})  # type: ignore[misc]
    )
    for kind, members in EVENTS.items()
}


def is_response(response: Object) -> None:
    """It has every member that is required, and each has the type that is required."""
    _RESPONSE.validate_python(response, strict=True)


def is_event(event: Object) -> None:
    _EVENTS[event["type"]].validate_python(event, strict=True)


def is_stream(events: list[Object]) -> None:
    """Each event is as required, numbers have no gap, and items come one after the other, each with its own events."""
    for place, event in enumerate(events):
        is_event(event)
        assert event["sequence_number"] == place
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    failed = kinds[-1] == "response.failed"
    assert ("error" in kinds, kinds[-2] == "error") == (failed, failed)
    whole, rest = events[-1]["response"], events[2 : -2 if failed else -1]
    for index, item in enumerate(whole["output"]):
        of_item = [event for event in rest if event.get("output_index") == index]
        assert rest[: len(of_item)] == of_item
        rest = rest[len(of_item) :]
        _is_item(item, of_item)
    assert rest == []
    _ends_as_its_items(whole)


def _ends_as_its_items(response: Object) -> None:
    """An item that was not finished is the last, and then the answer is not complete either."""
    unfinished = [place for place, item in enumerate(response["output"]) if item["status"] == "incomplete"]
    assert unfinished in ([], [len(response["output"]) - 1])
    assert not (unfinished and response["status"] == "completed")


def _is_item(item: Object, events: list[Object]) -> None:
    """Where the answer failed, the events of its last item end early."""
    kind = item["content"][0]["type"] if item["type"] == "message" else item["type"]
    before, within, after = WITHIN[kind]
    added, *inner = events
    assert added["type"] == "response.output_item.added"
    assert added["item"]["status"] == "in_progress"
    done = inner.pop() if inner and inner[-1]["type"] == "response.output_item.done" else None
    assert done is None or done["item"] == item
    deltas = "".join(event["delta"] for event in inner if event["type"] == f"response.{within}.delta")
    assert deltas in (item.get("arguments"), *(text for part in _parts(item) for text in part.values()))
    kinds = [event["type"] for event in inner if not event["type"].endswith(".delta")]
    wanted = [f"response.{name}" for name in (before, f"{within}.done", after) if name]
    assert kinds == wanted if done else kinds == wanted[: len(kinds)]
    assert (done is None) == (len(kinds) < len(wanted))
    assert all(event["item_id"] == item["id"] for event in inner)


def _parts(item: Object) -> list[Object]:
    parts = item.get("content") or item.get("summary") or []
    return [{name: text for name, text in part.items() if name in ("text", "refusal")} for part in parts]
