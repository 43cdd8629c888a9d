"""A request to /v1/messages as one for chat completions."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tollgate.core import fields
from tollgate.core.dialects import chat
from tollgate.core.dialects.chat import Object
from tollgate.core.dialects.messages.tables import (
    BLOCKS,
    CHOICE,
    FIELDS,
    FORMAT,
    MESSAGE,
    METADATA,
    OUTPUT,
    SOURCES,
    THINKING,
    TOOL,
)
from tollgate.core.dialects.treatments import check, chosen, malformed, refuse

CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
EFFORTS: Final = ((2_048, "low"), (8_192, "medium"))
"""By budget of thinking."""
AS_THEY_ARE: Final = ("model", "models", "provider", "max_tokens", "temperature", "top_p", "top_k")
IN_USER_TURNS: Final = ("text", "image", "document", "tool_result")
IN_ASSISTANT_TURNS: Final = ("text", "thinking", "redacted_thinking", "tool_use")
IN_RESULTS: Final = ("text", "image", "document")


def to_chat(asked: Mapping[str, Any]) -> Object:
    check(asked, FIELDS)
    output, metadata = fields.mapping(asked, "output_config"), fields.mapping(asked, "metadata")
    check(output, OUTPUT, "output_config")
    check(metadata, METADATA, "metadata")
    return chat.given(
        **{name: asked.get(name) for name in AS_THEY_ARE},
        messages=chat.turns([*_system(asked), *_messages(asked)], merged=("system", "user", "assistant")),
        stop=fields.listed(asked, "stop_sequences") or None,
        user=metadata.get("user_id"),
        reasoning_effort=output.get("effort") or _effort(fields.mapping(asked, "thinking")),
        response_format=_format(fields.mapping(output, "format", "output_config.format")),
        tools=[_tool(tool, f"tools.{place}") for place, tool in enumerate(fields.mappings(asked, "tools"))] or None,
        **_choice(fields.mapping(asked, "tool_choice")),
        **chat.streamed(fields.flag(asked, "stream")),
    )


def _effort(thinking: Mapping[str, Any]) -> str | None:
    check(thinking, THINKING, "thinking")
    kind = thinking.get("type")
    if kind == "enabled":
        budget = fields.whole(thinking, "budget_tokens", 10**9, "thinking.budget_tokens") or 1
        return next((effort for most, effort in EFFORTS if budget <= most), "high")
    if kind not in (None, "adaptive", "disabled"):
        refuse("thinking.type", "Known are enabled, adaptive and disabled.")
    return "none" if kind == "disabled" else None


def _format(given: Mapping[str, Any]) -> Object | None:
    if not given:
        return None
    check(given, FORMAT, "output_config.format")
    if given.get("type") != "json_schema":
        refuse("output_config.format.type", "Known is json_schema.")
    return chat.schema_format("answer", given.get("schema"), strict=True)


def _tool(tool: Mapping[str, Any], path: str) -> Object:
    check(tool, TOOL, path)
    name = chat.text_of(tool.get("name"), f"{path}.name")
    return chat.function(name, tool.get("description"), tool.get("input_schema"), tool.get("strict"))


def _choice(choice: Mapping[str, Any]) -> Object:
    if not choice:
        return {}
    check(choice, CHOICE, "tool_choice")
    kind = choice.get("type")
    named = {"type": "function", "function": {"name": choice.get("name")}}
    if kind != "tool" and str(kind) not in CHOICES:
        refuse("tool_choice.type", "Known are auto, any, tool and none.")
    parallel = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    return {"tool_choice": named if kind == "tool" else CHOICES[str(kind)], **parallel}


def _system(asked: Mapping[str, Any]) -> Iterator[Object]:
    if asked.get("system"):
        yield {"role": "system", "content": _parts(asked["system"], ("text",), "system")}


def _messages(asked: Mapping[str, Any]) -> Iterator[Object]:
    messages = fields.mappings(asked, "messages")
    for place, message in enumerate(messages):
        yield from _message(message, f"messages.{place}")
    if messages and messages[-1].get("role") == "assistant":
        refuse("messages", "The answer would be a new one instead of continuing the last message.")


def _message(message: Mapping[str, Any], path: str) -> Iterator[Object]:
    check(message, MESSAGE, path)
    role, path_in = message.get("role"), f"{path}.content"
    if role == "user":
        yield from _user(message.get("content"), path_in)
    elif role == "assistant":
        yield _assistant(message.get("content"), path_in)
    elif role == "system":
        yield {"role": "system", "content": _parts(message.get("content"), ("text",), path_in)}
    else:
        malformed(f"{path}.role", "user, assistant or system")


def _user(content: Any, path: str) -> Iterator[Object]:
    """Tool results are messages of their own, which follow the calls at once."""
    parts: list[Object] = []
    for block, place in _blocks(content, IN_USER_TURNS, path):
        if block["type"] != "tool_result":
            parts += _part(block, place)
        elif parts:
            refuse(place, "Tool results come before all else in a message.")
        else:
            yield _result(block, place)
    if parts:
        yield {"role": "user", "content": parts}


def _result(block: Mapping[str, Any], path: str) -> Object:
    parts = _parts(block.get("content") or [], IN_RESULTS, f"{path}.content")
    if fields.flag(block, "is_error", f"{path}.is_error"):
        text = parts.pop(0)["text"] if parts and parts[0]["type"] == "text" else ""
        parts.insert(0, chat.text_part(f"Error: {text}"))
    call_id = chat.text_of(block.get("tool_use_id"), f"{path}.tool_use_id")
    return {"role": "tool", "tool_call_id": call_id, "content": parts or [chat.text_part("")]}


def _assistant(content: Any, path: str) -> Object:
    blocks = list(_blocks(content, IN_ASSISTANT_TURNS, path))
    calls = [_call(block, place) for block, place in blocks if block["type"] == "tool_use"]
    parts = [part for block, place in blocks if block["type"] == "text" for part in _part(block, place)]
    thoughts: dict[str, str] = {}
    for block, place in blocks:
        if block["type"] == "thinking" and block.get("signature") in chat.REASONING_FIELDS:
            source = block["signature"]
            thoughts[source] = thoughts.get(source, "") + chat.text_of(block.get("thinking"), f"{place}.thinking")
    return {"role": "assistant", "content": parts, **thoughts, **({"tool_calls": calls} if calls else {})}


def _call(block: Mapping[str, Any], path: str) -> Object:
    call_id = chat.text_of(block.get("id"), f"{path}.id")
    name = chat.text_of(block.get("name"), f"{path}.name")
    return chat.call(call_id, name, chat.json_text(fields.mapping(block, "input", f"{path}.input")))


def _blocks(content: Any, allowed: tuple[str, ...], path: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The blocks and their paths, checked."""
    blocks = [chat.text_part(content)] if isinstance(content, str) else content
    if not isinstance(blocks, list):
        malformed(path, "text or a list of blocks")
    for place, block in enumerate(blocks):
        place_path = f"{path}.{place}"
        if not isinstance(block, dict):
            malformed(place_path, "an object")
        check(block, chosen({kind: BLOCKS[kind] for kind in allowed}, block.get("type"), place_path), place_path)
        yield block, place_path


