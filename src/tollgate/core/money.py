"""Money is an integer number of nanos: 1 credit = 1 US dollar = 1,000,000,000 nanos."""

NANOS_PER_CREDIT = 1_000_000_000


def to_credits(nanos: int) -> float:
    """For people to read; never to calculate with."""
    return nanos / NANOS_PER_CREDIT
