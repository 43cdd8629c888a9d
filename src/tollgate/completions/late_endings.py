"""How the sweeper ends a request, by what OpenRouter's record says of its generation. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from tollgate.completions.endings import RELEASED, Ending, billed, kept_usage
from tollgate.core.prices import Price
from tollgate.core.units import COUNTED
from tollgate.credits import rules as credits

MOST_LOOKS: Final = 12
"""At 2, 4, 8 … seconds: more than an hour in all."""
LONGEST_BETWEEN_LOOKS: Final = 1800

Row = Mapping[str, Any]
"""A request that is due."""


def found(row: Row, record: Mapping[str, Any]) -> Ending:
    """OpenRouter has a record: its cost is charged, which may be zero.

    A cost that the answer stated too is charged in full, whatever the hold was. A cost that only the record states is
    believed up to what the call's tokens and extras could cost.
    """
    markup_ppm, hold_nanos = row["markup_ppm"], row["hold_nanos"]
    try:
        usage = credits.read_generation(record)
        confirmed = usage.cost_nanos == credits.stated_cost(row.get("usage"))
        conceivable = max(credits.BEYOND_BELIEF * hold_nanos, credits.charge_for(credits.most_for(usage), markup_ppm))
        bill = credits.bill(usage, Price(), markup_ppm=markup_ppm, most_nanos=None if confirmed else conceivable)
    except credits.Nonsense:
        return billed(credits.at_the_hold(hold_nanos, markup_ppm))._replace(basis="unbelievable_usage")
    return billed(bill, usage)._replace(usage=_recorded(row, record), basis="generation_record")


def not_found(row: Row) -> Ending:
    """A generation appears within a minute. One that is missing after all looks was never paid for."""
    return RELEASED._replace(basis="no_record") if row["sweeps"] >= MOST_LOOKS else asked_again(row)


def unreadable(row: Row) -> Ending:
    """The record cannot be parsed, or something before OpenRouter answered. If that does not pass, the call is
    quarantined."""
    if row["sweeps"] < MOST_LOOKS:
        return asked_again(row)
    return billed(credits.at_the_hold(row["hold_nanos"], row["markup_ppm"]))._replace(basis="unreadable_record")


def asked_again(row: Row) -> Ending:
    """OpenRouter cannot be reached. The pauses grow, and the request is never given up: the record is still there."""
    return Ending("unsettled", sweep_in_seconds=min(2 ** min(row["sweeps"], 30), LONGEST_BETWEEN_LOOKS))


def without_a_trace(row: Row) -> Ending:
    """Nothing says what the call cost, or whether it went upstream: the prompt is charged, as an estimate."""
    fixed = Decimal(row["price"].get("fixed_nanos", 0))
    charge = min(credits.charge_for(fixed, row["markup_ppm"]), row["hold_nanos"])
    bill = credits.Bill(min(int(fixed), row["hold_nanos"]), charge, estimated=True)
    return billed(bill)._replace(basis="no_trace")


def _recorded(row: Row, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage of the record, with the units that were counted, and the cost that the answer stated where it
    differs."""
    before = row.get("usage") or {}
    stated, counted = before.get("cost"), {name: before[name] for name in COUNTED if name in before}
    kept = kept_usage(counted | {"cost": record["total_cost"], "is_byok": record.get("is_byok")})
    return kept if kept is None or stated in (None, kept.get("cost")) else {**kept, "stated_cost": stated}
