"""How the catalogue is, in an operator's words. Pure."""

from typing import Final, Literal

from tollgate.catalog.cache import FRESH_SECONDS, OLDEST_SECONDS, CatalogState

Health = Literal["healthy", "stale", "cold", "down"]

HEALTHS: Final = (
    "healthy: the list is fresh. stale: an older one serves, since no newer could be had yet. "
    "cold: there is none here yet; the first call reads what it needs. down: there is none, and none could be had."
)


def of_instance(state: CatalogState) -> Health:
    if state.age_seconds is None or state.age_seconds >= OLDEST_SECONDS:
        return "cold" if state.last_error is None else "down"
    return "healthy" if state.fresh else "stale"


def of_snapshot(age_seconds: float | None) -> Health:
    if age_seconds is None or age_seconds >= OLDEST_SECONDS:
        return "cold"
    return "healthy" if age_seconds < FRESH_SECONDS else "stale"


def hit_rate(state: CatalogState) -> float | None:
    """Of all that was asked for, how much was answered from memory; None before anything was."""
    asked = state.hits + state.misses
    return round(state.hits / asked, 4) if asked else None
