"""Reads OpenRouter's statement of a day, compares it with our books, and says why they may differ. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final, Literal, NamedTuple

from tollgate.core.errors import BadRequest
from tollgate.core.money import NANOS_PER_CREDIT, credits_text
from tollgate.core.strict_json import NotJson, from_upstream

PPM: Final = 1_000_000
MOST_DAYS: Final = 30
"""OpenRouter states so many days."""
MOST_COUNT: Final = 10**15
MOST_DOLLARS: Final = 10**9
LONGEST_NAME: Final = 256
EXAMPLES: Final = 20
"""Requests that are named for each cause of a model."""

Verdict = Literal["agrees", "explained", "differs"]
CAUSES: Final[Mapping[str, str]] = {
    "open": "Requests that have not ended: a late settlement will add their cost.",
    "estimated": "Requests charged by an estimate, since OpenRouter's figure was not known.",
    "at_the_hold": "Requests charged at their hold, since OpenRouter's figure cannot be true.",
    "no_record": "Requests that we charged nothing for, since OpenRouter had no record of their generation.",
    "no_trace": "Requests of which nothing says whether they were sent.",
    "day_before": "Requests that began the day before and ended on this day.",
    "next_day": "Requests that began on this day and ended on the next.",
    "other_model": "Requests that another model served than the one they asked for.",
    "account_key": "Requests that used a key of a vendor that your OpenRouter account holds.",
    "corrected": "The tokens are the same and the cost is not: OpenRouter corrected its bill, or changed a price.",
    "unknown_requests": "OpenRouter states more than all our requests: the key is used elsewhere, or rows are lost.",
    "not_stated": "OpenRouter states less than our requests cost.",
}
"""Why the totals of a model may differ."""


class Unreadable(ValueError):
    """A statement that cannot be read."""


class Total(NamedTuple):
    """Of one model and day."""

    requests: int = 0
    tokens: int = 0
    cost_nanos: int = 0

    def plus(self, other: "Total") -> "Total":
        return Total(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Statement(NamedTuple):
    """What OpenRouter says of a day."""

    totals: Mapping[str, Total]
    names: Mapping[str, str]
    """The model of each other name that a model has there."""

    def model(self, name: str) -> str:
        """The model that the statement has for a name of ours."""
        base = name.partition(":")[0]
        return next((one for one in (name, self.names.get(name, name), base) if one in self.totals), name)


class Cause(NamedTuple):
    """What may have been added to their cost less ours, in nanos."""

    cause: str
    requests: int
    least_nanos: int
    most_nanos: int
    examples: Sequence[Mapping[str, Any]] = ()


def check_day(day: date, now: datetime) -> None:
    today = now.astimezone(UTC).date()
    if day >= today:
        raise BadRequest(param="day", fault="is not over yet (in UTC)")
    if day < today - timedelta(days=MOST_DAYS):
        raise BadRequest(param="day", fault=f"is more than {MOST_DAYS} days ago, and OpenRouter states no older days")


def read_statement(body: bytes, day: date) -> Statement:
    """GET /activity. What the vendor of an account's own key bills is a part of the cost, as it is in our books."""
    try:
        rows = from_upstream(body).get("data")
    except NotJson:
        raise Unreadable("it is not JSON") from None
    if not isinstance(rows, list):
        raise Unreadable("it has no list of rows")
    totals: dict[str, Total] = defaultdict(Total)
    dollars: dict[str, Decimal] = defaultdict(Decimal)
    names: dict[str, str] = {}
    for row in rows:
        model = _name(row, "model")
        if not str(row.get("date", "")).startswith(day.isoformat()):
            continue
        names[_name(row, "model_permaslug", model)] = model
        tokens = _count(row, "prompt_tokens") + _count(row, "completion_tokens")
        totals[model] = totals[model].plus(Total(_count(row, "requests"), tokens))
        dollars[model] += _dollars(row, "usage") + _dollars(row, "byok_usage_inference")
    return Statement(
        {model: total._replace(cost_nanos=_nanos(dollars[model])) for model, total in totals.items()}, names
    )


