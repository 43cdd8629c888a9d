"""The fields of a request that decide the answer and its cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tollgate.sandbox import tokens
from tollgate.sandbox.encoding import NotJson, decode, encode
from tollgate.sandbox.refusals import Refusal

MOST_CHOICES = 128
TEXTS = ("text", "input_text", "output_text")
IMAGES = ("image_url", "input_image", "image")

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameters:
    heard: str
    """The text that an echo repeats."""
    texts: tuple[str, ...]
    """Every message's text, in order: what a prompt cache compares."""
    prompt_tokens: int
    images: int = 0
    stream: bool = False
    bound: int | None = None
    choices: int = 1
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """How many alternatives each token comes with."""
    schema: Any = None
    """Of the JSON to answer with; {} for any object."""
    tool: Body | None = None
    """The function to call."""
    thinks: bool = True
    asked: Body = field(default_factory=dict)
    """The whole request, for an answer that repeats it."""


def read_object(body: bytes) -> dict[str, Any]:
    try:
        read = decode(body)
    except NotJson:
        raise Refusal(400, "The request body is not valid JSON") from None
    if not isinstance(read, dict):
        raise Refusal(400, "The request body must be a JSON object")
    return read


def chat(body: Body) -> Parameters:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Refusal(400, "Input required: specify a non-empty 'messages' array of objects")
    texts = tuple(_text(message.get("content")) for message in messages)
    tools = body.get("tools")
    return Parameters(
        heard=_heard(messages, texts, messages[-1].get("role") == "tool"),
        texts=texts,
        prompt_tokens=sum(map(tokens.of_message, texts)) + (tokens.count(encode(tools)) if tools else 0),
        images=sum(_images(message.get("content")) for message in messages),
        logprobs=_whole(body, "top_logprobs", 0, 20) or 0 if body.get("logprobs") else None,
        schema=_schema(body.get("response_format")),
        tool=_tool(tools, body.get("tool_choice")) if messages[-1].get("role") != "tool" else None,
        thinks=_thinks(body),
        **_limits(body),
    )


def text(body: Body) -> Parameters:
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise Refusal(400, "Input required: specify 'prompt' as a string")
    return Parameters(heard=prompt, texts=(prompt,), prompt_tokens=tokens.of_message(prompt), **_limits(body))


def responses(body: Body) -> Parameters:
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items or not all(isinstance(one, dict) for one in items):
        raise Refusal(400, "Input required: specify 'input' as a string or a non-empty array of objects")
    texts = tuple(_text(item.get("content") or item.get("output")) for item in items)
    instructions = str(body.get("instructions") or "")
    tools = body.get("tools")
    wanted = body.get("tool_choice")
    choice = {"function": wanted} if isinstance(wanted, dict) else wanted
    return Parameters(
        heard=_heard(items, texts, "output" in items[-1]),
        texts=(*((instructions,) if instructions else ()), *texts),
        prompt_tokens=_tokens(texts, instructions, tools),
        images=sum(_images(item.get("content")) for item in items),
        schema=_schema(_flat_schema(body)),
        tool=None if "output" in items[-1] else _tool(_nested(tools, "parameters"), choice),
        thinks=_thinks(body),
        stream=bool(body.get("stream")),
        bound=_whole(body, "max_output_tokens"),
        asked=body,
    )


def messages(body: Body) -> Parameters:
    given = body.get("messages")
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise Refusal(400, "Input required: specify a non-empty 'messages' array of objects")
    results = [_result(message) for message in given]
    texts = tuple(
        _text(message.get("content")) + (result or "") for message, result in zip(given, results, strict=True)
    )
    system = _text(body.get("system"))
    tools = body.get("tools")
    wanted = body.get("tool_choice")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    choice = {"function": wanted} if kind == "tool" else kind
    thinking = body.get("thinking")
    stop = body.get("stop_sequences") or []
    return Parameters(
        heard=_heard(given, texts, results[-1] is not None),
        texts=(*((system,) if system else ()), *texts),
        prompt_tokens=_tokens(texts, system, tools),
        images=sum(_images(message.get("content")) for message in given),
        tool=None if results[-1] is not None else _tool(_nested(tools, "input_schema"), choice),
        thinks=not isinstance(thinking, dict) or thinking.get("type") != "disabled",
        stream=bool(body.get("stream")),
        bound=_whole(body, "max_tokens"),
        stop=tuple(map(str, stop)) if isinstance(stop, list) else (),
        asked=body,
    )


