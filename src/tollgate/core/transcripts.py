"""What transcripts report of themselves: in JSON, in OpenAI's events, or in the chunks that vLLM sends."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final

from tollgate.core.fields import as_mapping, as_mappings
from tollgate.core.typed_events import TypedTally

DELTA: Final = "transcript.text.delta"
DONE: Final = "transcript.text.done"


@dataclass
class TranscriptTally(TypedTally):
    noteworthy: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"(?:usage|error|finish_reason)"\s*:\s*[^\sn]|"type"\s*:\s*"(?:error|transcript\.text\.done)"'
    )
    last: ClassVar[re.Pattern[bytes]] = re.compile(rb'"type"\s*:\s*"transcript\.text\.done"')

    def _take(self, document: Mapping[str, Any]) -> None:
        self._begin(document)
        kind = document.get("type")
        if kind == "error" or document.get("error"):
            self._fail(document.get("error") or document)
        for choice in as_mappings(document.get("choices")):
            self._finish(choice.get("finish_reason"))
            self._say(choice.get("delta"))
        if kind == DELTA:
            self._say({"delta": document.get("delta")})
        elif not self.text_tokens:  # the last event repeats all of the text
            self._say({"text": document.get("text")})
        self.usage = _usage(document) or self.usage
        self.done = self.done or kind == DONE


def _usage(document: Mapping[str, Any]) -> dict[str, Any]:
    """Also under the names of chat completions, and with the length that a verbose answer states."""
    usage = {name: value for name, value in as_mapping(document.get("usage")).items() if value is not None}
    for name, other in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        if name not in usage and other in usage:
            usage[name] = usage[other]
    length = _seconds(document.get("duration"))
    return usage if length is None or "seconds" in usage else {**usage, "seconds": length}


def _seconds(duration: object) -> int | Decimal | None:
    """A number; vLLM writes it as text."""
    if isinstance(duration, str):
        try:
            duration = Decimal(duration) if len(duration) < 32 else None
        except InvalidOperation:
            return None
    if isinstance(duration, bool) or not isinstance(duration, (int, Decimal)):
        return None
    return duration if Decimal(duration).is_finite() else None