def ours_by_model(rows: Iterable[Mapping[str, Any]], statement: Statement) -> dict[str, Total]:
    """Our books, under the names of the statement."""
    totals: dict[str, Total] = defaultdict(Total)
    for row in rows:
        model = statement.model(row["model"])
        totals[model] = totals[model].plus(Total(row["requests"], row["tokens"], row["cost_nanos"]))
    return dict(totals)


def differing(ours: Mapping[str, Total], statement: Statement, tolerance_ppm: int) -> bool:
    """Whether the totals of any model are too far apart."""
    pairs = ((ours.get(model, Total()), statement.totals.get(model, Total())) for model in {*ours, *statement.totals})
    return any(not _agree(mine, theirs, tolerance_ppm) for mine, theirs in pairs)


def outcome(
    ours: Mapping[str, Total], statement: Statement, found: Iterable[Mapping[str, Any]], tolerance_ppm: int
) -> dict[str, Any]:
    """Of the day, as it is kept. `found`: groups of requests that OpenRouter may state otherwise."""
    causes = _causes(found, statement)
    models = [
        _compared(model, ours.get(model, Total()), statement.totals.get(model, Total()), causes[model], tolerance_ppm)
        for model in sorted({*ours, *statement.totals})
    ]
    mine, theirs = _sum(ours.values()), _sum(statement.totals.values())
    return {
        "verdict": _verdict(models, mine, theirs, tolerance_ppm),
        "tolerance_ppm": tolerance_ppm,
        **_totals(mine, theirs),
        "models": models,
    }


def _compared(model: str, ours: Total, theirs: Total, causes: Sequence[Cause], tolerance_ppm: int) -> dict[str, Any]:
    verdict: Verdict = "agrees"
    named: list[Cause] = []
    if not _agree(ours, theirs, tolerance_ppm):
        rest = _rest(ours, theirs, causes, tolerance_ppm)
        verdict, named = ("differs", [*causes, rest]) if rest else ("explained", list(causes))
    return {
        "model": model,
        "verdict": verdict,
        **_totals(ours, theirs),
        "our_tokens": ours.tokens,
        "their_tokens": theirs.tokens,
        "causes": [one._asdict() for one in named],
    }


def _totals(ours: Total, theirs: Total) -> dict[str, int]:
    return {
        "our_requests": ours.requests,
        "their_requests": theirs.requests,
        "our_cost_nanos": ours.cost_nanos,
        "their_cost_nanos": theirs.cost_nanos,
    }


def _rest(ours: Total, theirs: Total, causes: Sequence[Cause], tolerance_ppm: int) -> Cause | None:
    """What no request explains, if anything."""
    difference = theirs.cost_nanos - ours.cost_nanos
    allowed = _allowed(ours, theirs, tolerance_ppm)
    least, most = sum(one.least_nanos for one in causes), sum(one.most_nanos for one in causes)
    if least - allowed <= difference <= most + allowed:
        return None
    rest = difference - (most if difference > most else least)
    cause = "corrected" if ours.tokens == theirs.tokens else "unknown_requests" if rest > 0 else "not_stated"
    return Cause(cause, max(0, theirs.requests - ours.requests) if cause == "unknown_requests" else 0, rest, rest)


def _causes(found: Iterable[Mapping[str, Any]], statement: Statement) -> dict[str, list[Cause]]:
    """By model, each cause once."""
    gathered: dict[tuple[str, str], Cause] = {}

    def add(model: str, cause: str, row: Mapping[str, Any], least: int, most: int) -> None:
        old = gathered.get((model, cause), Cause(cause, 0, 0, 0))
        examples = [*old.examples, *row["examples"]][:EXAMPLES]
        gathered[model, cause] = Cause(
            cause, old.requests + row["requests"], old.least_nanos + least, old.most_nanos + most, examples
        )

    for row in found:
        model, cause, cost = statement.model(row["model"]), row["cause"], row["cost_nanos"]
        if cause == "other_model":
            served = statement.model(row["served_model"])
            if served != model:
                add(model, cause, row, -cost, -cost)
                add(served, cause, row, cost, cost)
        else:
            add(model, cause, row, *_bounds(cause, cost, row["most_nanos"]))
    by_model: dict[str, list[Cause]] = defaultdict(list)
    for (model, _), one in gathered.items():
        by_model[model].append(one)
    return by_model


