"""What leaves of a stream, and when: nothing is lost, nothing overtakes, and what must wait does."""

import contextlib
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from tollgate.completions.answer_forms import DONE
from tollgate.completions.bytes_answer import BLOCK_BYTES, BytesAnswer
from tollgate.completions.charge_shown import UNKNOWN, Amounts, in_answer, with_charge
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.relay import Relay
from tollgate.core.sse import Event, Tally
from tollgate.upstreams.attempts.reply import Reply
from tollgate.upstreams.dialects.llamacpp import LlamaCpp
from upstreams.scripted import a_call

COMMENT = b": processing\n\n"
TEXT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
STOP = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3}}\n\n'
CHARGE = {"charge_nanos": 7}
CHARGED = b'"tollgate":{"charge_nanos":7}'
COSTLY = (
    b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3,"cost":1.05e-05,"cost_details":{"upstream":1}}}\n\n'
)
COSTLESS = b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3}}\n\n'
AMOUNTS = Amounts(11_550)
PRICED = b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3,"cost":0.00001155}}\n\n'
WANTED = pytest.mark.parametrize("wants_charge", [False, True])

streams = st.lists(st.sampled_from([COMMENT, TEXT, STOP, USAGE, DONE]), max_size=8)


def relay(*, wants_charge: bool = False, hides_cost: bool = False) -> Relay:
    def as_it_came(event: Event) -> bytes:
        return event.raw

    return Relay(Tally(), as_it_came, wants_charge=wants_charge, hides_cost=hides_cost)


@given(events=streams, wants_charge=st.booleans())
def test_every_byte_leaves_in_its_order(events: list[bytes], wants_charge: bool) -> None:
    made = relay(wants_charge=wants_charge)
    left = b"".join([made.take(event) for event in events]) + made.rest()
    added = DONE if STOP in events and DONE not in events else b""
    assert left + made.tail(UNKNOWN) == b"".join(events) + added
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
    usage, blank, rest = made.tail(UNKNOWN, CHARGE).partition(b"\n\n")
    assert CHARGED in usage
    assert blank + rest == b"\n\n" + (after if DONE in after else after + DONE)


def test_the_charge_goes_into_the_last_usage_alone() -> None:
    made = relay(wants_charge=True)
    assert made.take(USAGE + TEXT + USAGE) == USAGE + TEXT
    assert made.take(STOP + USAGE + DONE) == USAGE + STOP
    assert made.tail(UNKNOWN, CHARGE).count(CHARGED) == 1


@WANTED
@pytest.mark.parametrize("missing", [1, 2])
def test_what_follows_an_unfinished_event_is_an_event_of_its_own(wants_charge: bool, missing: int) -> None:
    made = relay(wants_charge=wants_charge)
    left = made.take(STOP + USAGE[:-missing]) + made.rest() + made.tail(UNKNOWN)
    assert left.removesuffix(DONE).rstrip() == (STOP + USAGE).rstrip()
    assert left.endswith(b"\n\n" + DONE)


def test_an_unfinished_done_stays_as_it_is() -> None:
    made = relay(wants_charge=False)
    assert made.take(STOP + DONE[:-2]) + made.rest() == STOP
    assert made.tail(UNKNOWN) == DONE[:-2]


def test_what_is_unfinished_after_done_stays_as_it_is() -> None:
    made = relay(wants_charge=False)
    assert made.take(STOP + DONE + COMMENT[:-1]) + made.rest() == STOP
    assert made.tail(UNKNOWN) == DONE + COMMENT[:-1]


def test_what_waits_for_the_next_event_leaves_at_the_end_if_none_comes() -> None:
    """llama.cpp's chunk that ends an answer, of a server that dies right after it."""
    end = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}\n\n'
    made = Relay(Tally(), LlamaCpp().shown(a_call(stream=True).ask), wants_charge=False, hides_cost=False)
    assert made.take(TEXT + end) + made.rest() == TEXT
    assert [made.tail(UNKNOWN) for _ in range(2)] == [end + DONE] * 2
    assert made.take(DONE) + made.tail(UNKNOWN) == end + DONE


def test_a_usage_that_left_already_gets_no_charge() -> None:
    made = relay(wants_charge=True)
    assert made.take(USAGE + STOP + DONE) == USAGE + STOP
    assert made.tail(UNKNOWN, CHARGE) == DONE


def test_a_usage_behind_done_stays_there_with_its_charge() -> None:
    made = relay(wants_charge=True)
    assert made.take(STOP + DONE + USAGE) == STOP
    tail = made.tail(UNKNOWN, CHARGE)
    assert tail.startswith(DONE)
    assert CHARGED in tail


