import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import DatabaseUnavailable, InternalError, InvalidApiKey, NotFound, TollgateError
from tollgate.database.failures import of_state, unavailable
from tollgate.process import logs


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.begin()
    logs.configure("info", [], stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_refusal_of_a_function_is_the_error_of_its_code_with_its_facts(written: io.StringIO) -> None:
    error = of_state("PT404", "not_found", '{"org_id": "org_1", "param": "org_id"}')
    assert type(error) is NotFound
    assert (error.facts, error.param) == ({"org_id": "org_1"}, "org_id")
    assert lines(written) == []


@pytest.mark.parametrize("detail", [None, "", "{}"])
def test_a_refusal_needs_no_facts(detail: str | None) -> None:
    error = of_state("PT401", "invalid_api_key", detail)
    assert type(error) is InvalidApiKey
    assert error.facts == {}


def test_a_refusal_that_nobody_drew_is_an_internal_error() -> None:
    assert type(of_state("PT418", "teapot", None)) is InternalError


@pytest.mark.parametrize("detail", ["not json", "[1]"])
def test_a_refusal_whose_detail_is_not_ours_is_still_that_refusal(detail: str) -> None:
    assert type(of_state("PT404", "not_found", detail)) is NotFound


@pytest.mark.parametrize("state", ["22P02", "23505", "42601", "42703", "P0001", "XX000", "21000", "0A000"])
def test_a_state_that_blames_the_call_is_a_defect_of_ours(state: str, written: io.StringIO) -> None:
    assert type(of_state(state, "what Postgres said", None)) is InternalError
    (line,) = lines(written)
    assert (line["source"], line["level"], line["event"]) == ("database", "error", "database_fault")
    assert (line["state"], line["fault"]) == (state, "what Postgres said")


@pytest.mark.parametrize(
    "state",
    [
        *["08006", "28P01", "3D000", "40001", "40P01", "42501", "53300", "55P03", "57014", "57P01", "57P03", "58030"],
        *["PGRST000", "PGRST003", "502", "503", ""],
    ],
)
def test_any_other_state_is_an_outage_and_its_cause_is_logged(state: str, written: io.StringIO) -> None:
    assert type(of_state(state, "what Postgres said", None)) is DatabaseUnavailable
    (line,) = lines(written)
    assert (line["source"], line["level"], line["event"]) == ("database", "error", "database_unavailable")
    assert (line["state"], line["cause"]) == (state, "what Postgres said")


@pytest.mark.parametrize("state", ["42883", "3F000", "PGRST202"])
def test_a_function_that_is_not_there_tells_the_operator_to_migrate(state: str, written: io.StringIO) -> None:
    assert type(of_state(state, "function does not exist", None)) is DatabaseUnavailable
    (line,) = lines(written)
    assert "make migrate" in line["cause"]


@pytest.mark.parametrize("state", ["XX000", "57014", "PGRST202", ""])
def test_what_the_database_said_does_not_reach_the_client(state: str, written: io.StringIO) -> None:
    error = of_state(state, "relation secret_table", "row (hunter2)")
    assert "secret_table" not in json.dumps(error.body())
    assert "hunter2" not in json.dumps(error.body())
    assert "secret_table" in written.getvalue()


def test_a_broken_wire_is_an_outage_with_its_cause_in_the_log(written: io.StringIO) -> None:
    assert type(unavailable("ConnectionResetError", "peer went away")) is DatabaseUnavailable
    (line,) = lines(written)
    assert (line["state"], line["cause"]) == ("ConnectionResetError", "peer went away")


@given(
    state=st.text().filter(lambda state: not state.startswith("PT")), message=st.text(), detail=st.none() | st.text()
)
def test_whatever_else_comes_back_has_an_error_of_the_tree(state: str, message: str, detail: str | None) -> None:
    logs.configure("info", [], io.StringIO())
    assert isinstance(of_state(state, message, detail), TollgateError)
