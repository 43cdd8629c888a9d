"""A request to /v1/responses as one for chat completions."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tollgate.core import fields
from tollgate.core.dialects import chat
from tollgate.core.dialects.chat import Object
from tollgate.core.dialects.responses.tables import CHOICES, FIELDS, FORMATS, ITEMS, PARTS, REASONING, TEXT, TOOL
from tollgate.core.dialects.treatments import check, chosen, malformed, refuse
from tollgate.core.request_body import MOST_OUTPUT_TOKENS

ENCRYPTED: Final = "reasoning.encrypted_content"
AS_THEY_ARE: Final = (
    "model",
    "models",
    "provider",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "parallel_tool_calls",
    "service_tier",
    "user",
)
ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
SPOKEN: Final = ("input_text", "output_text", "refusal")
SHOWN: Final = ("input_text", "input_image", "input_file")
PARTS_BY_ROLE: Final = {"user": SHOWN, "assistant": SPOKEN, "system": ("input_text",), "tool": SHOWN}


def to_chat(asked: Mapping[str, Any]) -> Object:
    check(asked, FIELDS)
    reasoning, text = fields.mapping(asked, "reasoning"), fields.mapping(asked, "text")
    check(reasoning, REASONING, "reasoning")
    check(text, TEXT, "text")
    _refuse_logarithms(asked)
    return chat.given(
        **{name: asked.get(name) for name in AS_THEY_ARE},
        messages=chat.turns([*_instructions(asked), *_input(asked)], merged=("system", "assistant")),
        max_tokens=fields.respelled(asked, "max_output_tokens", MOST_OUTPUT_TOKENS),
        reasoning_effort=reasoning.get("effort"),
        response_format=_format(fields.mapping(text, "format", "text.format")),
        verbosity=text.get("verbosity"),
        **_tools(asked),
        **chat.streamed(fields.flag(asked, "stream")),
    )


def _refuse_logarithms(asked: Mapping[str, Any]) -> None:
    """All else that can be included is about reasoning, or about tools that are refused."""
    if "message.output_text.logprobs" in fields.listed(asked, "include"):
        refuse("include", "Logarithms of probabilities are not translated.")


def _format(given: Mapping[str, Any]) -> Object | None:
    kind = given.get("type", "text")
    check(given, chosen(FORMATS, kind, "text.format"), "text.format")
    if kind == "json_schema":
        name = chat.text_of(given.get("name"), "text.format.name")
        more = {"description": given.get("description"), "strict": given.get("strict")}
        return chat.schema_format(name, given.get("schema"), **more)
    return None if kind == "text" else {"type": kind}


def _tools(asked: Mapping[str, Any]) -> Object:
    tools = [_tool(tool, f"tools.{place}") for place, tool in enumerate(fields.mappings(asked, "tools"))]
    choice = asked.get("tool_choice")
    if not isinstance(choice, dict):
        return chat.given(tools=tools or None, tool_choice=choice)
    check(choice, chosen(CHOICES, choice.get("type"), "tool_choice"), "tool_choice")
    if choice["type"] == "function":
        return {"tools": tools, "tool_choice": {"type": "function", "function": {"name": choice.get("name")}}}
    allowed = [one.get("name") for one in fields.mappings(choice, "tools") if one.get("type") == "function"]
    kept = [tool for tool in tools if tool["function"]["name"] in allowed]
    return {"tools": kept, "tool_choice": choice.get("mode", "auto")} if kept else {}


def _tool(tool: Mapping[str, Any], path: str) -> Object:
    check(tool, TOOL, path)
    name = chat.text_of(tool.get("name"), f"{path}.name")
    return chat.function(name, tool.get("description"), tool.get("parameters"), tool.get("strict"))


def _instructions(asked: Mapping[str, Any]) -> Iterator[Object]:
    if asked.get("instructions"):
        yield {"role": "system", "content": [chat.text_part(chat.text_of(asked["instructions"], "instructions"))]}


def _input(asked: Mapping[str, Any]) -> Iterator[Object]:
    given = asked.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else fields.mappings(asked, "input")
    if not items:
        malformed("input", "a text or at least one item")
    for place, item in enumerate(items):
        path = f"input.{place}"
        kind = item.get("type") or ("message" if "role" in item else None)
        check(item, chosen(ITEMS, kind, path), path)
        yield from _READERS[str(kind)](item, path)


def _message(item: Mapping[str, Any], path: str) -> Iterator[Object]:
    role = ROLES.get(str(item.get("role")))
    if role is None:
        malformed(f"{path}.role", "user, assistant, system or developer")
    yield {"role": role, "content": _parts(item.get("content"), role, f"{path}.content")}


def _call(item: Mapping[str, Any], path: str) -> Iterator[Object]:
    call_id, name, arguments = (
        chat.text_of(item.get(member), f"{path}.{member}") for member in ("call_id", "name", "arguments")
    )
    yield {"role": "assistant", "content": [], "tool_calls": [chat.call(call_id, name, arguments)]}


def _output(item: Mapping[str, Any], path: str) -> Iterator[Object]:
    call_id = chat.text_of(item.get("call_id"), f"{path}.call_id")
    yield {"role": "tool", "tool_call_id": call_id, "content": _parts(item.get("output"), "tool", f"{path}.output")}


def _reasoning(item: Mapping[str, Any], path: str) -> Iterator[Object]:
    source = item.get("encrypted_content")
    if source in chat.REASONING_FIELDS:
        texts = [chat.text_of(part.get("text"), f"{path}.summary") for part in fields.mappings(item, "summary")]
        yield {"role": "assistant", "content": [], source: "".join(texts)}


_READERS: Final = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "reasoning": _reasoning,
}


def _parts(content: Any, role: str, path: str) -> list[Object]:
    if isinstance(content, str):
        return [chat.text_part(content)]
    if not isinstance(content, list):
        malformed(path, "text or a list of parts")
    return [_part(part, role, f"{path}.{place}") for place, part in enumerate(content)]


def _part(part: Any, role: str, path: str) -> Object:
    if not isinstance(part, dict):
        malformed(path, "an object")
    kind = part.get("type")
    check(part, chosen({name: PARTS[name] for name in PARTS_BY_ROLE[role]}, kind, path), path)
    if kind == "refusal":
        return {"type": "refusal", "refusal": chat.text_of(part.get("refusal"), f"{path}.refusal")}
    if kind == "input_image":
        url = chat.text_of(part.get("image_url"), f"{path}.image_url")
        return chat.image_part(url, **chat.given(detail=part.get("detail")))
    if kind == "input_file":
        return chat.file_part(part.get("filename"), chat.text_of(part.get("file_data"), f"{path}.file_data"))
    return chat.text_part(chat.text_of(part.get("text"), f"{path}.text"))