def test_a_charge_is_written_into_the_usage_and_nowhere_else() -> None:
    chunk = b'data: {"id":"gen-1", "choices":[],"usage":{"cost":1e-9,"prompt_tokens":1}}\n\n'
    charge = {"charge_nanos": 1, "balance_nanos": 2, "request_id": "req_1"}
    marked = with_charge(chunk, charge)
    assert marked == (
        b'data: {"id":"gen-1", "choices":[],"usage":{"tollgate":'
        b'{"charge_nanos":1,"balance_nanos":2,"request_id":"req_1"},"cost":1e-9,"prompt_tokens":1}}\n\n'
    )


@given(events=st.lists(st.sampled_from([COMMENT, TEXT, STOP, COSTLY, DONE]), max_size=8), is_known=st.booleans())
def test_a_cost_never_leaves_and_all_else_does(events: list[bytes], is_known: bool) -> None:
    made = relay(hides_cost=True)
    left = b"".join([made.take(event) for event in events]) + made.rest()
    left += made.tail(AMOUNTS if is_known else UNKNOWN)
    assert left.replace(PRICED, COSTLESS).removesuffix(DONE) == b"".join(events).replace(COSTLY, COSTLESS).removesuffix(
        DONE
    )
    assert left.count(PRICED) <= is_known


@pytest.mark.parametrize("wants_charge", [False, True])
def test_the_last_usage_states_the_charge_instead_of_the_cost(wants_charge: bool) -> None:
    made = relay(wants_charge=wants_charge, hides_cost=True)
    assert made.take(TEXT + COSTLY.replace(b"\n", b"\r\n") + DONE) == TEXT
    priced = PRICED.replace(b"\n", b"\r\n")
    if wants_charge:
        priced = priced.replace(b'"usage":{', b'"usage":{' + CHARGED + b",")
    assert made.tail(AMOUNTS, CHARGE if wants_charge else None) == priced + DONE


def test_a_usage_without_a_cost_waits_for_nothing() -> None:
    assert relay(hides_cost=True).take(TEXT + USAGE) == TEXT + USAGE


@pytest.mark.parametrize(
    ("usage", "amounts", "shown"),
    [
        ('{"cost":1,"cost_details":{"a":1},"is_byok":true}', Amounts(1), '{"cost":0.000000001,"is_byok":true}'),
        ('{"a":1,"cost":2}', Amounts(3_000_000_000, 2_500_000_000), '{"upstream_cost":2.5,"a":1,"cost":3}'),
        ('{"a":1,"cost":null}', Amounts(0), '{"a":1,"cost":0}'),
        ('{"a":1,"estimated_Cost":2,"of":{"total_cost":[1]}}', Amounts(1_500), '{"cost":0.0000015,"a":1}'),
        ('{"cost":2}', UNKNOWN, "{}"),
        ('{"a":1}', Amounts(5, 4), '{"a":1}'),
        ("null", Amounts(5), "null"),
    ],
)
def test_a_usage_states_the_amounts_it_may_where_it_stated_a_cost(usage: str, amounts: Amounts, shown: str) -> None:
    answer = '{"x": "cost", "usage":%s }'
    assert in_answer((answer % usage).encode(), amounts).decode() == answer % shown


class Sound(Reply):
    """A reply of which much has come before it is read."""

    def __init__(self, *pieces: bytes) -> None:
        self.headers = {}
        self._left = iter(pieces)

    async def piece(self) -> bytes:
        return next(self._left, b"")

    def in_time(self) -> Any:
        return contextlib.nullcontext()


@pytest.mark.parametrize("pieces", [[bytes(range(256)) * 2000, b"end"], [b"a", b"b"], [bytes(BLOCK_BYTES + 1)]])
async def test_sound_is_written_in_small_blocks_however_much_has_come(pieces: list[bytes]) -> None:
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    of_call = {"limit_headers": {}, "own_headers": {}, "idempotency_key": None, "clock": monotonic, "failure": None}
    of_answer = {"tally": Tally(), "note_generation": lambda note: None, "first_token_ms": 1, "answer": None}
    answer = BytesAnswer(cast("PaidCall", SimpleNamespace(**of_call, **of_answer)), AsyncMock(), AsyncMock(), send)
    await answer.relay(Sound(*pieces))
    before = b"".join(sent)
    await answer.finish(None)
    assert (b"".join(sent), before) == (b"".join(pieces), b"".join(pieces)[:-1])
    assert max(map(len, sent)) <= BLOCK_BYTES
