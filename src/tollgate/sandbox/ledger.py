"""All that the sandbox remembers: every generation, what is owed for them, and which prompts it has seen."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tollgate.sandbox import tokens
from tollgate.sandbox.activity import DailyBill, day_of
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.prices import dollars, nanos

SHORTEST_CACHED = 256
"""Tokens; a shorter prompt is not worth caching, as with real providers."""

Clock = Callable[[], float]


class Ledger:
    """Keeps the latest generations, and the sums of all."""

    def __init__(self, clock: Clock, *, kept: int) -> None:
        self._clock = clock
        self._kept = kept
        self.forget()

    def forget(self) -> None:
        self._generations: dict[str, Generation] = {}
        self.cost_picos = 0
        self.owed_nanos = 0
        self.daily = DailyBill()

    def open(self, generation: Generation) -> None:
        self._generations[generation.id] = generation
        if len(self._generations) > self._kept:
            del self._generations[next(iter(self._generations))]

    def count(self, ended: Generation) -> None:
        """Adds what an ended generation cost. Each rounds up to nanos by itself, as it will be charged.

        One that was under way when everything was forgotten counts for nothing.
        """
        if ended.id not in self._generations:
            return
        self.cost_picos += ended.bill.cost
        self.owed_nanos += nanos(ended.bill.owed)
        self.daily.add(ended, day_of(ended.started))

    def find(self, generation_id: str, usual_delay: float) -> Generation | None:
        """None until it is visible."""
        found = self._generations.get(generation_id)
        return found if found and found.visible(self._clock(), usual_delay) else None

    def shown(self) -> dict[str, Any]:
        return {
            "owed_nanos": self.owed_nanos,
            "cost": format(dollars(self.cost_picos).normalize(), "f"),
            # A list first, since another thread may ask while one is opened.
            "generations": [generation.entry() for generation in list(self._generations.values())],
        }


class PromptCache:
    """Which prompts began like this before. Kept by whole messages."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._seen: dict[bytes, None] = {}

    def forget(self) -> None:
        self._seen.clear()

    def read(self, texts: Sequence[str]) -> tuple[int, int]:
        """How many tokens of a prompt were cached before, and how many are now."""
        cached = length = 0
        for digest, length in _beginnings(texts):
            if digest in self._seen:
                cached = length
            self._seen[digest] = None
        while len(self._seen) > self._kept:
            del self._seen[next(iter(self._seen))]
        return cached, length - cached


def _beginnings(texts: Sequence[str]) -> Iterator[tuple[bytes, int]]:
    so_far = hashlib.sha256()
    length = 0
    for text in texts:
        so_far.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
        length += tokens.of_message(text)
        if length >= SHORTEST_CACHED:
            yield so_far.digest(), length
