"""Money is an integer number of nanos: 1 credit = 1 US dollar = 1,000,000,000 nanos."""

from decimal import Context, Inexact, InvalidOperation, Overflow

NANOS_PER_CREDIT = 1_000_000_000

EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
"""For `with localcontext(EXACT)`: decimals that never round by themselves. The default keeps 28 digits, silently."""


def to_credits(nanos: int) -> float:
    """For people to read; never to calculate with."""
    return nanos / NANOS_PER_CREDIT
