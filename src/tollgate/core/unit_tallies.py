"""What answers report of themselves where a call is priced by units."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from tollgate.core.fields import as_mapping, as_mappings
from tollgate.core.sse import Tally
from tollgate.core.typed_events import TypedTally

COMPLETED: Final = "image_generation.completed"


@dataclass
class UnitsTally(Tally):
    """Of an answer in one piece, or of bytes that say nothing."""

    def _take(self, document: Mapping[str, Any]) -> None:
        super()._take(document)
        self.usage = with_token_names(self.usage)
        self.images += len(as_mappings(document.get("data")))


@dataclass
class ImagesTally(TypedTally):
    """A stream makes one image, and ends with it. What comes before it is a preview."""

    noteworthy: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"(?:usage|error)"\s*:\s*[^\sn]|"type"\s*:\s*"(?:error|image_generation\.completed)"'
    )
    last: ClassVar[re.Pattern[bytes]] = re.compile(rb'"type"\s*:\s*"image_generation\.completed"')

    def _take(self, document: Mapping[str, Any]) -> None:
        self.awaits_start = False
        kind = document.get("type")
        if kind == "error" or document.get("error"):
            self._fail(document.get("error") or document)
        elif kind == COMPLETED:
            self.images = 1
            self.done = True
        elif kind is None:
            self.images = len(as_mappings(document.get("data")))
        self.usage = with_token_names(as_mapping(document.get("usage"))) or self.usage


def with_token_names(usage: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Also under the names of chat completions. Rerank states the total alone."""
    if not usage or "prompt_tokens" in usage:
        return usage
    output = usage.get("output_tokens")
    read = usage.get("input_tokens", usage.get("total_tokens") if output is None else None)
    if read is None and output is None:
        return usage
    return {**usage, "prompt_tokens": read, "completion_tokens": output}