def _bounds(cause: str, cost: int, most: int) -> tuple[int, int]:
    """What requests may add to their cost less ours, if they cost at most `most`."""
    match cause:
        case "day_before":
            return 0, cost
        case "next_day" | "account_key":
            return -cost, 0
        case "estimated" | "at_the_hold":
            return -cost, most - cost
    return 0, most


def _verdict(models: Sequence[Mapping[str, Any]], ours: Total, theirs: Total, tolerance_ppm: int) -> Verdict:
    """Of the day: a model counts if its difference alone is too large for the day."""
    allowed = _allowed(ours, theirs, tolerance_ppm)
    large = [one for one in models if abs(one["their_cost_nanos"] - one["our_cost_nanos"]) > allowed]
    if not large and _agree(ours, theirs, tolerance_ppm):
        return "agrees"
    return "explained" if large and all(one["verdict"] != "differs" for one in large) else "differs"


def _agree(ours: Total, theirs: Total, tolerance_ppm: int) -> bool:
    return abs(theirs.cost_nanos - ours.cost_nanos) <= _allowed(ours, theirs, tolerance_ppm)


def _allowed(ours: Total, theirs: Total, tolerance_ppm: int) -> int:
    """The tolerance, and a nano for each request: we round each up."""
    return max(ours.cost_nanos, theirs.cost_nanos) * tolerance_ppm // PPM + ours.requests


def _sum(totals: Iterable[Total]) -> Total:
    added = Total()
    for one in totals:
        added = added.plus(one)
    return added


def _name(row: Any, field: str, default: str | None = None) -> str:
    value = row.get(field, default) if isinstance(row, Mapping) else None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise Unreadable(f"a row has no {field}")
    return value


def _count(row: Mapping[str, Any], field: str) -> int:
    value = row.get(field, 0)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= MOST_COUNT:
        raise Unreadable(f"{field} of a row is not a count")
    return int(value)


def _dollars(row: Mapping[str, Any], field: str) -> Decimal:
    value = row.get(field) or 0
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= MOST_DOLLARS:
        raise Unreadable(f"{field} of a row is not an amount")
    return Decimal(value)


def _nanos(dollars: Decimal) -> int:
    return int((dollars * NANOS_PER_CREDIT).to_integral_value(ROUND_CEILING))


def as_text(day: date, outcome: Mapping[str, Any]) -> str:
    """For a terminal: the day, and each model that does not agree with its causes."""
    heads = ("model", "our requests", "theirs", "our cost", "theirs", "difference", "verdict")
    rows = [heads, *(_row(one["model"], one) for one in outcome["models"]), _row("all", outcome)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{day} in UTC, in credits", ""]
    for one, row in zip([None, *outcome["models"], None], rows, strict=True):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)),
        ]
        lines += ["  ".join([*cells, row[-1]]).rstrip(), *(_lines(one) if one else ())]
    return "\n".join(lines)


def _row(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    ours, theirs = one["our_cost_nanos"], one["their_cost_nanos"]
    counts = (str(one["our_requests"]), str(one["their_requests"]))
    return (name, *counts, *map(credits_text, (ours, theirs, theirs - ours)), one["verdict"])


def _lines(model: Mapping[str, Any]) -> Iterable[str]:
    for one in model["causes"]:
        least, most = credits_text(one["least_nanos"]), credits_text(one["most_nanos"])
        span = least if least == most else f"{least} to {most}"
        counted = f", requests {one['requests']}" if one["requests"] else ""
        yield f"    {one['cause']}: {span}{counted}. {CAUSES[one['cause']]}"
        yield from (f"      {example['id']}" for example in one["examples"])
