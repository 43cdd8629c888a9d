"""What a generation costs, and what its answer says of it."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from tollgate.sandbox.extras import Extra
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.prices import Cost, Pricing, Used, dollars

BYOK_FEE = "0.05"
NOTHING = Cost()


@dataclass(frozen=True, slots=True)
class Bill:
    """In picodollars. Ordinarily the upstream's cost is the cost; with an own key, the cost is a fee on top of it."""

    cost: int = 0
    upstream: Cost = NOTHING
    is_byok: bool = False

    @property
    def owed(self) -> int:
        """All that the caller pays, to whomever."""
        return self.cost + self.upstream.total if self.is_byok else self.cost


def bill(pricing: Pricing, used: Used, faults: Faults) -> Bill:
    upstream = pricing.cost(used)
    if "cost-differs" in faults:
        factor = faults.word("cost-differs")
        upstream = Cost(times(upstream.prompt, factor), times(upstream.completion, factor))
    if "byok" in faults:
        return Bill(times(upstream.total, BYOK_FEE), upstream, is_byok=True)
    return Bill(upstream.total, upstream)


def usage(used: Used, billed: Bill, extra: Extra, *, caches: bool) -> dict[str, Any]:
    """The true one, in OpenRouter's form."""
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.completion,
        "total_tokens": used.prompt + used.completion,
        **stated_cost(billed),
        "prompt_tokens_details": {
            "cached_tokens": used.cached,
            **({"cache_write_tokens": used.written} if caches else {}),
            "audio_tokens": 0,
            "video_tokens": 0,
        },
        "completion_tokens_details": {"reasoning_tokens": used.reasoning, "image_tokens": 0, "audio_tokens": 0},
        **_tools(extra),
    }


def usage_of_embeddings(used: Used, billed: Bill) -> dict[str, Any]:
    return {"prompt_tokens": used.prompt, "total_tokens": used.prompt, **stated_cost(billed)}


def reported(true: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """The usage as the answer carries it, under its name or not at all."""
    if "no-usage" in faults:
        return {}
    if "null-usage" in faults:
        return {"usage": None}
    said = _zeroed(true) if "zero-usage" in faults else dict(true)
    if "absurd-usage" in faults:
        absurd = faults.whole("absurd-usage")
        said |= {"prompt_tokens": absurd, "completion_tokens": absurd, "total_tokens": 2 * absurd}
    if "negative-cost" in faults:
        said["cost"] = -said["cost"]
    if "nan-cost" in faults:
        said["cost"] = Decimal("NaN")
    if "string-tokens" in faults:
        said |= {name: str(value) for name, value in said.items() if name.endswith("_tokens")}
    return {"usage": said}


def _tools(extra: Extra) -> dict[str, Any]:
    if not extra.searches and not extra.calls:
        return {}
    counts = {"tool_calls_requested": extra.calls, "tool_calls_executed": extra.calls}
    return {"server_tool_use_details": {"web_search_requests": extra.searches, **counts}}


def stated_cost(billed: Bill) -> dict[str, Any]:
    return {
        "cost": dollars(billed.cost),
        "is_byok": billed.is_byok,
        "cost_details": {
            "upstream_inference_cost": dollars(billed.upstream.total),
            "upstream_inference_prompt_cost": dollars(billed.upstream.prompt),
            "upstream_inference_completions_cost": dollars(billed.upstream.completion),
        },
    }


def times(picos: int, factor: str) -> int:
    return int((picos * Decimal(factor)).to_integral_value(ROUND_CEILING))


def _zeroed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _zeroed(item) for name, item in value.items()}
    return value if isinstance(value, bool) else 0
