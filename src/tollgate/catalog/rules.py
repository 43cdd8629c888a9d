"""The spellings of a model's name, the bound of its price, how it is listed, and the health of the list."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any, Final, Literal, NamedTuple

from tollgate.core import prices, rendezvous
from tollgate.core.endpoints import ENDPOINTS, Form
from tollgate.core.errors import BadRequest, ModelUnpriced
from tollgate.core.models import Alias, Model, Target
from tollgate.core.money import EXACT
from tollgate.core.prices import PPM, Price, Unpriced

SUFFIXES: Final = frozenset({"free", "extended", "thinking", "nitro", "floor", "exacto", "online", "batch"})
FREE: Final = "free"
"""The only suffix that changes the price; the others only select how to route."""

FRESH_SECONDS: Final = 300
OLDEST_SECONDS: Final = 86_400

ListHealth = Literal["healthy", "stale", "cold", "down"]

PER_MILLION: Final = ("prompt", "completion")
SELF_HOSTED: Final = "self-hosted"


class CatalogState(NamedTuple):
    models: int
    age_seconds: float | None
    """Since the list was fetched, by any instance; None without a list."""
    fresh: bool
    hits: int
    """Look-ups answered from memory."""
    misses: int
    """Look-ups that asked Postgres or OpenRouter."""
    refreshes: int
    failures: int
    """Refreshes that got no list."""
    skipped: int
    """Entries of the last list that could not be used."""
    last_error: str | None


def spellings(name: str) -> tuple[str, ...]:
    """The names under which the price of a model may be listed, the closest first.

    A suffix that is not listed only selects how to route, so the price of the name without it applies. A free variant
    must be listed itself.
    """
    bare, *suffixes = name.split(":")
    if not suffixes or not SUFFIXES.issuperset(suffixes) or len(set(suffixes)) < len(suffixes):
        return (name,)
    nearer = [f"{bare}:{FREE}"] if FREE in suffixes else [*(f"{bare}:{suffix}" for suffix in suffixes), bare]
    return tuple(dict.fromkeys((name, *nearer)))


def chosen(found: Model | Alias, chooser: str) -> list[Model]:
    """The models that may answer, in order: of an alias the target that falls to this chooser, and its fallbacks."""
    if isinstance(found, Model):
        return [found]
    arms = rendezvous.ordered(
        found.targets, f"{found.name} {chooser}", name=_arm_name, weight=lambda target: target.weight
    )
    models: list[Model] = []
    for model in (*(arm.model for arm in arms[:1]), *found.fallbacks):
        if model not in models:
            models.append(model)
    return models


def as_model(found: Model | Alias) -> Model:
    """An alias as a model: with the listing of its first target, and all that it may stand for."""
    if isinstance(found, Model):
        return found
    models = [target.model for target in found.targets] + list(found.fallbacks)
    own = {"id": found.name, "canonical_slug": models[0].id}
    own |= {"description": found.description} if found.description else {}
    routes = tuple(dict.fromkeys(route for model in models for route in model.routes))
    alias_of = tuple(dict.fromkeys(model.id for model in models))
    return Model(found.name, routes, {**models[0].listing, **own}, found.retirement, alias_of)


def may_use(patterns: Sequence[str] | None, model: Model) -> bool:
    """Of an alias, whether all that it may stand for is allowed: the alias itself allows nothing."""
    return all(allowed(patterns, name) for name in model.alias_of or (model.id,))


def endpoints_of(model: Model) -> list[dict[str, str]]:
    """The paid endpoints at which a model is served, and how: by its servers, by a translation, or by our own count."""
    dialects = {route.upstream.dialect for route in model.routes}
    shown = []
    for form in ENDPOINTS.values():
        if not (gives(model, form.outputs) or _is_priced_for(model, form)):
            continue
        if not form.dialects.isdisjoint(dialects):
            shown.append({"path": f"/v1{form.path}", "served": "passed"})
        elif form.is_translated or form.is_free:
            shown.append({"path": f"/v1{form.path}", "served": "translated" if form.is_translated else "estimated"})
    return shown


def _is_priced_for(model: Model, form: Form) -> bool:
    """Whether a route of our own has a price that only this endpoint and its like are charged by."""
    units = [route.price.units for route in model.routes if route.price and route.price.units]
    return any(not form.meters.isdisjoint(of_route.named()) for of_route in units)


def _arm_name(target: Target) -> str:
    return f"{target.model.id} {target.upstream_id or ''}"


def bound_price(model: Model, max_price: Mapping[str, Any] | None) -> Price:
    """The highest price of the model's routes. A route without a price is bounded by the client's max_price."""
    priced = [route.price if route.price is not None else _most(model.id, max_price) for route in model.routes]
    return prices.dearest(priced)


def shown(model: Model, markup_ppm: int) -> dict[str, Any]:
    """The model as GET /v1/models lists it: OpenAI's and OpenRouter's fields, with the prices that are charged."""
    listing = model.listing
    created = listing.get("created")
    return {
        "id": listing["id"],
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": owner(listing["id"]),
        **{name: value for name, value in listing.items() if name not in ("id", "object", "created", "owned_by")},
        "pricing": prices.marked_up(listing["pricing"], markup_ppm),
        "endpoints": endpoints_of(model),
        **({"alias_of": list(model.alias_of)} if model.alias_of else {}),
        **({"deprecation": model.retirement._asdict()} if model.retirement else {}),
    }


def owner(name: str) -> str:
    author, slash, _ = name.removeprefix("~").partition("/")
    return author if slash else SELF_HOSTED


def gives(model: Model, wanted: frozenset[str]) -> bool:
    """Whether it has one of these output modalities. Without a list of them it is text."""
    architecture = model.listing.get("architecture")
    outputs = architecture.get("output_modalities") if isinstance(architecture, Mapping) else None
    return not wanted.isdisjoint(str(output) for output in outputs) if isinstance(outputs, list) else "text" in wanted


def allowed(patterns: Sequence[str] | None, name: str) -> bool:
    """Whether a pattern matches, as the database decides it; * matches any characters."""
    return patterns is None or any(_fits(pattern, name) for pattern in patterns)


def health_of_instance(state: CatalogState) -> ListHealth:
    if state.age_seconds is None or state.age_seconds >= OLDEST_SECONDS:
        return "cold" if state.last_error is None else "down"
    return "healthy" if state.fresh else "stale"


def seconds_not_refreshed(state: CatalogState) -> float | None:
    """The age of a list that could not be refreshed. An old list that nobody has asked for since is no failure."""
    return None if state.last_error is None or state.fresh else state.age_seconds


def health_of_snapshot(age_seconds: float | None) -> ListHealth:
    if age_seconds is None or age_seconds >= OLDEST_SECONDS:
        return "cold"
    return "healthy" if age_seconds < FRESH_SECONDS else "stale"


def hit_rate(state: CatalogState) -> float | None:
    """Hits by all look-ups; None before the first."""
    lookups = state.hits + state.misses
    return round(state.hits / lookups, 4) if lookups else None


def _fits(pattern: str, name: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    place, end = len(first), len(name) - len(last)
    if not name.startswith(first) or not name.endswith(last) or end < place:
        return False
    for part in middle:
        found = name.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _most(name: str, max_price: Mapping[str, Any] | None) -> Price:
    if max_price is None or any(max_price.get(part) is None for part in PER_MILLION):
        raise ModelUnpriced(param="model", model=name)
    bounds: dict[str, Any] = {
        part: _ready_to_pay(part, max_price[part]) for part in prices.COMPONENTS if max_price.get(part) is not None
    }
    return Price(**bounds)


def _ready_to_pay(part: str, most: object) -> Decimal:
    try:
        amount = prices.nanos(most)
    except Unpriced:
        field = f"provider.max_price.{part}"
        raise BadRequest(f"{field}: send US dollars, from 0 to 1000000.", param=field) from None
    with localcontext(EXACT):
        return amount / PPM if part in PER_MILLION else amount
