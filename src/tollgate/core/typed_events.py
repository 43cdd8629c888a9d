"""What streams of typed events report: those of OpenAI's Responses and of Anthropic's Messages.

Their usage is kept with their own names and with those of chat completions, so that all is charged by the same rules.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from tollgate.core import sse, strict_json
from tollgate.core.fields import as_mapping
from tollgate.core.names import LONGEST_NAME, is_name
from tollgate.core.sse import Tally
from tollgate.core.strict_json import NotJson

PROMPT_PARTS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
"""Of Messages. None includes another."""
ENDS: Final = ("response.completed", "response.incomplete", "response.failed")
ERRORS: Final = ("error", "response.error")
_SIGNATURE: Final = "signature_delta"


@dataclass
class TypedTally(Tally):
    """Ends with an event of its own. [DONE], which some servers add, says nothing."""

    noteworthy: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"(?:usage|error)"\s*:\s*[^\sn]'
        rb'|"type"\s*:\s*"(?:error|message_stop|message_delta|response\.(?:completed|incomplete|failed|error))"'
    )

    last: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"type"\s*:\s*"(?:message_stop|response\.(?:completed|incomplete))"'
    )
    """Finds the last event even if it is not JSON, as with a cost of NaN."""

    def see(self, data: bytes) -> None:
        if sse.is_done(data):
            return
        self.events += 1
        if self.counts or self.awaits_start or self.noteworthy.search(data):
            try:
                self._take(strict_json.from_upstream(data))
            except NotJson:
                self.unreadable += 1
                self.done = self.done or self.last.search(data) is not None

    def _begin(self, answer: Mapping[str, Any]) -> None:
        """OpenRouter can look a generation up by its own id alone. An answer may have the provider's instead."""
        self.awaits_start = False
        given, model = answer.get("id"), answer.get("model")
        if self.generation_id is None and is_name(given) and given.startswith("gen-"):
            self.generation_id = given
        self.model = model if is_name(model) else self.model

    def _finish(self, reason: object) -> None:
        if isinstance(reason, str) and reason:
            self.finish_reasons[0] = strict_json.printable(reason, LONGEST_NAME)

    def _say(self, texts: object) -> None:
        if self.counts:
            self.text_tokens += sse.most_said(texts)


@dataclass
class MessagesTally(TypedTally):
    opening: Mapping[str, Any] = field(default_factory=dict)
    """The usage in message_start. It has the prompt, and not yet the output."""

    def _take(self, document: Mapping[str, Any]) -> None:
        match document.get("type"):
            case "message":
                self._begin(document)
                self._use(document.get("usage"))
                self._finish(document.get("stop_reason"))
                self._say(document.get("content"))
            case "message_start":
                message = as_mapping(document.get("message"))
                self._begin(message)
                self.opening = _stated(message.get("usage"))
            case "content_block_start":
                self._say(document.get("content_block"))
            case "content_block_delta" if as_mapping(document.get("delta")).get("type") != _SIGNATURE:
                self._say(document.get("delta"))
            case "message_delta":
                self._use(document.get("usage"))
                self._finish(as_mapping(document.get("delta")).get("stop_reason"))
            case "message_stop":
                self.done = True
            case "error":
                self._fail(document.get("error") or document)
            case None:
                self._fail(document.get("error"))

    def _use(self, usage: object) -> None:
        """Without a usage at the end, the output is not known. The end need not repeat what message_start said."""
        if stated := _stated(usage):
            whole = {**self.opening, **stated}
            prompt = _sum(whole.get(name) for name in PROMPT_PARTS)
            self.usage = {**whole, "prompt_tokens": prompt, "completion_tokens": whole.get("output_tokens")}


@dataclass
class ResponsesTally(TypedTally):
    def _take(self, document: Mapping[str, Any]) -> None:
        kind = document.get("type")
        if document.get("object") == "response":
            self._answer(document)
            self._say(document.get("output"))
        elif isinstance(document.get("response"), dict):
            self._answer(document["response"])
            self.done = self.done or kind in ENDS
        elif kind in ERRORS:
            self._fail(document.get("error") or document)
        elif kind == "response.output_item.added":
            self._say({"name": as_mapping(document.get("item")).get("name")})
        elif isinstance(document.get("delta"), str):
            self._say({"delta": document["delta"]})
        elif kind is None:
            self._fail(document.get("error"))

    def _answer(self, answer: Mapping[str, Any]) -> None:
        self._begin(answer)
        if usage := _stated(answer.get("usage")):
            counts = {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}
            self.usage = usage | counts
        if answer.get("status") == "failed":
            self._fail(answer.get("error") or "The response failed.")


def _stated(usage: object) -> dict[str, Any]:
    """What it states. null counts as absent."""
    return {name: value for name, value in as_mapping(usage).items() if value is not None}


def _sum(counts: Iterable[object]) -> object:
    """The sum, or a count that is no number: then the whole is none."""
    total = 0
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, (int, type(None))):
            return count
        total += count or 0
    return total
