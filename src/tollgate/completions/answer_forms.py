"""The forms of answers: how a stream states its usage, how it ends, and how it fails."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tollgate.completions.charge_shown import ON_TOP, Places
from tollgate.core.endpoints import Endpoint
from tollgate.core.errors import Shape, TollgateError
from tollgate.core.sse import Tally
from tollgate.core.transcripts import TranscriptTally
from tollgate.core.typed_events import MessagesTally, ResponsesTally
from tollgate.core.unit_tallies import ImagesTally, UnitsTally

DONE: Final = b"data: [DONE]\n\n"
MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
FAILED: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "chat": ("chat.completion.chunk", {"delta": {"role": "assistant", "content": ""}}),
    "completions": ("text_completion", {"text": ""}),
}


class Stream(NamedTuple):
    """What an error event says of the stream that it ends."""

    endpoint: Endpoint
    shape: Shape
    request_id: str
    generation_id: str
    model: str
    created: int
    events: int
    """How many events with data came before."""


class AnswerForm(NamedTuple):
    tally: type[Tally]
    usage_in: Places
    """Where the events of a stream may have a usage."""
    end: bytes
    """The last event, for a complete stream that lacks it."""
    failed: Callable[[TollgateError, Stream], bytes]
    """The event of an error after the stream began."""
    is_typed: bool = True
    states_charge: bool = False
    """The answer itself, or the last event of a stream, says what the call was charged."""


def _failed_chat(error: TollgateError, stream: Stream) -> bytes:
    """Alone, or in a chunk as OpenRouter sends it."""
    told = error.body(stream.shape)
    return _event(told if stream.shape == "openai" else {**_last_chunk(stream), **told})


def _last_chunk(stream: Stream) -> dict[str, Any]:
    kind, empty = FAILED[stream.endpoint]
    choice = {"index": 0, **empty, "finish_reason": "error", "native_finish_reason": "error"}
    return {
        "id": stream.generation_id,
        "object": kind,
        "created": stream.created,
        "model": stream.model,
        "choices": [choice],
    }


def _failed_response(error: TollgateError, stream: Stream) -> bytes:
    """The event as OpenAI documents it, with the `error` by which its clients notice a failure."""
    named = {"type": "error", "sequence_number": stream.events, "code": error.code, "message": error.message}
    return _event({**named, "param": error.param, **error.body(stream.shape)}, "error")


def _failed_message(error: TollgateError, stream: Stream) -> bytes:
    return _event(error.body("anthropic", stream.request_id), "error")


def _failed_alone(error: TollgateError, stream: Stream) -> bytes:
    return _event({"type": "error", **error.body(stream.shape)})


def _event(told: Mapping[str, Any], name: str | None = None) -> bytes:
    data = b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"
    return data if name is None else f"event: {name}\n".encode() + data


CHAT: Final = AnswerForm(Tally, ON_TOP, DONE, _failed_chat, is_typed=False)
RESPONSES: Final = AnswerForm(ResponsesTally, ("response",), b"", _failed_response)
GENERATE: Final = CHAT._replace(states_charge=True)
IMAGES: Final = AnswerForm(ImagesTally, ON_TOP, DONE, _failed_alone)
IN_ONE_PIECE: Final = CHAT._replace(tally=UnitsTally)
MESSAGES: Final = AnswerForm(MessagesTally, (None, "message"), MESSAGE_STOP, _failed_message)

TRANSCRIPTS: Final = AnswerForm(TranscriptTally, ON_TOP, b"", _failed_alone)

ANSWER_FORMS: Final[Mapping[Endpoint, AnswerForm]] = {
    "chat": CHAT,
    "completions": CHAT,
    "embeddings": CHAT,
    "responses": RESPONSES,
    "messages": MESSAGES,
    "count_tokens": MESSAGES,
    "generate": GENERATE,
    "images": IMAGES,
    "speech": IN_ONE_PIECE,
    "rerank": IN_ONE_PIECE,
    "moderations": IN_ONE_PIECE,
    "transcriptions": TRANSCRIPTS,
    "translations": TRANSCRIPTS,
}
