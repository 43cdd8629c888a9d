"""All models, by each of their names, and the aliases of the operator's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from tollgate.catalog.entries import AliasRow, Entry, Hosted
from tollgate.catalog.rules import as_model, spellings
from tollgate.core.errors import CatalogUnavailable, ModelNotFound
from tollgate.core.models import Alias, Model, Retirement, Route, Target, Upstream

MOST_TOKENS: Final = 1_000_000_000
FOR_GOOD: Final = "9999-12-31"

Today = Callable[[], str]
Found = Model | Alias


class CatalogIndex:
    def __init__(
        self,
        entries: Iterable[Entry],
        hosted: Iterable[Hosted],
        home: Upstream,
        *,
        aliases: Iterable[AliasRow] = (),
        whole: bool = True,
    ) -> None:
        self._home = home
        self._whole = whole
        self._entries = {entry.id: entry for entry in entries}
        self._also: dict[str, Entry] = {}
        for entry in self._entries.values():
            if entry.also is not None:
                self._also.setdefault(entry.also, entry)
        self._hosted: dict[str, list[Hosted]] = {}
        for one in hosted:
            self._hosted.setdefault(one.model, []).append(one)
        self._aliases = {alias.name: alias for alias in aliases}
        names = dict.fromkeys((*self._entries, *self._hosted))
        self._ending = {name for name in names if self._has_end(name)}
        self._models = {name: self._model(name) for name in names}

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: str, today: Today) -> Found:
        """The model or the alias of this name. Raises ModelNotFound only if the index is complete."""
        alias = self._aliases.get(name)
        return self._find(name, today) if alias is None else self._resolved(alias, today)

    def offered(self, today: str) -> tuple[Model, ...]:
        """The models on offer on that day: OpenRouter's in its order, then our own, then the aliases. An alias with the
        name of a model takes its place."""
        offered: dict[str, Model] = {}
        for name, model in self._models.items():
            found = model if name not in self._ending else self._on(name, today)
            if found is not None:
                offered[name] = found
        for alias in self._aliases.values():
            if (as_model := self._alias_offered(alias, today)) is not None:
                offered[alias.name] = as_model
        return tuple(offered.values())

    def _find(self, name: str, today: Today) -> Model:
        model = self._models.get(name)
        if model is not None and name not in self._ending:
            return model
        entry, hosted = self._entry_of(name), self._hosted.get(name, [])
        if entry is None and not hosted:
            raise ModelNotFound(param="model", model=name) if self._whole else CatalogUnavailable()
        found = self._on(name, today())
        if found is None:
            raise ModelNotFound(param="model", model=name, **self._end_of(entry, hosted))
        return found

    def _on(self, name: str, today: str) -> Model | None:
        """With the routes that serve on that day; None if none does."""
        hosted = [one for one in self._hosted.get(name, ()) if not _is_over(one.route.retirement, today)]
        entry = self._entry_of(name)
        if entry is not None and not _is_over(_expiry(entry), today):
            return self._made(name, hosted, entry, serving=True)
        return self._made(name, hosted, entry) if hosted else None

    def _model(self, name: str) -> Model:
        return self._made(name, self._hosted.get(name, ()), self._entries.get(name), serving=True)

    def _made(self, name: str, hosted: Sequence[Hosted], entry: Entry | None, *, serving: bool = False) -> Model:
        """`serving`: OpenRouter still serves the entry."""
        home = () if entry is None or not serving else (self._at_home(name, entry),)
        routes = sorted((*(one.route for one in hosted), *home), key=lambda route: route.priority)
        listing = entry.listing if entry is not None else hosted[0].listing
        return Model(name, tuple(routes), listing, _of_all(routes))

    def _at_home(self, name: str, entry: Entry) -> Route:
        """By the name as it was asked for, since a suffix selects how OpenRouter routes."""
        return _route(entry, self._home)._replace(model=entry.id if name in self._entries else name)

    def _entry_of(self, name: str) -> Entry | None:
        """A name of our own servers' is no spelling of another."""
        if name in self._hosted:
            return self._entries.get(name)
        for spelling in spellings(name):
            if entry := self._entries.get(spelling) or self._also.get(spelling):
                return entry
        return None

    def _has_end(self, name: str) -> bool:
        entry = self._entries.get(name)
        ends = [one.route.retirement for one in self._hosted.get(name, ())] + ([_expiry(entry)] if entry else [])
        return any(end is not None and end.retires_on is not None for end in ends)

    def _end_of(self, entry: Entry | None, hosted: Sequence[Hosted]) -> dict[str, str]:
        """The facts of a model that is no longer served: the last day, and what to use instead."""
        ends = [one.route.retirement for one in hosted] + ([_expiry(entry)] if entry else [])
        return _facts([end for end in ends if end is not None])

    def _resolved(self, alias: AliasRow, today: Today) -> Alias:
        """Targets and fallbacks that are not served are left out. If all are, raises why the first one is not."""
        if _is_over(alias.retirement, today()):
            raise ModelNotFound(param="model", model=alias.name, **_facts([alias.retirement]))
        failed: list[ModelNotFound | CatalogUnavailable] = []
        targets = [
            Target(model, upstream_id, weight)
            for name, upstream_id, weight in alias.targets
            if (model := self._target(name, upstream_id, today, failed)) is not None
        ]
        fallbacks = [
            model for name in alias.fallbacks if (model := self._target(name, None, today, failed)) is not None
        ]
        if not targets and not fallbacks:
            raise failed[0]
        return Alias(alias.name, tuple(targets), tuple(fallbacks), alias.retirement, alias.description)

    def _target(
        self, name: str, upstream_id: str | None, today: Today, failed: list[ModelNotFound | CatalogUnavailable]
    ) -> Model | None:
        try:
            model = self._find(name, today)
        except (ModelNotFound, CatalogUnavailable) as error:
            failed.append(error)
            return None
        routes = tuple(route for route in model.routes if upstream_id in (None, route.upstream.id))
        if not routes:
            failed.append(ModelNotFound(param="model", model=name, upstream_id=upstream_id))
            return None
        return model if len(routes) == len(model.routes) else model._replace(routes=routes)

    def _alias_offered(self, alias: AliasRow, today: str) -> Model | None:
        try:
            return as_model(self._resolved(alias, lambda: today))
        except (ModelNotFound, CatalogUnavailable):
            return None


