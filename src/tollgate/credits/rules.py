"""The worst case of a request, its cost and its charge. Pure and exact; rounded up once."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Any, NamedTuple

from tollgate.core.extras.pricing import IMAGE_TOKENS, NO_EXTRAS, Added
from tollgate.core.money import EXACT
from tollgate.core.prices import NOTHING, Price, Unpriced, nanos
from tollgate.core.units import Units

PPM = 1_000_000
MOST_TOKENS = 100_000_000
BEYOND_BELIEF = 10
"""A cost above this many holds needs confirmation by the upstream's own record."""
DEAREST_TOKEN_NANOS = 1_000_000
"""An upper bound for the price of any model's token."""
DEAREST_IMAGE_TOKEN_NANOS = 300_000
"""OpenRouter lists `image_output` for a token of an image, or for an image. Above this, it is for an image."""
SPOKEN_TOKENS = 20
"""The most tokens of sound for a character: a second of it."""
HEARD_TOKENS = 20
"""The most tokens of the text that is spoken in a second."""
UNASKED_EXTRAS_NANOS = 500_000_000
"""The most that extras without a request may cost, such as those that our account has on by default."""


class WorstCase(NamedTuple):
    """An upper bound of the cost: a fixed part, and the price of each output token. In nanos, before the markup."""

    fixed_nanos: Decimal
    output_nanos: Decimal
    made_nanos: Decimal = NOTHING
    """The part of the fixed one that is due only for what was made, or for sound beyond its likely length."""

    def with_output(self, tokens: int) -> Decimal:
        return EXACT.fma(self.output_nanos, tokens, self.fixed_nanos)


class Usage(NamedTuple):
    """What an upstream reports for a request: tokens, and its cost in nanos if it states one."""

    prompt_tokens: int
    completion_tokens: int
    cost_nanos: Decimal | None
    units: Units | None = None
    """Of a call that is priced by more than tokens."""
    cache: "CacheUse | None" = None
    """Of the prompt tokens, those that a cache gave or took; None where the upstream states none."""


class CacheUse(NamedTuple):
    read: int
    written: int
    written_for_1h: int


class Bill(NamedTuple):
    """The cost and the charge of a settled request."""

    cost_nanos: int
    charge_nanos: int
    estimated: bool = False
    quarantined: bool = False


class Nonsense(ValueError):
    """Usage that cannot be true. It must be neither charged nor credited."""


def worst_case(
    price: Price, *, prompt_tokens: int, images: int = 0, choices: int = 1, added: Added = NO_EXTRAS
) -> WorstCase:
    """The most that a request with these sizes and extras can cost, at the dearest price that may apply.

    A loop of server tools reads the prompt again in each turn, together with the output of all turns before.
    """
    worst = price.at_worst(prompt_tokens)
    inward = _dearest_inward(worst)
    outward = max(
        worst.completion, worst.internal_reasoning, worst.image_output, worst.audio_output, added.output_nanos
    )
    if added is NO_EXTRAS:  # as for most requests
        of_request = EXACT.fma(images, worst.image, worst.request)
        return WorstCase(EXACT.fma(prompt_tokens, inward, of_request), EXACT.multiply(outward, choices))
    turns, read_again = added.turns, added.turns * added.steps // 2
    with localcontext(EXACT):
        fixed = prompt_tokens * inward + turns * (worst.request + images * worst.image) + added.fees
        fixed += added.predicted_tokens * outward * choices
        return WorstCase(fixed, (turns * outward + read_again * inward) * choices)


def worst_case_of_units(
    price: Price, units: Units, *, prompt_tokens: int, images: int = 0, added: Added = NO_EXTRAS
) -> WorstCase:
    """The same for a call that is priced by units too. It has no output tokens that a client could bound."""
    worst = price.at_worst(prompt_tokens)
    with localcontext(EXACT):
        fixed = prompt_tokens * _dearest_inward(worst) + images * worst.image + added.fees
        fixed += units.requests * max(worst.request, added.request_nanos)
        fixed += units.characters * (worst.of_character + SPOKEN_TOKENS * max(worst.completion, worst.audio_output))
        of_second = max(worst.of_units.second, added.second_nanos) + HEARD_TOKENS * worst.completion
        fixed += units.likely_seconds * of_second
        made = (units.seconds - units.likely_seconds) * of_second + units.images * max(
            _dearest_image(worst), added.image_nanos
        )
        return WorstCase(fixed + made, NOTHING, made)


def read_usage(given: Mapping[str, Any] | None) -> Usage | None:
    """Reads the `usage` of OpenRouter and OpenAI, parsed with decimals. None means absent, which is not zero."""
    if not given:
        return None
    return Usage(
        _tokens(given.get("prompt_tokens")),
        _tokens(given.get("completion_tokens")),
        _cost(given),
    )


def at_our_prices(usage: Usage, given: Mapping[str, Any]) -> Usage:
    """The usage of a server of our own: its tokens are charged whatever cost it states, and those of its cache by their
    own prices."""
    return usage._replace(cost_nanos=None, cache=_cache(given))


def read_generation(record: Mapping[str, Any]) -> Usage:
    """Reads OpenRouter's record of a generation, which has the same numbers as `usage` under other names."""
    counts = (record.get(f"native_tokens_{side}", record.get(f"tokens_{side}")) for side in ("prompt", "completion"))
    prompt_tokens, completion_tokens = map(_tokens, counts)
    if record.get("total_cost") is None:
        raise Nonsense("a generation without a cost")
    cost = {"cost": record["total_cost"], "is_byok": record.get("is_byok"), "cost_details": record}
    return Usage(prompt_tokens, completion_tokens, _cost(cost))


