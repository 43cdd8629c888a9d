"""Money is an integer number of nanos: 1 credit = 1 US dollar = 1,000,000,000 nanos."""

from collections.abc import Mapping
from decimal import Context, Inexact, InvalidOperation, Overflow
from typing import Any

NANOS_PER_CREDIT = 1_000_000_000

EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
"""Arithmetic that raises instead of rounding; the default context silently keeps 28 digits. Its methods (`multiply`,
and `fma` for a × b + c) cost less than `with localcontext(EXACT)`, which copies it."""


def credits_text(nanos: int) -> str:
    """Exact, with two to nine decimal places."""
    whole, rest = divmod(abs(nanos), NANOS_PER_CREDIT)
    places = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{whole}.{places}"


def credits_number(nanos: int) -> str:
    """Exact, as a JSON number without an exponent: 0.00001155."""
    return credits_text(nanos).rstrip("0").removesuffix(".")


def credits_float(nanos: int) -> float:
    """The nearest double: exact to the nano up to eight million credits. For answers in the shape of other APIs."""
    return float(credits_number(nanos))


def with_credits(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Adds each amount in credits as well: `cost_credits` beside `cost_nanos`, `credits` beside `credits_nanos`."""
    nanos = {name.removesuffix("_nanos"): amount for name, amount in fields.items() if name.endswith("_nanos")}
    twins = {
        name if name == "credits" else f"{name}_credits": None if amount is None else credits_text(amount)
        for name, amount in nanos.items()
    }
    return {**fields, **twins}
