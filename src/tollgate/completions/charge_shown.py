"""What the usage in an answer states about money: the charge, and never our cost. Pure.

Nothing is added where the upstream states no cost, and every byte outside the usage stays as it is.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tollgate.core import sse, strict_json
from tollgate.core.money import credits_number
from tollgate.core.strict_json import Change, Edits, NotJson

Places = Sequence[str | None]
"""The members of an answer or event that may have a usage; None for the document itself."""
ON_TOP: Final[Places] = (None,)


class Amounts(NamedTuple):
    """The amounts that the usage may state."""

    charge_nanos: int | None
    """None while it is not known. Then the usage states no cost at all."""
    cost_nanos: int | None = None
    """Only where the operator shows both."""


UNKNOWN = Amounts(None)


def states_cost(usage: Mapping[str, Any] | None) -> bool:
    return any(_is_about_cost(name, value) for name, value in (usage or {}).items())


def in_answer(body: bytes, amounts: Amounts, places: Places = ON_TOP) -> bytes:
    """A plain answer, or the data of an event, as `strict_json.from_upstream` could read it."""

    def changed(usage: str | None) -> str | None:
        return _in_usage(usage, amounts) if usage and usage.startswith("{") else usage

    return strict_json.edit(body, at(places, changed))


def at(places: Places, changed: Change) -> Edits:
    """The edits that change the usage at these places."""

    def within(written: str | None) -> str | None:
        return strict_json.edit_text(written, {"usage": changed}) if written and written.startswith("{") else written

    return {"usage" if place is None else place: changed if place is None else within for place in places}


def in_event(event: bytes, amounts: Amounts, places: Places = ON_TOP) -> bytes:
    data = sse.data_of(event)
    return sse.with_data(event, data, in_answer(data, amounts, places))


def without_cost(event: bytes, places: Places) -> bytes:
    """An event before the last usage, without any cost that it states."""
    try:
        strict_json.from_upstream(sse.data_of(event))
    except NotJson:
        return event
    return in_event(event, UNKNOWN, places)


def with_charge(event: bytes, charge: Mapping[str, Any], places: Places = ON_TOP) -> bytes:
    """The event of the last usage, with the charge in it."""
    data = sse.data_of(event)

    def marked(usage: str | None) -> str:
        return strict_json.edit_text(usage or "{}", {"tollgate": json.dumps(charge, separators=(",", ":"))})

    return sse.with_data(event, data, strict_json.edit(data, at(places, marked)))


def _in_usage(usage: str, amounts: Amounts) -> str:
    stated = [name for name, value in strict_json.from_upstream(usage.encode()).items() if _is_about_cost(name, value)]
    if not stated:
        return usage
    shown = {"cost": amounts.charge_nanos, "upstream_cost": amounts.cost_nanos}
    numbers = {name: credits_number(nanos) for name, nanos in shown.items() if nanos is not None}
    return strict_json.edit_text(usage, {**dict.fromkeys(stated), **numbers})


def _is_about_cost(name: str, value: object) -> bool:
    """`cost`, `cost_details`, and whatever other servers call it, also inside of other members."""
    return "cost" in name.lower() or (isinstance(value, dict) and "cost" in str(value).lower())
