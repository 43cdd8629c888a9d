"""What a paid call may use and cost at most, and what it was granted. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from math import ceil
from typing import Any, Final, NamedTuple

from tollgate.completions.own_keys import NO_KEYS, OrgKeys
from tollgate.core.endpoints import ENDPOINTS, Form
from tollgate.core.errors import BadRequest
from tollgate.core.extras.pricing import NO_EXTRAS, Added
from tollgate.core.extras.register import Register
from tollgate.core.extras.requested import NOTHING_ASKED, Extras
from tollgate.core.models import OPENROUTER, SANDBOX, VENDORS, Dialect, Model, Retirement, Route
from tollgate.core.money import EXACT
from tollgate.core.prices import NOTHING, Price
from tollgate.core.request_body import Ask
from tollgate.core.units import Units
from tollgate.credits import rules as credits
from tollgate.upstreams.rules import ordered_for

LEAST_OUTPUT: Final = 16
"""Some providers refuse a smaller bound."""
MOST_OUTPUT_UNKNOWN: Final = 16_384
"""The bound that we choose and send upstream where neither the client nor the model's listing has one."""
MOST_OUTPUT_UNDECLARED: Final = 65_536
MOST_CONTEXT_UNKNOWN: Final = 2_000_000
TOKENS_OF_SECOND: Final = 32
"""The most tokens of a second of sound that is heard."""


ON_VLLM: Final[frozenset[Dialect]] = frozenset(("vllm",))
ONLY_VLLM: Final = {
    "max_tokens": "only vLLM scores a prompt without an answer, and no vLLM server has the model. Send at least 1.",
    "prompt_embeds": "only vLLM reads embeddings as a prompt, and no vLLM server has the model. Send prompt.",
}


LAST_DAY: Final = date.max.isoformat()
"""No day follows it."""


class Bounds(NamedTuple):
    """The most that a call can use. Its price is multiplied with these."""

    prompt_tokens: int
    limited_tokens: int
    """Of the prompt, those that count against limits until the upstream has counted."""
    output: int | None
    """The client's own bound for each choice, or None where it set none."""
    most_output: int
    enforced: bool
    """Whether the model's own maximum is known. If not, even the largest bound must be sent upstream."""
    context_tokens: int | None = None
    """The most tokens of all answers together; None where no context is known, or each input has one of its own."""


NO_BOUNDS: Final = Bounds(0, 0, 0, 0, enforced=True)
"""Of a call that costs nothing."""
NO_TOKENS: Final = NO_BOUNDS._replace()
"""Of one that is priced by units alone."""


class Grant(NamedTuple):
    """What admission granted to a call, and what its charge is calculated with."""

    org_id: str
    routes: tuple[Route, ...]
    price: Price
    """The dearest that may apply; for routes without a price of their own."""
    hold_nanos: int
    markup_ppm: int
    prompt_tokens: int
    """The most that the prompt may be, media included."""
    context_tokens: int | None
    """The most that prompt and output may be together; None where that is not known."""
    bound: int | None = None
    """The output bound to send upstream, where the body's own is not enough."""
    output_tokens: int | None = None
    """The most that all answers together may be; None where nothing bounds them."""
    openrouter_models: tuple[str, ...] = ()
    search_off: bool = False
    reserved_tokens: int = 0
    """Counted against limits until the settlement."""
    limits: Mapping[str, Any] | None = None
    """What was left of them at admission."""
    is_ordered: bool = False
    """The order of the routes is decided, and no weight is drawn."""
    notices: Mapping[str, str] = {}
    """What the answer's headers say of the model."""
    is_free: bool = False
    counted: int | None = None
    """The answer to a question for the number of tokens, where no upstream counts them."""
    units: Units | None = None
    """The most that was asked for beside tokens."""
    org_keys: OrgKeys = NO_KEYS

    def uses_org_key(self, route: Route) -> bool:
        """The call is made with a key of the org's own there: it costs us nothing, and the org the fee."""
        return route.upstream.id in self.org_keys.secrets

    @property
    def routes_at_our_cost(self) -> tuple[Route, ...]:
        return tuple(route for route in self.routes if not self.uses_org_key(route))


def routes_of(models: Sequence[Model]) -> tuple[Route, ...]:
    """In the order in which the client named the models. OpenRouter is listed once: it tries its fallbacks itself."""
    if len(models) == 1 and len(models[0].routes) == 1:  # as for most calls
        return models[0].routes
    routes: list[Route] = []
    for route in (route for model in models for route in model.routes):
        if route.upstream.id != OPENROUTER or not any(known.upstream.id == OPENROUTER for known in routes):
            routes.append(route)
    return tuple(routes)


def openrouter_models(models: Sequence[Model], ask: Ask, *, by_alias: bool = False) -> tuple[str, ...]:
    """The fallbacks to name to OpenRouter, which refuses a list with a name that only our own servers know. Empty where
    the client's list can stay. `by_alias`: the client's names are not those of the models, so its list cannot."""
    if len(models) == 1 and not (by_alias and ask.fallbacks):
        return ()
    known = [[route.model for route in model.routes if route.upstream.id == OPENROUTER] for model in models]
    names = tuple(name for names in known for name in names)
    if by_alias:
        return names if len(names) > 1 or ask.fallbacks else ()
    return () if all(known) else names