def _parts(content: Any, allowed: tuple[str, ...], path: str) -> list[Object]:
    return [part for block, place in _blocks(content, allowed, path) for part in _part(block, place)]


def _part(block: Mapping[str, Any], path: str) -> list[Object]:
    if block["type"] == "text":
        return [chat.text_part(chat.text_of(block.get("text"), f"{path}.text"))]
    path_of_source = f"{path}.source"
    source = fields.mapping(block, "source", path_of_source)
    check(source, chosen(SOURCES, source.get("type"), path_of_source), path_of_source)
    return [_image(source, path_of_source) if block["type"] == "image" else _document(block, source, path_of_source)]


def _image(source: Mapping[str, Any], path: str) -> Object:
    if source["type"] == "url":
        return chat.image_part(chat.text_of(source.get("url"), f"{path}.url"))
    if source["type"] == "text":
        refuse(f"{path}.type", "An image is sent as base64 or url.")
    return chat.image_part(_data_url(source, path))


def _document(block: Mapping[str, Any], source: Mapping[str, Any], path: str) -> Object:
    title = block.get("title")
    if source["type"] == "url":
        refuse(f"{path}.type", "Send the document itself as base64.")
    if source["type"] == "base64":
        return chat.file_part(title or "document.pdf", _data_url(source, path))
    text = chat.text_of(source.get("data"), f"{path}.data")
    return chat.text_part(f"{title}\n\n{text}" if title else text)


def _data_url(source: Mapping[str, Any], path: str) -> str:
    media_type = chat.text_of(source.get("media_type"), f"{path}.media_type")
    return f"data:{media_type};base64,{chat.text_of(source.get('data'), f'{path}.data')}"
