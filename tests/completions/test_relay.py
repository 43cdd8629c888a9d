"""What leaves of a stream, and when: nothing is lost, nothing overtakes, and what must wait does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.completions.relay import DONE, Relay, with_charge
from tollgate.core.sse import Event, Tally

COMMENT = b": processing\n\n"
TEXT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
STOP = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3}}\n\n'
CHARGE = {"charge_nanos": 7}
CHARGED = b'"tollgate":{"charge_nanos":7}'
WANTED = pytest.mark.parametrize("wants_charge", [False, True])

streams = st.lists(st.sampled_from([COMMENT, TEXT, STOP, USAGE, DONE]), max_size=8)


def relay(*, wants_charge: bool) -> Relay:
    def as_it_came(event: Event) -> bytes:
        return event.raw

    return Relay(Tally(), as_it_came, wants_charge=wants_charge)


@given(events=streams, wants_charge=st.booleans())
def test_every_byte_leaves_in_its_order(events: list[bytes], wants_charge: bool) -> None:
    made = relay(wants_charge=wants_charge)
    left = b"".join([made.take(event) for event in events]) + made.rest()
    added = DONE if STOP in events and DONE not in events else b""
    assert left + made.tail(None) == b"".join(events) + added
    assert DONE not in left


@WANTED
def test_nothing_leaves_from_done_on(wants_charge: bool) -> None:
    made = relay(wants_charge=wants_charge)
    assert made.take(TEXT + STOP + DONE + COMMENT + TEXT + USAGE) == TEXT + STOP
    assert made.take(COMMENT) + made.rest() == b""


@pytest.mark.parametrize("after", [b"", COMMENT, DONE, COMMENT + DONE + COMMENT])
def test_the_charge_goes_into_the_usage_where_it_stands(after: bytes) -> None:
    made = relay(wants_charge=True)
    assert made.take(STOP + COMMENT + USAGE + after) == STOP + COMMENT
    usage, blank, rest = made.tail(CHARGE).partition(b"\n\n")
    assert CHARGED in usage
    assert blank + rest == b"\n\n" + (after if DONE in after else after + DONE)


def test_the_charge_goes_into_the_last_usage_alone() -> None:
    made = relay(wants_charge=True)
    assert made.take(USAGE + TEXT + USAGE) == USAGE + TEXT
    assert made.take(STOP + USAGE + DONE) == USAGE + STOP
    assert made.tail(CHARGE).count(CHARGED) == 1


@WANTED
@pytest.mark.parametrize("missing", [1, 2])
def test_what_follows_an_unfinished_event_is_an_event_of_its_own(wants_charge: bool, missing: int) -> None:
    made = relay(wants_charge=wants_charge)
    left = made.take(STOP + USAGE[:-missing]) + made.rest() + made.tail(None)
    assert left.removesuffix(DONE).rstrip() == (STOP + USAGE).rstrip()
    assert left.endswith(b"\n\n" + DONE)


def test_an_unfinished_done_stays_as_it_is() -> None:
    made = relay(wants_charge=False)
    assert made.take(STOP + DONE[:-2]) + made.rest() == STOP
    assert made.tail(None) == DONE[:-2]


def test_what_is_unfinished_after_done_stays_as_it_is() -> None:
    made = relay(wants_charge=False)
    assert made.take(STOP + DONE + COMMENT[:-1]) + made.rest() == STOP
    assert made.tail(None) == DONE + COMMENT[:-1]


def test_a_usage_that_left_already_gets_no_charge() -> None:
    made = relay(wants_charge=True)
    assert made.take(USAGE + STOP + DONE) == USAGE + STOP
    assert made.tail(CHARGE) == DONE


def test_a_usage_behind_done_stays_there_with_its_charge() -> None:
    made = relay(wants_charge=True)
    assert made.take(STOP + DONE + USAGE) == STOP
    tail = made.tail(CHARGE)
    assert tail.startswith(DONE)
    assert CHARGED in tail


def test_a_charge_is_written_into_the_usage_and_nowhere_else() -> None:
    chunk = b'{"id":"gen-1", "choices":[],"usage":{"cost":1e-9,"prompt_tokens":1}}'
    charge = {"charge_nanos": 1, "balance_nanos": 2, "request_id": "req_1"}
    marked = with_charge(chunk, charge)
    assert marked == (
        b'data: {"id":"gen-1", "choices":[],"usage":{"tollgate":'
        b'{"charge_nanos":1,"balance_nanos":2,"request_id":"req_1"},"cost":1e-9,"prompt_tokens":1}}\n\n'
    )
