"""Exact prices of models: nanos per unit as decimals, read from OpenRouter's price strings."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, NamedTuple

from tollgate.core.money import EXACT, NANOS_PER_CREDIT

DEAREST_CREDITS = Decimal(1_000_000)
"""For one unit. A higher price is a mistake in the listing."""

MOST_PLACES = 30
"""Decimal places of a price. More are a mistake too."""

NOTHING = Decimal(0)
PPM = 1_000_000

NO_PRICES = ("discount", "overrides")
"""Members of `pricing` that are not prices."""


class Override(NamedTuple):
    """Prices that replace others above a number of prompt tokens, or at certain hours."""

    min_prompt_tokens: int
    price: "Price"


class Price(NamedTuple):
    """Nanos per token, request, image or search. The names are OpenRouter's."""

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
    overrides: tuple[Override, ...] = ()

    def at_worst(self, prompt_tokens: int) -> "Price":
        """The dearest of each component that may apply to a prompt of up to so many tokens, at any hour."""
        if not self.overrides:
            return self
        applying = [override.price for override in self.overrides if override.min_prompt_tokens < prompt_tokens]
        return dearest([self, *applying])._replace(overrides=())


COMPONENTS = tuple(name for name in Price._fields if name != "overrides")


class Unpriced(ValueError):
    """An unusable price: negative, not finite, absurdly high or not a number."""


def read(pricing: Mapping[str, Any]) -> Price:
    """Reads OpenRouter's `pricing`. Components that it does not name cost nothing."""
    if "prompt" not in pricing and "completion" not in pricing:
        raise Unpriced("neither prompt nor completion has a price")
    overrides = pricing.get("overrides") or []
    if not isinstance(overrides, list) or not all(isinstance(given, Mapping) for given in overrides):
        raise Unpriced("overrides are no list of prices")
    base = Price(**_components(pricing))
    return base._replace(overrides=tuple(_override(base, given) for given in overrides))


def dearest(prices: Iterable[Price]) -> Price:
    """The dearest of each component, for any length of the prompt: an upper bound whichever model answers."""
    listed: Sequence[Price] = list(prices)
    if len(listed) == 1:
        return listed[0]
    components = {name: max(getattr(price, name) for price in listed) for name in COMPONENTS}
    return Price(**components, overrides=tuple(override for price in listed for override in price.overrides))


def marked_up(pricing: Mapping[str, Any], markup_ppm: int) -> dict[str, Any]:
    """OpenRouter's `pricing` with the markup, as exact decimal strings. Members that are not prices stay."""
    overrides = pricing.get("overrides")
    shown = {name: given if name in NO_PRICES else _marked_up(given, markup_ppm) for name, given in pricing.items()}
    if isinstance(overrides, list):
        shown["overrides"] = [_override_marked_up(given, markup_ppm) for given in overrides]
    return shown


def nanos(amount: object) -> Decimal:
    """Credits, as a decimal string, an integer or a decimal, in nanos."""
    if isinstance(amount, bool) or not isinstance(amount, (str, int, Decimal)):
        raise Unpriced(f"not a price: {amount!r}")
    try:
        exact = Decimal(amount)
    except InvalidOperation:
        raise Unpriced(f"not a number: {amount!r}") from None
    places = exact.as_tuple().exponent  # a letter if the number is not finite
    if not isinstance(places, int) or places < -MOST_PLACES or not NOTHING <= exact <= DEAREST_CREDITS:
        raise Unpriced(f"out of all bounds: {amount!r}")
    return EXACT.multiply(exact, NANOS_PER_CREDIT)


def in_credits(nanos: Decimal) -> str:
    """Exact, without an exponent."""
    return f"{EXACT.divide(nanos, NANOS_PER_CREDIT).normalize():f}"


def _override_marked_up(given: object, markup_ppm: int) -> object:
    if not isinstance(given, Mapping):
        return given
    return {name: _marked_up(price, markup_ppm) if name in COMPONENTS else price for name, price in given.items()}


def _marked_up(given: object, markup_ppm: int) -> object:
    try:
        cost = nanos(given)
    except Unpriced:
        return given
    with localcontext(EXACT):
        charged = cost * (PPM + markup_ppm) / (PPM * NANOS_PER_CREDIT)
        return f"{abs(charged).normalize():f}"  # abs: zero may be negative


def _components(pricing: Mapping[str, Any]) -> dict[str, Any]:
    return {name: nanos(pricing[name]) for name in COMPONENTS if pricing.get(name) is not None}


def _override(base: Price, given: Mapping[str, Any]) -> Override:
    from_tokens = given.get("min_prompt_tokens") or 0
    if isinstance(from_tokens, bool) or not isinstance(from_tokens, int) or from_tokens < 0:
        raise Unpriced(f"not a number of tokens: {from_tokens!r}")
    return Override(from_tokens, base._replace(**_components(given)))