def in_order(models: Sequence[Model], chooser: str) -> list[Model]:
    """The models with their routes as this chooser always gets them."""
    return [model._replace(routes=ordered_for(model.routes, chooser)) for model in models]


def notices(retirement: Retirement | None) -> dict[str, str]:
    """The headers by which a client learns that a model ends, as RFC 9745 and RFC 8594 have them."""
    if retirement is None:
        return {}
    told: dict[str, str] = {}
    if retirement.deprecated_on:
        told["deprecation"] = f"@{int(_midnight(retirement.deprecated_on).timestamp())}"
    if retirement.retires_on and retirement.retires_on < LAST_DAY:
        told["sunset"] = format_datetime(_midnight(retirement.retires_on) + timedelta(days=1), usegmt=True)
    if retirement.replacement and retirement.replacement.isascii():
        told["x-tollgate-replacement"] = retirement.replacement
    return told


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(), UTC)


def must_cost_nothing(ask: Ask, grant: Mapping[str, Any]) -> bool:
    """The org has no credits left, and the call was admitted because it is free."""
    has_nothing = grant["hold_nanos"] == 0 and grant["balance_nanos"] <= grant["held_nanos"]
    return bool(has_nothing) and ENDPOINTS[ask.endpoint].generates


def is_own(route: Route) -> bool:
    """A server of the operator's: its price is its route's, and its usage cannot be looked up later."""
    return route.upstream.id not in (OPENROUTER, SANDBOX)


def states_choices_apart(route: Route) -> bool:
    """llama.cpp's server: each choice of a stream has a usage of its own, and a plain answer has the first one's."""
    return route.upstream.dialect == "llamacpp"


def with_outputs(asked: Extras, models: Sequence[Model]) -> Extras:
    """A model that can output images may do so without being asked."""
    if asked.output_images or not any(map(_outputs_images, models)):
        return asked
    return asked._replace(output_images=True)


def serving(models: Sequence[Model], form: Form) -> list[Model]:
    """The models, each with those of its routes whose server has the endpoint. Where none has, all stay if the call can
    be translated or we answer it, and otherwise none."""
    return [
        model._replace(routes=_of_dialects(model.routes, form.dialects) or (() if form.needs_native else model.routes))
        for model in models
    ]


def on_vllm(models: Sequence[Model], field: str) -> list[Model]:
    """The models with their routes to vLLM, for a call with a field that only vLLM can be trusted with."""
    served = [model._replace(routes=_of_dialects(model.routes, ON_VLLM)) for model in models]
    if all(model.routes for model in served):
        return served
    raise BadRequest(f"{field}: {ONLY_VLLM[field]}", param=field)


def is_billed_apart(ask: Ask) -> str | None:
    """The field that asks for what a vendor bills beside tokens, or at another price than that of text; None if none
    does."""
    if ask.extras is NOTHING_ASKED and not ask.prompt.audios:  # as for most calls
        return None
    uses = (*ask.extras.once, *ask.extras.looped)
    if uses:
        return uses[0].param
    if ask.extras.output_images or ask.extras.output_audio:
        return "modalities"
    return ENDPOINTS[ask.endpoint].prompt if ask.prompt.audios else None


def without_vendors(models: Sequence[Model]) -> list[Model]:
    """The models without their routes to vendors."""
    return [
        model._replace(routes=tuple(route for route in model.routes if route.upstream.dialect not in VENDORS))
        for model in models
    ]


def is_native(models: Sequence[Model], form: Form) -> bool:
    """Whether every server that may be asked has the endpoint."""
    return all(route.upstream.dialect in form.dialects for model in models for route in model.routes)


