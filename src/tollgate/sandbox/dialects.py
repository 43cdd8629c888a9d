"""The two ways to ask for text and to be answered: chat, and the old completions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tollgate.sandbox import parameters
from tollgate.sandbox.catalog import PROVIDER
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.parameters import Body, Parameters
from tollgate.sandbox.speech import Call, Said

FINGERPRINT = "fp_sandbox"

Kind = Literal["reasoning", "content", "arguments"]
Choice = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    object: str
    chunk_object: str
    read: Callable[[Body], Parameters]
    choice: Callable[[Said, Parameters, str], Choice]
    """All of what was said; the string is an id for a call."""
    piece: Callable[[Kind, str, Parameters], Choice]
    """One token of it."""
    naming: Callable[[Call, str], Choice]
    """The start of a call, which names the function."""
    closing: Choice
    """What stands where a piece would when there is none."""

    def envelope(self, generation: Generation, of_chunk: bool) -> dict[str, Any]:
        return {
            "id": generation.id,
            "object": self.chunk_object if of_chunk else self.object,
            "created": int(generation.started),
            "model": generation.shown_model,
            "provider": PROVIDER,
            "system_fingerprint": FINGERPRINT,
        }


def pieces(said: Said) -> Iterator[tuple[Kind, str]]:
    yield from (("reasoning", token) for token in said.reasoning)
    yield from (("content", token) for token in said.content)
    yield from (("arguments", token) for token in (said.call.arguments if said.call else ()))


def ending(finish: str | None) -> Choice:
    return {"finish_reason": finish, "native_finish_reason": finish}


def _chat_choice(said: Said, params: Parameters, call_id: str) -> Choice:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said.content), "refusal": None}
    if said.reasoning:
        message |= _thought("".join(said.reasoning))
    else:
        message["reasoning"] = None
    if said.call:
        function = {"name": said.call.name, "arguments": "".join(said.call.arguments)}
        message |= {"content": None, "tool_calls": [_call(call_id, function)]}
    return {**ending(said.finish), "message": message, "logprobs": _logprobs(said.content, params)}


def _chat_piece(kind: Kind, token: str, params: Parameters) -> Choice:
    delta: dict[str, Any] = {"role": "assistant", "content": token if kind == "content" else ""}
    if kind == "reasoning":
        delta |= _thought(token)
    if kind == "arguments":
        delta = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, "function": {"arguments": token}}]}
    return {"delta": delta, **ending(None), "logprobs": _logprobs([token], params) if kind == "content" else None}


def _chat_naming(call: Call, call_id: str) -> Choice:
    opened = {"index": 0} | _call(call_id, {"name": call.name, "arguments": ""})
    return {"delta": {"role": "assistant", "content": None, "tool_calls": [opened]}, **ending(None), "logprobs": None}


def _text_choice(said: Said, params: Parameters, call_id: str) -> Choice:
    return {**ending(said.finish), "text": "".join(said.content), "logprobs": None, "reasoning": None}


def _text_piece(kind: Kind, token: str, params: Parameters) -> Choice:
    return {"text": token if kind == "content" else "", **ending(None), "logprobs": None}


def _text_naming(call: Call, call_id: str) -> Choice:
    return {"text": "", **ending(None), "logprobs": None}


def _call(call_id: str, function: dict[str, str]) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": function}


def _thought(text: str) -> dict[str, Any]:
    detail = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
    return {"reasoning": text, "reasoning_details": [detail]}


def _logprobs(tokens: list[str], params: Parameters) -> dict[str, Any] | None:
    """Every token as sure as the others; the alternatives are the token itself."""
    if params.logprobs is None:
        return None
    content = [{**_certain(token), "top_logprobs": [_certain(token)] * params.logprobs} for token in tokens]
    return {"content": content, "refusal": None}


def _certain(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.25, "bytes": list(token.encode("utf-8", "surrogatepass"))}


CHAT = Dialect(
    "chat.completion",
    "chat.completion.chunk",
    parameters.chat,
    _chat_choice,
    _chat_piece,
    _chat_naming,
    {"delta": {"role": "assistant", "content": ""}, "logprobs": None},
)
TEXT = Dialect(
    "text_completion",
    "text_completion",
    parameters.text,
    _text_choice,
    _text_piece,
    _text_naming,
    {"text": "", "logprobs": None},
)
