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


class UnitPrices(NamedTuple):
    """Nanos for what is not a token. The routes of our own servers have such prices; OpenRouter's list has none."""

    character: Decimal = NOTHING
    """Of a text that is spoken."""
    second: Decimal = NOTHING
    """Of sound."""
    output_image: Decimal = NOTHING
    """An image that is made."""

    def named(self) -> dict[str, Decimal]:
        """Those that are not zero, by name."""
        return {name: value for name, value in zip(UNITS, self, strict=True) if value}


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
    units: UnitPrices | None = None
    """None for models that are priced by tokens alone."""

    @property
    def of_units(self) -> UnitPrices:
        return self.units or UnitPrices()

    @property
    def of_character(self) -> Decimal:
        """A character of a text that is spoken. OpenRouter's list has this price as `prompt`."""
        return max(self.prompt, self.of_units.character)

    def named(self) -> dict[str, Decimal]:
        """Those that are not zero, by name."""
        components: dict[str, Any] = {name: value for name, value in zip(COMPONENTS, self, strict=False) if value}
        return components if self.units is None else components | self.units.named()

    def at_worst(self, prompt_tokens: int) -> "Price":
        """The dearest of each component that may apply to a prompt of up to so many tokens, at any hour."""
        if not self.overrides:
            return self
        applying = [override.price for override in self.overrides if override.min_prompt_tokens < prompt_tokens]
        return dearest([self, *applying])._replace(overrides=())


COMPONENTS = Price._fields[: Price._fields.index("overrides")]
UNITS = UnitPrices._fields


class Unpriced(ValueError):
    """An unusable price: negative, not finite, absurdly high or not a number."""


def read(pricing: Mapping[str, Any]) -> Price:
    """Reads OpenRouter's `pricing`. Components that it does not name cost nothing."""
    if "prompt" not in pricing and "completion" not in pricing:
        raise Unpriced("neither prompt nor completion has a price")
    overrides = pricing.get("overrides") or []
    if not isinstance(overrides, list) or not all(isinstance(given, Mapping) for given in overrides):
        raise Unpriced("overrides are no list of prices")
    base = _changed(Price(), pricing)
    return base._replace(overrides=tuple(_override(base, given) for given in overrides))


def dearest(prices: Iterable[Price]) -> Price:
    """The dearest of each component, for any length of the prompt: an upper bound whichever model answers."""
    listed: Sequence[Price] = list(prices)
    if len(listed) == 1:
        return listed[0]
    units = [price.units for price in listed if price.units]
    return Price(
        **_most(COMPONENTS, listed),
        overrides=tuple(override for price in listed for override in price.overrides),
        units=UnitPrices(**_most(UNITS, units)) if units else None,
    )


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
    priced = (*COMPONENTS, *UNITS)
    return {name: _marked_up(price, markup_ppm) if name in priced else price for name, price in given.items()}


def _marked_up(given: object, markup_ppm: int) -> object:
    try:
        cost = nanos(given)
    except Unpriced:
        return given
    with localcontext(EXACT):
        charged = cost * (PPM + markup_ppm) / (PPM * NANOS_PER_CREDIT)
        return f"{abs(charged).normalize():f}"  # abs: zero may be negative


def _changed(base: Price, pricing: Mapping[str, Any]) -> Price:
    """With the prices that `pricing` names."""
    changed = base._replace(**_components(COMPONENTS, pricing))
    units = _components(UNITS, pricing)
    return changed._replace(units=base.of_units._replace(**units)) if units else changed


def _components(names: Iterable[str], pricing: Mapping[str, Any]) -> dict[str, Any]:
    return {name: nanos(pricing[name]) for name in names if pricing.get(name) is not None}


def _most(names: Iterable[str], prices: Sequence[Price | UnitPrices]) -> dict[str, Any]:
    return {name: max(getattr(price, name) for price in prices) for name in names}


def _override(base: Price, given: Mapping[str, Any]) -> Override:
    from_tokens = given.get("min_prompt_tokens") or 0
    if isinstance(from_tokens, bool) or not isinstance(from_tokens, int) or from_tokens < 0:
        raise Unpriced(f"not a number of tokens: {from_tokens!r}")
    return Override(from_tokens, _changed(base, given))