def counted(ask: Ask, models: Sequence[Model]) -> int | None:
    """About how many tokens the prompt has, where we are asked for it and not all upstreams can count them. Of English,
    about half of the bound."""
    form = ENDPOINTS[ask.endpoint]
    if not form.is_free or is_native(models, form):
        return None
    return max(1, (ask.prompt.tokens - ask.prompt.not_sent) // 2)


def bounds(ask: Ask, models: Sequence[Model], added: Added = NO_EXTRAS) -> Bounds:
    form = ENDPOINTS[ask.endpoint]
    if form.is_free:
        return NO_BOUNDS
    if form.is_spoken:
        return NO_TOKENS
    routes = [route for model in models for route in model.routes]
    context = _most([route.context_tokens for route in routes])
    longest = context or MOST_CONTEXT_UNKNOWN
    most_output = _most([_most_output(route) for route in routes])
    one_prompt = form.one_prompt or (ask.choices == 1 and form.generates)
    tokens, not_sent = ask.prompt.tokens, ask.prompt.not_sent
    if ask.units is not None and ask.units.seconds:
        tokens, not_sent = _with_sound(ask, ask.units, routes)
    read = tokens + added.prompt_tokens + (ask.prompt.embeds + ask.prompt.padded) * longest
    prompt = longest if ask.prompt.open_ended else read
    most = longest if one_prompt else None
    return Bounds(
        prompt_tokens=_of_all_turns(prompt, most, ask.choices, added),
        limited_tokens=_of_all_turns(prompt - not_sent, most, ask.choices, added),
        output=None if ask.bound is None else min(ask.bound, longest),
        most_output=most_output or MOST_OUTPUT_UNKNOWN,
        enforced=most_output is not None,
        context_tokens=context * ask.choices * added.turns if context and form.generates else None,
    )


def unmetered(price: Price, form: Form, *, is_ours: bool) -> str | None:
    """The name of a price that the endpoint cannot be charged by: its calls would be free. A server of our own says
    nothing of the tokens of speech; OpenRouter states the cost."""
    named = [] if price.units is None else [name for name in price.units.named() if name not in form.meters]
    if form.is_spoken and is_ours:
        named += [name for name in ("completion", "audio_output") if getattr(price, name)]
    return next(iter(named), None)


def with_floor(ask: Ask, models: Sequence[Model], added: Added, register: Register) -> Added:
    """With the least that OpenRouter charges for an image, or for the request. The price of a route of our own is what
    it costs."""
    floor = ENDPOINTS[ask.endpoint].floor
    if floor is None or ask.units is None or all(is_own(route) for model in models for route in model.routes):
        return added
    nanos = register[floor].nanos
    if ask.units.seconds:
        return added._replace(second_nanos=nanos) if any(map(_hides_price, models)) else added
    return added._replace(image_nanos=nanos) if ask.units.images else added._replace(request_nanos=nanos)


def worst_case(ask: Ask, sizes: Bounds, price: Price, added: Added = NO_EXTRAS) -> credits.WorstCase:
    if ask.units is not None:
        images = ask.prompt.images + ask.extras.images
        return credits.worst_case_of_units(
            price, ask.units, prompt_tokens=sizes.prompt_tokens, images=images, added=added
        )
    return credits.worst_case(
        price,
        prompt_tokens=sizes.prompt_tokens,
        images=ask.prompt.images + ask.extras.images,
        choices=ask.choices,
        added=added,
    )


def bound_to_send(ask: Ask, sizes: Bounds, granted: int) -> int | None:
    """A granted bound below the model's maximum. No other is sent: OpenRouter skips providers with a lower maximum."""
    if ask.bound is not None or (sizes.enforced and granted >= sizes.most_output):
        return None
    return granted


def kept_price(worst: credits.WorstCase, components: Mapping[str, str]) -> dict[str, str]:
    """The price of the hold, as the row keeps it for a later estimate: nanos as decimal strings."""
    fixed = worst.fixed_nanos
    if worst.made_nanos is not NOTHING:
        fixed = EXACT.subtract(fixed, worst.made_nanos)
    return {"fixed_nanos": str(fixed), "output_nanos": str(worst.output_nanos), **components}


def kept_components(price: Price) -> dict[str, str]:
    return {name: str(value) for name, value in price.named().items()}


def _with_sound(ask: Ask, units: Units, routes: Sequence[Route]) -> tuple[int, int]:
    """The tokens of the prompt and the most of the sound, and how many of these limits do not count before the
    upstream has. OpenRouter lists the price of a second as `prompt`, where the output has none."""
    if all(not is_own(route) and route.price and not route.price.completion for route in routes):
        return ceil(units.seconds), ceil(units.seconds)
    heard = ceil(units.seconds * TOKENS_OF_SECOND)
    return ask.prompt.tokens + heard, ask.prompt.not_sent + heard


def _hides_price(model: Model) -> bool:
    """Its listing says that it costs nothing, and its name does not."""
    return not model.id.endswith(":free") and any(
        not is_own(route) and route.price is not None and not route.price.named() for route in model.routes
    )


def _of_all_turns(prompt_tokens: int, longest: int | None, choices: int, added: Added) -> int:
    """The prompt tokens of all turns. In a loop of tools, each turn reads the prompt again, with all results so far."""
    if not added.steps:
        return prompt_tokens if longest is None else min(prompt_tokens, longest)
    turns = [prompt_tokens + step * added.step_tokens for step in range(added.turns)]
    return choices * sum(turn if longest is None else min(turn, longest) for turn in turns)


def _of_dialects(routes: Sequence[Route], dialects: frozenset[Dialect]) -> tuple[Route, ...]:
    return tuple(route for route in routes if route.upstream.dialect in dialects)


def _outputs_images(model: Model) -> bool:
    architecture = model.listing.get("architecture")
    outputs = architecture.get("output_modalities") if isinstance(architecture, dict) else None
    return isinstance(outputs, list) and "image" in outputs


def _most_output(route: Route) -> int | None:
    """A model without a declared maximum may fill its context, but none does. A hold for all of it would refuse half of
    all calls, and providers refuse so large a bound."""
    return route.most_output or (min(route.context_tokens, MOST_OUTPUT_UNDECLARED) if route.context_tokens else None)


def _most(numbers: Sequence[int | None]) -> int | None:
    """None where any is unknown: then there is no bound."""
    known = [number for number in numbers if number]
    return max(known) if known and len(known) == len(numbers) else None
