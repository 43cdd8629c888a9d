"""Prices, and what a generation costs by them: whole picodollars (1e-12), so that nothing is ever rounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

PICO_DIGITS = 12
PICOS_PER_NANO = 1000


class UnusablePrice(ValueError):
    """A price that does not fit into whole picodollars."""


@dataclass(frozen=True, slots=True)
class Used:
    """What is priced. Cached and written tokens are part of the prompt, reasoning is part of the completion."""

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    cached: int = 0
    written: int = 0
    images: int = 0
    requests: int = 1
    """Search units, in rerank."""
    characters: int = 0
    """Of a text that is spoken; each has the price of a token of the prompt."""
    made: int = 0
    """Images in the answer."""
    extras: int = 0
    """Fees of what was done beside, in picodollars."""


@dataclass(frozen=True, slots=True)
class Cost:
    """In picodollars. Fees for the request and its images count to the prompt."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Pricing:
    """A model's prices, as strings for the catalogue and as whole picodollars for the bill."""

    def __init__(self, base: Mapping[str, str], overrides: Sequence[Mapping[str, str | int]] = ()) -> None:
        self._base = {name: picos(price) for name, price in base.items()}
        self._overrides = [
            (int(entry["min_prompt_tokens"]), {name: picos(str(price)) for name, price in _prices(entry)})
            for entry in overrides
        ]
        self.shown: dict[str, Any] = {
            **base,
            **({"overrides": [dict(entry) for entry in overrides]} if overrides else {}),
        }

    def at(self, prompt_tokens: int) -> dict[str, int]:
        """The prices that apply; among overrides that do, the later one wins."""
        prices = self._base
        for threshold, changed in self._overrides:
            if prompt_tokens > threshold:
                prices = prices | changed
        return prices

    def cost(self, used: Used) -> Cost:
        prices = self.at(used.prompt)
        plain = used.prompt - used.cached - used.written
        prompt = (plain + used.characters) * prices["prompt"]
        prompt += used.requests * prices.get("request", 0) + used.images * prices.get("image", 0)
        prompt += used.cached * prices.get("input_cache_read", prices["prompt"])
        prompt += used.written * prices.get("input_cache_write", prices["prompt"])
        made = used.made * prices.get("image_output", 0)
        return Cost(prompt + used.extras, used.completion * prices["completion"] + made)


def picos(price: str) -> int:
    scaled = Decimal(price).scaleb(PICO_DIGITS)
    if scaled != scaled.to_integral_value():
        raise UnusablePrice(price)
    return int(scaled)


def dollars(of_picos: int) -> Decimal:
    """Exact, whatever the context's precision: it is read from text."""
    return Decimal(f"{of_picos}e-{PICO_DIGITS}")


def nanos(of_picos: int) -> int:
    """Rounded up, as whoever bills in nanos must so as not to lose money."""
    return -(-of_picos // PICOS_PER_NANO)


def _prices(entry: Mapping[str, str | int]) -> list[tuple[str, str | int]]:
    return [(name, price) for name, price in entry.items() if name != "min_prompt_tokens"]
