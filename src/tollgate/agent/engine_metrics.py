"""Engine metrics: what engines say of themselves in Prometheus' text format, by the names that each of them uses."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

NAMES: Final = {
    "requests_running": (
        *("vllm:num_requests_running", "llamacpp:requests_processing"),
        *("sglang:num_running_reqs", "tgi_batch_current_size"),
    ),
    "requests_waiting": (
        *("vllm:num_requests_waiting", "llamacpp:requests_deferred"),
        *("sglang:num_queue_reqs", "tgi_queue_size"),
    ),
    "prompt_tokens_total": (
        *("vllm:prompt_tokens_total", "llamacpp:prompt_tokens_total"),
        *("sglang:prompt_tokens_total", "tgi_request_input_length_sum"),
    ),
    "generation_tokens_total": (
        *("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total"),
        *("sglang:generation_tokens_total", "tgi_request_generated_tokens_sum"),
    ),
    "cache_usage": (
        *("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        *("llamacpp:kv_cache_usage_ratio", "sglang:token_usage"),
    ),
}
_LINE: Final = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{([^}]*)\})?\s+(\S+)")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
MOST_BYTES: Final = 4 * 1024**2


class EngineMetrics(NamedTuple):
    """None for what an engine does not say."""

    requests_running: float | None = None
    requests_waiting: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    cache_usage: float | None = None

    @property
    def tokens(self) -> float | None:
        """A counter that moves while the engine works."""
        if self.generation_tokens_total is None:
            return None
        return self.generation_tokens_total + (self.prompt_tokens_total or 0)


def read(text: str) -> EngineMetrics:
    """Values of one name are added up: an engine may have several series, one of each model or rank."""
    sums: dict[str, float] = {}
    for name, _, value in series(text[:MOST_BYTES]):
        sums[name] = sums.get(name, 0.0) + value
    return EngineMetrics(
        **{field: next((sums[name] for name in names if name in sums), None) for field, names in NAMES.items()}
    )


def series(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """The lines of Prometheus' text format, with their labels. Values that are no finite numbers are left out."""
    for line in text.splitlines():
        if found := _LINE.match(line):
            name, labels, written = found.groups(default="")
            with contextlib.suppress(ValueError):
                if math.isfinite(value := float(written)):
                    yield name, dict(_LABEL.findall(labels)), value
