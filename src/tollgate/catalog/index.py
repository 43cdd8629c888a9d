"""All models by all their names. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tollgate.catalog.entries import Entry, Hosted
from tollgate.catalog.rules import spellings
from tollgate.core.errors import CatalogUnavailable, ModelNotFound
from tollgate.core.models import Model, Route, Upstream

MOST_TOKENS: Final = 1_000_000_000


class CatalogIndex:
    """All that can be asked for, by its names."""

    def __init__(
        self, entries: Iterable[Entry], hosted: Iterable[Hosted], home: Upstream, *, whole: bool = True
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
        self._expiring = {entry.id for entry in self._entries.values() if entry.expires_on is not None}
        self._models = {name: self._model(name) for name in dict.fromkeys((*self._entries, *self._hosted))}

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: str, today: Callable[[], str]) -> Model:
        """The model of this name. Where a list is missing, nobody can say that there is none."""
        model = self._models.get(name)
        if model is not None and name not in self._expiring:
            return model
        entry = self._entry(name)
        if entry is None:
            raise ModelNotFound(param="model", model=name) if self._whole else CatalogUnavailable()
        if entry.expires_on is None or entry.expires_on >= today():
            return model or Model(name, (_route(entry, self._home)._replace(model=name),), entry.listing)
        if name in self._hosted:
            return Model(name, self._routes(name), entry.listing)
        raise ModelNotFound(param="model", model=name, expired_on=entry.expires_on)

    def offered(self, today: str) -> tuple[Model, ...]:
        """What can be had on that day, in OpenRouter's order, our own last."""
        return tuple(model for name, model in self._models.items() if not self._is_gone(name, today))

    def _is_gone(self, name: str, today: str) -> bool:
        return name in self._expiring and (self._entries[name].expires_on or "") < today and name not in self._hosted

    def _entry(self, name: str) -> Entry | None:
        for spelling in spellings(name):
            if entry := self._entries.get(spelling) or self._also.get(spelling):
                return entry
        return None

    def _model(self, name: str) -> Model:
        entry = self._entries.get(name)
        if entry is None:
            return Model(name, self._routes(name), self._hosted[name][0].listing)
        return Model(name, self._routes(name, _route(entry, self._home)), entry.listing)

    def _routes(self, name: str, *home: Route) -> tuple[Route, ...]:
        routes = [*(one.route for one in self._hosted.get(name, ())), *home]
        return tuple(sorted(routes, key=lambda route: route.priority))


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
    )


def _tokens(given: object) -> int | None:
    counts = isinstance(given, int) and not isinstance(given, bool) and 0 < given <= MOST_TOKENS
    return given if counts and isinstance(given, int) else None
