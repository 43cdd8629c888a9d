"""What each day (UTC) cost, by key and model: the bill as GET /activity states it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tollgate.sandbox.catalog import PROVIDER
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.prices import dollars

MOST_DAYS = 30
MOST_SUMS = 10_000


@dataclass(slots=True)
class Sum:
    requests: int = 0
    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    cost: int = 0
    upstream: int = 0
    """Of own provider keys, at the vendor. Both costs are in picodollars."""


class DailyBill:
    """Keeps sums, since generations are forgotten."""

    def __init__(self) -> None:
        self._sums: dict[tuple[date, str, str], Sum] = {}

    def add(self, ended: Generation, day: date) -> None:
        key = ended.job.header("authorization").rpartition(" ")[2]
        place = day, hashlib.sha256(key.encode()).hexdigest(), ended.model.id
        sums = self._sums.setdefault(place, Sum())
        sums.requests += 1
        sums.prompt += ended.used.prompt
        sums.completion += ended.used.completion
        sums.reasoning += ended.used.reasoning
        sums.cost += ended.stated_later(ended.bill.cost)
        sums.upstream += ended.bill.upstream.total if ended.bill.is_byok else 0
        if len(self._sums) > MOST_SUMS:
            del self._sums[next(iter(self._sums))]

    def rows(self, now: float, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        """Of the last 30 days that are over."""
        today = day_of(now)
        found: dict[tuple[date, str], Sum] = {}
        for (day, key_hash, model), sums in self._sums.items():
            if today - timedelta(days=MOST_DAYS) <= day < today and _is_wanted(day, key_hash, wanted):
                found[day, model] = _added(found.get((day, model), Sum()), sums)
        return [_row(day, model, sums) for (day, model), sums in sorted(found.items())]


def day_of(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def _is_wanted(day: date, key_hash: str, wanted: Mapping[str, str]) -> bool:
    return wanted.get("date", str(day)) == str(day) and wanted.get("api_key_hash", key_hash) == key_hash


def _added(one: Sum, other: Sum) -> Sum:
    return Sum(*(getattr(one, name) + getattr(other, name) for name in Sum.__slots__))


def _row(day: date, model: str, sums: Sum) -> dict[str, Any]:
    return {
        "date": str(day),
        "model": model,
        "model_permaslug": model,
        "endpoint_id": hashlib.sha256(model.encode()).hexdigest()[:32],
        "provider_name": PROVIDER,
        "requests": sums.requests,
        "prompt_tokens": sums.prompt,
        "completion_tokens": sums.completion,
        "reasoning_tokens": sums.reasoning,
        "usage": dollars(sums.cost),
        "byok_usage_inference": dollars(sums.upstream),
    }
