"""The fields of a request that decide the answer and its cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tollgate.sandbox import tokens
from tollgate.sandbox.encoding import NotJson, decode, encode
from tollgate.sandbox.refusals import Refusal

MOST_CHOICES = 128

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
        heard=_heard(messages, texts),
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
    return "".join(str(part.get("text", "")) for part in _parts(content) if part.get("type") == "text")


def _images(content: Any) -> int:
    return sum(part.get("type") == "image_url" for part in _parts(content))


def _heard(messages: list[Body], texts: tuple[str, ...]) -> str:
    """The last thing that a user said; after a tool's answer, that answer."""
    if messages[-1].get("role") == "tool":
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