def stated_cost(usage: Mapping[str, Any] | None) -> Decimal | None:
    """The cost that a stored usage states; None where it states none, or nonsense."""
    try:
        return _cost(usage) if usage else None
    except Nonsense:
        return None


def most_for(usage: Usage) -> int:
    """An upper bound for the cost of these tokens and of extras."""
    return (usage.prompt_tokens + usage.completion_tokens) * DEAREST_TOKEN_NANOS + UNASKED_EXTRAS_NANOS


def bill(
    usage: Usage, price: Price, *, markup_ppm: int, most_nanos: int | None = None, context_tokens: int | None = None
) -> Bill:
    """The bill for a usage: at the cost that the upstream states, or else at the listed price.

    Raises Nonsense for more tokens than the context, or a charge above most_nanos.
    """
    tokens = usage.prompt_tokens + usage.completion_tokens
    if context_tokens is not None and tokens > context_tokens:
        raise Nonsense(f"{tokens} tokens in a context of {context_tokens}")
    cost = usage.cost_nanos
    if cost is None:
        cost = at_listed_price(usage, price)
    charge = charge_for(cost, markup_ppm)
    if most_nanos is not None and charge > most_nanos:
        raise Nonsense(f"a charge of {charge} nanos, where {most_nanos} is the most")
    return Bill(_up(cost), charge)


def at_the_hold(hold_nanos: int, markup_ppm: int) -> Bill:
    """The bill for a usage that cannot be true: the hold is charged, and an operator reviews it."""
    return Bill(hold_nanos * PPM // (PPM + markup_ppm), hold_nanos, quarantined=True)


def at_listed_price(usage: Usage, price: Price) -> Decimal:
    listed = price.at_worst(usage.prompt_tokens)
    once = listed.request if usage.units is None else _of_units(usage.units, listed)
    of_output = EXACT.fma(usage.completion_tokens, listed.completion, once)
    if usage.cache is None:
        return EXACT.fma(usage.prompt_tokens, listed.prompt, of_output)
    return EXACT.add(_of_prompt(usage.prompt_tokens, usage.cache, listed), of_output)


def charge_for(cost_nanos: Decimal | int, markup_ppm: int) -> int:
    """The cost with the markup, rounded up to a whole nano. Nothing else is rounded."""
    return _up(EXACT.divide(EXACT.multiply(cost_nanos, PPM + markup_ppm), PPM) if markup_ppm else Decimal(cost_nanos))


def _of_units(units: Units, price: Price) -> Decimal:
    of_units = price.of_units
    with localcontext(EXACT):
        cost = units.requests * price.request + units.images * of_units.output_image
        return cost + units.characters * price.of_character + units.seconds * of_units.second


def _dearest_inward(price: Price) -> Decimal:
    """Of a token. A provider may write the whole prompt to its cache, and may count images or audio in it."""
    return max(
        price.prompt, price.input_cache_write, price.input_cache_write_1h, price.input_cache_read,
        price.audio, price.image_token, price.input_audio_cache,
    )  # fmt: skip


def _dearest_image(price: Price) -> Decimal:
    """Of one that is made, by whichever price it is billed."""
    token = max(price.completion, price.image_output if price.image_output < DEAREST_IMAGE_TOKEN_NANOS else NOTHING)
    return max(price.of_units.output_image, price.image_output, IMAGE_TOKENS * token)


def _of_prompt(tokens: int, cache: CacheUse, listed: Price) -> Decimal:
    """A cache price of zero is one that is not listed: then the price of the prompt applies. The parts are no more than
    the whole, whatever an upstream states."""
    read = min(cache.read, tokens)
    for_1h = min(cache.written_for_1h, tokens - read)
    written = min(cache.written, tokens - read - for_1h)
    write_price = listed.input_cache_write or listed.prompt
    with localcontext(EXACT):
        return (
            read * (listed.input_cache_read or listed.prompt)
            + written * write_price
            + for_1h * (listed.input_cache_write_1h or write_price)
            + (tokens - read - written - for_1h) * listed.prompt
        )


def _cache(given: Mapping[str, Any]) -> CacheUse | None:
    """As chat completions, Responses and Messages state it. What is no number counts as nothing: then the price of the
    prompt applies."""
    details = given.get("prompt_tokens_details") or given.get("input_tokens_details")
    lifetimes = given.get("cache_creation")
    details = details if isinstance(details, Mapping) else {}
    for_1h = _count(lifetimes.get("ephemeral_1h_input_tokens")) if isinstance(lifetimes, Mapping) else 0
    written = _count(given.get("cache_creation_input_tokens")) or _count(details.get("cache_write_tokens"))
    read = _count(given.get("cache_read_input_tokens")) or _count(details.get("cached_tokens"))
    return CacheUse(read, max(written - for_1h, 0), for_1h) if read or written or for_1h else None


def _count(stated: object) -> int:
    return stated if isinstance(stated, int) and not isinstance(stated, bool) and 0 < stated <= MOST_TOKENS else 0


def _cost(given: Mapping[str, Any]) -> Decimal | None:
    """OpenRouter's cost includes what it paid. With an org's own upstream key (BYOK), that comes on top."""
    if given.get("cost") is None:
        return None
    cost = _amount(given["cost"])
    details = given.get("cost_details") or {}
    if given.get("is_byok") is True and isinstance(details, Mapping):
        return EXACT.add(cost, _amount(details.get("upstream_inference_cost") or 0))
    return cost


def _amount(given: object) -> Decimal:
    try:
        return nanos(given)
    except Unpriced as error:
        raise Nonsense(str(error)) from None


def _tokens(count: object) -> int:
    if count is None:
        return 0
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_TOKENS:
        raise Nonsense(f"not a number of tokens: {count!r}")
    return count


def _up(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING))  # which is no rounding that EXACT would stop
