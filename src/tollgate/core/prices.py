"""What a model costs, exactly: nanos per unit as decimals, read from OpenRouter's price strings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from tollgate.core.money import EXACT, NANOS_PER_CREDIT

DEAREST_CREDITS = Decimal(1_000_000)
"""No unit of anything costs more; a price beyond it is a mistake of whoever lists it."""

MOST_PLACES = 30
"""Nor is anything priced more finely."""

NOTHING = Decimal(0)


@dataclass(frozen=True)
class Override:
    """Prices that replace others beyond a number of prompt tokens, or at certain hours."""

    min_prompt_tokens: int
    price: "Price"


@dataclass(frozen=True)
class Price:
    """Nanos per token, per request or per piece. The names are OpenRouter's."""

    prompt: Decimal = NOTHING
    completion: Decimal = NOTHING
    request: Decimal = NOTHING
    image: Decimal = NOTHING
    image_token: Decimal = NOTHING
    image_output: Decimal = NOTHING
    audio: Decimal = NOTHING
    audio_output: Decimal = NOTHING
    input_audio_cache: Decimal = NOTHING
    web_search: Decimal = NOTHING
    internal_reasoning: Decimal = NOTHING
    input_cache_read: Decimal = NOTHING
    input_cache_write: Decimal = NOTHING
    input_cache_write_1h: Decimal = NOTHING
    overrides: tuple[Override, ...] = field(default=())

    def at_worst(self, prompt_tokens: int) -> "Price":
        """Each component at the dearest that may apply to a prompt of up to so many tokens, at any hour."""
        applying = [override.price for override in self.overrides if override.min_prompt_tokens < prompt_tokens]
        return dearest([self, *applying])


COMPONENTS = tuple(part.name for part in fields(Price) if part.name != "overrides")


class Unpriced(ValueError):
    """A price that arithmetic must not touch: negative, not finite, absurd or not a number at all."""


def read(pricing: Mapping[str, Any]) -> Price:
    """The price behind OpenRouter's `pricing`. Components that it does not name cost nothing."""
    if "prompt" not in pricing and "completion" not in pricing:
        raise Unpriced("neither prompt nor completion has a price")
    base = replace(Price(), **_components(pricing))
    return replace(base, overrides=tuple(_override(base, given) for given in pricing.get("overrides") or ()))


def dearest(prices: Iterable[Price]) -> Price:
    """The dearest of each component: a bound for whichever of the models answers."""
    listed: Sequence[Price] = list(prices)
    return replace(Price(), **{name: max(getattr(price, name) for price in listed) for name in COMPONENTS})


def nanos(amount: object) -> Decimal:
    """An amount of credits, as a decimal string or a number that came exactly, in nanos."""
    if isinstance(amount, bool) or not isinstance(amount, (str, int, Decimal)):
        raise Unpriced(f"not a price: {amount!r}")
    try:
        exact = Decimal(amount)
    except InvalidOperation:
        raise Unpriced(f"not a number: {amount!r}") from None
    places = exact.as_tuple().exponent  # a letter when it is not finite
    if not isinstance(places, int) or places < -MOST_PLACES or not NOTHING <= exact <= DEAREST_CREDITS:
        raise Unpriced(f"out of all bounds: {amount!r}")
    with localcontext(EXACT):
        return exact * NANOS_PER_CREDIT


def _components(pricing: Mapping[str, Any]) -> dict[str, Any]:
    return {name: nanos(pricing[name]) for name in COMPONENTS if pricing.get(name) is not None}


def _override(base: Price, given: Mapping[str, Any]) -> Override:
    from_tokens = given.get("min_prompt_tokens") or 0
    if isinstance(from_tokens, bool) or not isinstance(from_tokens, int) or from_tokens < 0:
        raise Unpriced(f"not a number of tokens: {from_tokens!r}")
    return Override(from_tokens, replace(base, **_components(given)))
