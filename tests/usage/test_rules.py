"""The period of a query, and the cells of an export."""

from datetime import UTC, datetime, timedelta

import pytest

from tollgate.core.errors import BadRequest
from tollgate.usage import rules

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def test_a_span_goes_back_as_far_as_usual_when_nobody_says() -> None:
    assert rules.span(None, None, default=timedelta(days=1), now=NOW) == (NOW - timedelta(days=1), None)
    until = NOW - timedelta(days=9)
    assert rules.span(None, until, default=timedelta(days=1), now=NOW) == (until - timedelta(days=1), until)


@pytest.mark.parametrize("back", [timedelta(0), timedelta(seconds=1)])
def test_a_time_that_ends_before_it_begins_is_refused(back: timedelta) -> None:
    with pytest.raises(BadRequest) as refusal:
        rules.span(NOW, NOW - back, default=timedelta(days=1), now=NOW)
    assert refusal.value.param == "to"


@pytest.mark.parametrize(
    ("bucket", "most", "told"),
    [
        ("minute", timedelta(hours=6), "6 hours"),
        ("hour", timedelta(days=31), "31 days"),
        ("day", timedelta(days=731), "731 days"),
    ],
)
def test_a_series_is_bounded_and_says_by_how_much(bucket: rules.Bucket, most: timedelta, told: str) -> None:
    assert rules.series_span(bucket, NOW - most, NOW, now=NOW).since == NOW - most
    assert rules.series_span(bucket, NOW - most, None, now=NOW + timedelta(seconds=1)).until is None
    for since, until in ((NOW - most - timedelta(minutes=2), NOW), (NOW - most * 2, None)):
        with pytest.raises(BadRequest, match=told) as refusal:
            rules.series_span(bucket, since, until, now=NOW)
        assert refusal.value.param == "from"
        assert refusal.value.facts["most_hours"] == most // timedelta(hours=1)


def test_only_the_latency_of_people_is_bounded() -> None:
    long_ago = NOW - timedelta(days=400)
    assert rules.latency_span(long_ago, None, has_subject=False, now=NOW).since == long_ago
    with pytest.raises(BadRequest, match="31 days"):
        rules.latency_span(long_ago, None, has_subject=True, now=NOW)


def test_a_name_is_no_formula_and_a_negative_amount_stays_a_number() -> None:
    row = {"model": "=1+1", "charge_nanos": -1, "charge_credits": "-0.000000001"}
    assert rules.table_row(row, ["model", "charge_nanos", "charge_credits"]) == ["'=1+1", -1, "-0.000000001"]


def test_numbers_and_nothing_are_written_plainly() -> None:
    row = {"status": 200, "streamed": True, "error_code": None, "charge_nanos": 1, "charge_credits": "0.000000001"}
    cells = rules.table_row(row, ["status", "streamed", "error_code", "charge_nanos", "charge_credits"])
    assert cells == [200, "true", None, 1, "0.000000001"]
