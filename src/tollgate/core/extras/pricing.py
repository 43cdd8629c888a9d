"""What the extras of a request add to its worst case."""

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Final, NamedTuple

from tollgate.core import strict_json
from tollgate.core.errors import ExtraUnpriced
from tollgate.core.extras.register import Register
from tollgate.core.extras.requested import NOTHING_ASKED, Extras, Use
from tollgate.core.money import EXACT
from tollgate.core.prices import NOTHING, Price

IMAGES: Final = 4
"""The most images in one answer."""
IMAGE_TOKENS: Final = 10_000
"""Of one generated image; the prompt for it counts twice as many."""


class Added(NamedTuple):
    """What the extras of a request add to its worst case."""

    fees: Decimal = NOTHING
    prompt_tokens: int = 0
    """Added once, to the prompt of every turn."""
    steps: int = 0
    step_tokens: int = 0
    """Tokens that each step adds to the prompt of all later turns."""
    output_nanos: Decimal = NOTHING
    """A minimum for the price of an output token."""
    predicted_tokens: int = 0
    """Tokens of a predicted output. Rejected ones are billed as output."""
    image_nanos: Decimal = NOTHING
    """A minimum for the price of an image that is made, where images are what is asked for."""
    request_nanos: Decimal = NOTHING
    """A minimum for the price of a request."""
    second_nanos: Decimal = NOTHING
    """A minimum for the price of a second of sound."""

    @property
    def turns(self) -> int:
        """How often the model reads the prompt."""
        return self.steps + 1


NO_EXTRAS: Final = Added()


def refuse_unpriced(extras: Extras, register: Register) -> None:
    """Raises ExtraUnpriced, before anything else is looked up for the call."""
    for use in (*extras.once, *extras.looped):
        for name, _ in use.names:
            if name not in register:
                raise _unpriced(use, name)


def worst_case(extras: Extras, register: Register, price: Price, models: Mapping[str, Price], choices: int) -> Added:
    """The most that the extras add, at the dearer of the register's and the listing's prices. Raises ExtraUnpriced."""
    if extras is NOTHING_ASKED:
        return NO_EXTRAS
    once = [(_fees(use, register, price, models), _tokens(use, register)) for use in extras.once]
    steps = [(_fees(use, register, price, models), _tokens(use, register)) for use in extras.looped]
    with localcontext(EXACT):
        fees = sum((fee for fee, _ in once), NOTHING)
        fees += choices * extras.steps * max((fee for fee, _ in steps), default=NOTHING)
        if extras.output_images:
            fees += choices * IMAGES * max(register["output:image"].nanos, price.image)
    return Added(
        fees=fees,
        prompt_tokens=sum(tokens for _, tokens in once),
        steps=extras.steps if extras.looped else 0,
        step_tokens=max((tokens for _, tokens in steps), default=0),
        output_nanos=register["output:audio"].nanos if extras.output_audio else NOTHING,
        predicted_tokens=extras.predicted_bytes,
    )


def _fees(use: Use, register: Register, price: Price, models: Mapping[str, Price]) -> Decimal:
    with localcontext(EXACT):
        each = [uses * max(register[name].nanos, _listed(name, price)) for name, uses in use.names]
        fee = max(each)
        if use.results:
            fee += use.results * register["search:result"].nanos
        if use.model is None:
            return fee
        if use.model not in models:
            raise _unpriced(use, use.model)
        return max(fee, _of_image(models[use.model]))


def _tokens(use: Use, register: Register) -> int:
    if use.tokens is not None:
        return use.tokens
    return max(uses * register[name].tokens for name, uses in use.names)


def _listed(name: str, price: Price) -> Decimal:
    """A model's own price of a search is a minimum too."""
    return price.web_search if name.startswith("search:") else NOTHING


def _of_image(price: Price) -> Decimal:
    inward, outward = max(price.prompt, price.image_token), max(price.completion, price.image_output)
    return price.request + price.image + IMAGE_TOKENS * (2 * inward + outward)


def _unpriced(use: Use, what: str) -> ExtraUnpriced:
    shown = strict_json.printable(what, strict_json.SHOWN_CHARACTERS)
    message = f"The upstream bills {shown} separately, and it has no price here."
    return ExtraUnpriced(f"{message} {ExtraUnpriced.advice}", param=use.param, extra=shown)