def arguments(written: str | None) -> Any:
    """Of a call, as an object; empty while they are not complete."""
    try:
        return decode((written or "{}").encode())
    except NotJson:
        return {}


def _tokens(texts: tuple[str, ...], system: str, tools: Any) -> int:
    told = sum(map(tokens.of_message, texts)) + (tokens.of_message(system) if system else 0)
    return told + (tokens.count(encode(tools)) if tools else 0)


def _result(message: Body) -> str | None:
    """The result of a tool in a message, if it has one."""
    found = [_text(part.get("content")) for part in _parts(message.get("content")) if part.get("type") == "tool_result"]
    return "".join(found) if found else None


def _nested(tools: Any, schema: str) -> list[Body]:
    """Tools as chat completions have them."""
    return [
        {"function": {"name": tool.get("name"), "parameters": tool.get(schema)}}
        for tool in _parts(tools)
        if tool.get("type") in (None, "function", "custom")
    ]


def _flat_schema(body: Body) -> Any:
    text_settings = body.get("text")
    wanted = text_settings.get("format") if isinstance(text_settings, dict) else None
    return {**wanted, "json_schema": wanted} if isinstance(wanted, dict) else None


def _limits(body: Body) -> dict[str, Any]:
    stop = body.get("stop") or []
    if not isinstance(stop, str | list):
        raise Refusal(400, "Invalid value for 'stop'")
    return {
        "stream": bool(body.get("stream")),
        "bound": _whole(body, "max_completion_tokens") or _whole(body, "max_tokens"),
        "choices": _whole(body, "n", most=MOST_CHOICES) or 1,
        "stop": tuple(str(one) for one in ([stop] if isinstance(stop, str) else stop)),
    }


def _whole(body: Body, name: str, least: int = 1, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        raise Refusal(400, f"Invalid value for '{name}': {encode(value)[:40]}")
    return value


def _parts(content: Any) -> list[Body]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in _parts(content) if part.get("type") in TEXTS)


def _images(content: Any) -> int:
    return sum(part.get("type") in IMAGES for part in _parts(content))


def _heard(messages: list[Body], texts: tuple[str, ...], by_tool: bool) -> str:
    """The last thing that a user said; after a tool's answer, that answer."""
    if by_tool:
        return texts[-1]
    said = [text for message, text in zip(messages, texts, strict=True) if message.get("role") == "user"]
    return said[-1] if said else texts[-1]


def _schema(response_format: Any) -> Any:
    if not isinstance(response_format, dict) or response_format.get("type") in (None, "text"):
        return None
    described = response_format.get("json_schema")
    return described.get("schema", {}) if isinstance(described, dict) else {}


def _tool(tools: Any, choice: Any) -> Body | None:
    """The function that the client insists on, else the first."""
    given = tools if isinstance(tools, list) and choice != "none" else []
    offered = [tool["function"] for tool in given if isinstance(tool, dict) and isinstance(tool.get("function"), dict)]
    chosen = choice.get("function") if isinstance(choice, dict) else None
    wanted = chosen.get("name") if isinstance(chosen, dict) else None
    return next((one for one in offered if wanted in (None, one.get("name"))), None)


def _thinks(body: Body) -> bool:
    reasoning = body.get("reasoning")
    wish = reasoning if isinstance(reasoning, dict) else {}
    return "none" not in (wish.get("effort"), body.get("reasoning_effort")) and wish.get("enabled") is not False
