"""What is read from OpenRouter's statement, and how far causes explain a difference."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from tollgate.core.errors import BadRequest
from tollgate.reconciliation import rules
from tollgate.reconciliation.rules import Statement, Total, Unreadable

DAY = date(2026, 11, 29)
ROW = {"date": "2026-11-29 00:00:00", "model": "maker/one", "model_permaslug": "maker/one-2026", "requests": 2}
ROW |= {"prompt_tokens": 10, "completion_tokens": 5, "usage": 0.0000001, "byok_usage_inference": 0.0000002}


def statement(*rows: Any) -> Statement:
    return rules.read_statement(json.dumps({"data": rows}).encode(), DAY)


def test_the_rows_of_a_model_are_added_up_and_its_other_names_known() -> None:
    read = statement(ROW, ROW | {"provider_name": "Other"}, ROW | {"date": "2026-11-28"})
    assert read.totals == {"maker/one": Total(4, 30, 600)}
    ours = [{"model": name, "requests": 1, "tokens": 1, "cost_nanos": 1} for name in NAMES]
    assert rules.ours_by_model(ours, read) == {"maker/one": Total(3, 3, 3), "maker/two:free": Total(1, 1, 1)}


NAMES = ("maker/one", "maker/one-2026", "maker/one:online", "maker/two:free")
NONSENSE = [
    [],
    {"model": 5},
    {**ROW, "model": ""},
    {**ROW, "usage": -1},
    {**ROW, "usage": "1"},
    {**ROW, "requests": True},
    {**ROW, "prompt_tokens": 1e16},
]


def test_a_statement_that_cannot_be_read_is_refused() -> None:
    for row in NONSENSE:
        with pytest.raises(Unreadable):
            statement(row)
    for body in (b"", b"[]", b"<html>", b'{"data": {}}'):
        with pytest.raises(Unreadable):
            rules.read_statement(body, DAY)


def found(cause: str, cost: int, most: int, **more: Any) -> dict[str, Any]:
    row = {"cause": cause, "model": "m", "served_model": "m", "requests": 1, "cost_nanos": cost, "most_nanos": most}
    return {**row, "examples": [], **more}


def compared(ours: int, theirs: int, *causes: dict[str, Any], tokens: int = 10) -> tuple[str, list[tuple[str, int]]]:
    """A model of one request with 10 tokens by our books: the verdict, and each cause with the most that it adds."""
    outcome = rules.outcome({"m": Total(1, 10, ours)}, Statement({"m": Total(1, tokens, theirs)}, {}), causes, 1000)
    (model,) = outcome["models"]
    assert outcome["verdict"] == model["verdict"]
    return model["verdict"], [(cause["cause"], cause["most_nanos"]) for cause in model["causes"]]


@pytest.mark.parametrize(
    ("told", "verdict", "causes"),
    [
        (compared(100_000, 100_000), "agrees", []),
        (compared(100_000, 99_899), "agrees", []),  # 0.1 %, and a nano for the request
        (compared(100_000, 99_898), "differs", [("corrected", -102)]),
        (compared(100_000, 50_000, tokens=5), "differs", [("not_stated", -50_000)]),
        (compared(100_000, 150_000, tokens=15), "differs", [("unknown_requests", 50_000)]),
        (compared(100_000, 130_000, found("open", 0, 40_000)), "explained", [("open", 40_000)]),
        (compared(100_000, 150_000, found("open", 0, 40_000), tokens=12), "differs",
         [("open", 40_000), ("unknown_requests", 10_000)]),
        (compared(100_000, 40_000, found("estimated", 60_000, 90_000)), "explained", [("estimated", 30_000)]),
        (compared(100_000, 40_000, found("next_day", 60_000, 60_000)), "explained", [("next_day", 0)]),
        (compared(100_000, 160_000, found("day_before", 60_000, 60_000)), "explained", [("day_before", 60_000)]),
    ],
)  # fmt: skip
def test_causes_explain_a_difference_as_far_as_their_requests_go(told: Any, verdict: str, causes: Any) -> None:
    assert told == (verdict, causes)


def test_what_another_model_served_is_moved_to_it_exactly() -> None:
    ours = {"asked": Total(1, 10, 500), "served": Total(1, 10, 100)}
    theirs = Statement({"served": Total(2, 20, 600)}, {"served-2026": "served"})
    shifted = found("other_model", 500, 500, model="asked", served_model="served-2026")
    outcome = rules.outcome(ours, theirs, [shifted], 1000)
    assert [(one["model"], one["verdict"]) for one in outcome["models"]] == [
        ("asked", "explained"),
        ("served", "explained"),
    ]
    assert outcome["verdict"] == "explained"
    same_name = found("other_model", 100, 100, model="served", served_model="served-2026")
    assert rules.outcome({"served": Total(1, 10, 100)}, theirs, [same_name], 1000)["verdict"] == "differs"


def test_a_model_too_small_for_the_day_does_not_decide_it() -> None:
    ours = {"large": Total(1, 10, 10**9), "small": Total(1, 10, 100)}
    outcome = rules.outcome(ours, Statement(ours | {"small": Total(1, 10, 300)}, {}), [], 1000)
    assert (outcome["verdict"], outcome["models"][1]["verdict"]) == ("agrees", "differs")


def test_every_cause_has_a_meaning_and_is_shown_in_the_table() -> None:
    causes = [found(cause, 10, 20) for cause in rules.CAUSES]
    outcome = rules.outcome({"m": Total(1, 10, 10)}, Statement({"m": Total(1, 10, 10**9)}, {}), causes, 0)
    text = rules.as_text(DAY, outcome)
    assert all(f"    {cause}: " in text for cause in rules.CAUSES if cause != "other_model")
    assert text.splitlines()[-1].split() == ["all", "1", "1", "0.00000001", "1.00", "0.99999999", "differs"]


@pytest.mark.parametrize("day", [date(2026, 11, 30), date(2026, 12, 1), date(2026, 10, 30)])
def test_a_day_that_openrouter_does_not_state_is_refused(day: date) -> None:
    with pytest.raises(BadRequest):
        rules.check_day(day, datetime(2026, 11, 30, 23, tzinfo=UTC))
    rules.check_day(date(2026, 10, 31), datetime(2026, 11, 30, 23, tzinfo=UTC))
