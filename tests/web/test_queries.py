from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from tollgate.core.errors import BadRequest
from tollgate.web.schemas import Period


def test_a_plain_date_is_its_midnight_in_utc() -> None:
    november = Period.model_validate({"from": "2026-11-01", "to": "2026-12-01"})
    assert november.filters() == {"from": "2026-11-01T00:00:00.000Z", "to": "2026-12-01T00:00:00.000Z"}


def test_a_time_may_have_any_offset() -> None:
    assert Period.model_validate({"from": "2026-11-01T00:30:00+02:00"}).filters() == {
        "from": "2026-10-31T22:30:00.000Z"
    }


def test_hours_are_the_last_ones() -> None:
    before = datetime.now(UTC)
    since = Period(hours=24).since
    assert since is not None
    assert before <= since + timedelta(hours=24) <= datetime.now(UTC)


@pytest.mark.parametrize("also", [{"from": "2026-11-01"}, {"to": "2026-11-01"}])
def test_hours_do_not_go_with_a_start_or_an_end(also: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="Send either hours, or from and to"):
        Period.model_validate({"hours": 24, **also})


def test_a_period_ends_after_it_began() -> None:
    with pytest.raises(BadRequest, match="must be later than"):
        Period.model_validate({"from": "2026-11-02", "to": "2026-11-01"})


@pytest.mark.parametrize("moment", ["yesterday", "2026-02-30", "2026-11-01T00:00:00", "1899-12-31", "9000-01-01"])
def test_other_times_are_refused(moment: str) -> None:
    with pytest.raises(ValidationError):
        Period.model_validate({"from": moment})


@pytest.mark.parametrize("number", ["0.5", 0.5, 1793491200, "1793491200"])
def test_a_time_is_written_out(number: object) -> None:
    with pytest.raises(ValidationError, match="must be a time such as 2026-11-01T09:30:00Z"):
        Period.model_validate({"to": number})
    assert Period.model_validate({"to": "2026-11-01t09:30:00z"}).until == datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
