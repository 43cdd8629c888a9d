"""A sticky choice by weight: rendezvous hashing. Pure.

Each arm scores by a hash of itself and of who chooses, and the best score wins. So the same chooser gets the same arm
on every instance without any shared state, shares follow the weights, and a change of one arm moves only choosers to or
from that arm.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

Arm = TypeVar("Arm")

_RANGE: Final = 2**64


def ordered(
    arms: Iterable[Arm], chooser: str, *, name: Callable[[Arm], str], weight: Callable[[Arm], int]
) -> tuple[Arm, ...]:
    """The arms as this chooser prefers them. Weights below 1 count as 1."""
    return tuple(sorted(arms, key=lambda arm: _distance(chooser, name(arm)) / max(weight(arm), 1)))


def _distance(chooser: str, name: str) -> float:
    """Exponentially distributed, so that divided by weights the nearest arm is each with its share."""
    digest = hashlib.blake2b(f"{len(chooser)}:{chooser}{name}".encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 0.5) / _RANGE)
