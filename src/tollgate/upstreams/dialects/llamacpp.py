"""llama.cpp's llama-server: answers many client mistakes with 500, old versions ignore max_completion_tokens, and where
the usage is asked for, the timings stand beside it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tollgate.core import sse, strict_json
from tollgate.core.request_body import Ask
from tollgate.core.sse import Event
from tollgate.core.strict_json import NotJson
from tollgate.upstreams.dialects.openai import OpenAI, Shown, without_usage
from tollgate.upstreams.rules import Refusal

_CLIENTS_MISTAKES = re.compile(
    rb"json\.exception\.|\"prompt\\\" |'messages' is required|is too large to process|Invalid base64|param requires"
    rb"|Failed to (?:tokenize|load image|download image)|Unsupported param|Only no echo|Cannot use both|\"Error: "
)
"""In its messages of errors with status 500. Media that it cannot read are none: the next server may read them."""


class LlamaCpp(OpenAI):
    knows_only_max_tokens = True

    def shown(self, ask: Ask) -> Shown:
        shown = super().shown(ask)
        return _Unasked() if shown is without_usage else shown

    def refusal(self, status: int, content_type: str, body: bytes) -> Refusal:
        is_clients = status == 500 and _CLIENTS_MISTAKES.search(body)
        return super().refusal(400 if is_clients else status, content_type, body)


class _Unasked:
    """Shows what the server sends to clients that do not ask for the usage.

    The last chunk of a text completion states it all the same. Of a chat it has a chunk of its own, and the timings go
    there, which otherwise stand in the chunk that ends the answer. So that one waits for the next.
    """

    def __init__(self) -> None:
        self._end = b""
        """The event that ends an answer, until the next one comes."""

    def __call__(self, event: Event) -> bytes:
        if not event.raw:
            return self._end
        end, self._end = self._end, b""
        if b'"usage"' not in event.data:
            if b'"finish_reason":"' in event.data and b'"delta":{}' in event.data:
                self._end = event.raw
                return end
            return end + event.raw
        chunk = _read(event.data)
        if chunk.get("usage") and chunk.get("choices"):
            return end + event.raw
        if end and chunk.get("timings") and chunk.get("choices") == []:
            choices = json.dumps(_read(sse.data_of(end))["choices"], separators=(",", ":"))
            data = strict_json.edit(event.data, {"usage": None, "choices": choices})
            return sse.with_data(event.raw, event.data, data)
        return end + (without_usage(event) or b"")


def _read(data: bytes) -> Mapping[str, Any]:
    try:
        return strict_json.from_upstream(data)
    except NotJson:
        return {}
