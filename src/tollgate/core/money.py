"""Money is an integer number of nanos: 1 credit = 1 US dollar = 1,000,000,000 nanos."""

from decimal import Context, Inexact, InvalidOperation, Overflow

NANOS_PER_CREDIT = 1_000_000_000

EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
"""Arithmetic that raises instead of rounding; the default context silently keeps 28 digits. Its methods (`multiply`,
and `fma` for a × b + c) cost less than `with localcontext(EXACT)`, which copies it."""


def to_credits(nanos: int) -> float:
    """For display only. Never calculate with it."""
    return nanos / NANOS_PER_CREDIT