def _is_over(retirement: Retirement | None, today: str) -> bool:
    return retirement is not None and retirement.is_over(today)


def _of_all(routes: Sequence[Route]) -> Retirement | None:
    """Of a model: none while one of its routes has none, else the latest."""
    ends = [route.retirement for route in routes]
    if None in ends:
        return None
    return max((end for end in ends if end is not None), key=lambda end: end.retires_on or FOR_GOOD, default=None)


def _facts(ends: Sequence[Retirement | None]) -> dict[str, str]:
    over = [end for end in ends if end is not None and end.retires_on is not None]
    if not over:
        return {}
    last = max(over, key=lambda end: end.retires_on or "")
    replacement = last.replacement or next((end.replacement for end in over if end.replacement), None)
    known = {"expired_on": last.retires_on, "replacement": replacement}
    return {name: value for name, value in known.items() if value is not None}


def _expiry(entry: Entry) -> Retirement | None:
    return Retirement(retires_on=entry.expires_on) if entry.expires_on is not None else None


def _route(entry: Entry, home: Upstream) -> Route:
    provider = entry.listing.get("top_provider")
    limits = provider if isinstance(provider, Mapping) else {}
    contexts = [_tokens(entry.listing.get("context_length")), _tokens(limits.get("context_length"))]
    return Route(
        home,
        entry.id,
        entry.price,
        context_tokens=max((tokens for tokens in contexts if tokens), default=None),
        most_output=_tokens(limits.get("max_completion_tokens")),
        retirement=_expiry(entry),
    )


def _tokens(given: object) -> int | None:
    counts = isinstance(given, int) and not isinstance(given, bool) and 0 < given <= MOST_TOKENS
    return given if counts and isinstance(given, int) else None
