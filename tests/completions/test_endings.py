"""What a call came to, whatever its upstream said."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tollgate.completions import endings, late_endings
from tollgate.completions.endings import Ending
from tollgate.completions.own_keys import NO_KEYS, OrgKeys
from tollgate.completions.rules import Grant
from tollgate.core import strict_json
from tollgate.core.errors import (
    ServerBusy,
    TooManyInFlight,
    UpstreamBusy,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tollgate.core.models import OPENROUTER, SANDBOX, Route, Upstream
from tollgate.core.prices import Price, read
from tollgate.core.sse import Tally
from tollgate.core.typed_events import MessagesTally
from tollgate.core.unit_tallies import UnitsTally
from tollgate.core.units import Units
from tollgate.credits.rules import BEYOND_BELIEF

PRICE = read({"prompt": "0.000001", "completion": "0.000002"})
HOLD = 1_000_000

OPEN_ROUTER = Upstream(OPENROUTER, "openrouter", "https://openrouter.test/api/v1")
SANDBOXED = Upstream(SANDBOX, "openrouter", "http://sandbox.test/api/v1")
OURS = Upstream("ups_ours", "vllm", "http://gpu.test/v1")

THERE = Route(OPEN_ROUTER, "a/model", PRICE)
HERE = Route(OURS, "ours", PRICE)

counts = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=5) | st.just(Decimal("1.5"))
amounts = counts | st.decimals(-10, 10**7, allow_nan=False, places=12).map(lambda value: Decimal(f"{value:f}"))
usages = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "cost": amounts,
        "is_byok": st.booleans() | st.none(),
        "cost_details": st.none() | st.fixed_dictionaries({"upstream_inference_cost": amounts}),
        "\x00\ud800": st.text(),
    },
)
words = st.none() | st.sampled_from(["gen-1", "stop", "error", "a/model", "with\x00nul", "", "x" * 300]) | st.text()
failures = st.none() | words | st.fixed_dictionaries({"message": words, "code": counts | words})
routes = st.sampled_from([THERE, HERE, Route(SANDBOXED, "a/model", PRICE)])
"""An upstream's own, in every combination that it may think of."""


def written(value: Any) -> bytes:
    """As an upstream would write it: halves of pairs escaped, decimals in full."""
    marked = json.dumps(value, default=lambda number: f"<exactly {number}>")
    return re.sub(r'"<exactly ([^" ]*)>"', r"\1", marked).encode()


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    tally = Tally(choices=draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(0, 4))):
        chunk = {
            "id": draw(words),
            "model": draw(words),
            "usage": draw(usages),
            "error": draw(failures),
            "choices": [{"index": draw(counts), "finish_reason": draw(words), "error": draw(failures)}],
        }
        tally.see(written(chunk))
    tally.done = draw(st.booleans())
    return tally


@st.composite
def drawn(draw: st.DrawFn) -> Ending:
    return ended(draw(tallies()), draw(routes), draw(st.integers(0, 10**12)), draw(st.integers(0, 10**7)))


def ended(
    tally: Tally, route: Route = THERE, hold_nanos: int = HOLD, markup_ppm: int = 0, events: int = 3, **more: Any
) -> Ending:
    tally.events = events
    granted = Grant("org_1", (), PRICE, hold_nanos, markup_ppm, prompt_tokens=10, context_tokens=100_000, **more)
    return endings.of_answer(tally, route, granted, tally.generation_id)


def said(usage: Any, **more: Any) -> Tally:
    tally = Tally()
    tally.take_plain(strict_json.from_upstream(written({"id": "gen-1", "model": "a/model", "usage": usage, **more})))
    return tally


@given(tallies(), routes, st.integers(0, 10**12), st.integers(0, 10**7), st.integers(0, 10**6))
def test_a_charge_is_never_negative_never_beyond_belief_and_within_the_hold_when_it_is_a_guess(
    tally: Tally, route: Route, hold_nanos: int, markup_ppm: int, events: int
) -> None:
    ending = ended(tally, route, hold_nanos, markup_ppm, events)
    assert ending.outcome in ("settled", "released", "unsettled")
    if ending.outcome == "settled":
        charge, cost = ending.charge_nanos, ending.cost_nanos
        assert type(charge) is int
        assert 0 <= charge <= BEYOND_BELIEF * hold_nanos
        assert 0 <= cost <= charge or cost == charge == 0
        if ending.estimated or ending.quarantined:
            assert charge <= hold_nanos


@given(tallies(), st.integers(0, 10**12))
def test_what_openrouter_did_not_count_is_never_settled_by_guessing(tally: Tally, hold_nanos: int) -> None:
    ending = ended(tally, THERE, hold_nanos)
    assert not ending.estimated
    if not tally.usage:
        assert ending.outcome != "settled"


@given(tallies(), routes)
def test_whatever_is_kept_can_be_stored(tally: Tally, route: Route) -> None:
    ending = ended(tally, route)
    stored = json.dumps(ending.item("req_1"), ensure_ascii=False, allow_nan=False)
    assert "\x00" not in stored
    assert "\\u0000" not in stored
    stored.encode()


values = st.recursive(
    amounts | st.text(max_size=9), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=80), values, max_size=80))
def test_the_usage_that_is_kept_is_numbers_under_plain_names(usage: dict[str, Any]) -> None:
    kept = endings.kept_usage(strict_json.from_upstream(written(usage)))
    assert kept is not None
    assert len(kept) <= endings.MOST_USAGE_FIELDS
    assert all(name.isprintable() and len(name) <= 64 for name in kept)
    json.dumps(kept, allow_nan=False).encode()


class Books:
    """The database's own settlement, over one connection."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))

    def run(self, statement: str, *arguments: object) -> Any:
        return self._loop.run_until_complete(self._connection.fetchval(statement, *arguments))

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def hold(self, ids: Sequence[str]) -> None:
        self.run(
            "with held as ("
            " insert into tollgate.requests (id, org_id, key_id, user_id, state, endpoint, model, hold_nanos,"
            "   markup_ppm, output_bound, reserved_tokens, expires_at)"
            " select id, 'org_0fa11rules00', 'key_x', 'usr_x', 'held', 'chat', 'a/model', 0, 0, 1, 1, now()"
            " from unnest($1::text[]) id returning id)"
            " insert into tollgate.holds (request_id, next_sweep_at) select id, now() from held",
            list(ids),
        )


@pytest.fixture
def books(own_database: str) -> Iterator[Books]:
    made = Books(own_database)
    made.run("insert into tollgate.orgs (id, name, plan_id) values ('org_0fa11rules00', 'Org', 'free')")
    yield made
    made.close()


numbers = iter(range(10**9))


def test_the_database_takes_every_ending(books: Books) -> None:
    @settings(max_examples=10, derandomize=True)
    @given(st.lists(drawn(), min_size=20, max_size=40))
    def settle(batch: list[Ending]) -> None:
        items = [ending.item(f"req_{next(numbers):08d}") for ending in batch]
        books.hold([item["id"] for item in items])
        answers = json.loads(books.run("select public.tollgate_settle($1::jsonb)", json.dumps(items)))
        assert {key: answer["settled"]["state"] for key, answer in answers.items()} == {
            item["id"]: item["outcome"] for item in items
        }

    settle()


GOLDEN = [
    pytest.param(
        {
            "prompt_tokens": 194, "completion_tokens": 2, "total_tokens": 196, "cost": Decimal("0.95"),
            "is_byok": False,
            "cost_details": {
                "upstream_inference_cost": Decimal("0.95"), "upstream_inference_prompt_cost": Decimal("0.94"),
                "upstream_inference_completions_cost": Decimal("0.01"),
            },
            "prompt_tokens_details": {"cached_tokens": 150, "cache_write_tokens": 44, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1, "image_tokens": 0},
            "server_tool_use": {"web_search_requests": 3},
        },
        950_000_000, (194, 2), id="chat: the cost is all of it, caches and reasoning included",
    ),
    pytest.param(
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": Decimal("0.0000000123")},
        13, (10, 5), id="completions: a fraction of a nano is rounded up once",
    ),
    pytest.param(
        {"prompt_tokens": 8, "total_tokens": 8, "cost": Decimal("0.00000016"), "is_byok": False},
        160, (8, 0), id="embeddings: nothing comes out, and total_tokens is no third count",
    ),
    pytest.param(
        {
            "prompt_tokens": 10, "completion_tokens": 5, "cost": Decimal("0.05"), "is_byok": True,
            "cost_details": {"upstream_inference_cost": Decimal("1.00")},
        },
        1_050_000_000, (10, 5), id="with a key of one's own the fee and the vendor's bill",
    ),
    pytest.param(
        {"prompt_tokens": 10, "completion_tokens": 5, "cost": Decimal("1e-9")},
        1, (10, 5), id="as an exponent",
    ),
    pytest.param(
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cost": 0},
        0, (0, 0), id="from OpenRouter's cache: an explicit nothing",
    ),
    pytest.param(
        {"prompt_tokens": 1000, "completion_tokens": 1, "cost": None},
        1_002_000, (1000, 1), id="a cost of null is none: tokens times price",
    ),
    pytest.param(
        {"prompt_tokens": 1000, "completion_tokens": 1, "cost": Decimal("0.1"), "a_field_of_tomorrow": {"x": 1}},
        100_000_000, (1000, 1), id="what is not known is no matter",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "charge", "tokens"), GOLDEN)
def test_a_usage_as_openrouter_writes_it_is_charged_once(usage: Any, charge: int, tokens: tuple[int, int]) -> None:
    ending = ended(said(usage), hold_nanos=10**10)
    assert (ending.outcome, ending.charge_nanos, ending.cost_nanos) == ("settled", charge, charge)
    assert (ending.prompt_tokens, ending.completion_tokens) == tokens
    assert not ending.estimated
    assert not ending.quarantined


@pytest.mark.parametrize("field", ["cached_tokens", "cache_write_tokens", "reasoning_tokens", "image_tokens"])
def test_parts_of_the_tokens_are_not_counted_again(field: str) -> None:
    """Our own servers name no cost. What they cached, thought or saw is within what they counted."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    details = {f"{side}_tokens_details": {field: 90} for side in ("prompt", "completion")}
    assert ended(said(usage | details), HERE) == ended(said(usage), HERE)._replace(usage=usage | details)


def test_a_message_of_openrouter_without_its_cost_is_looked_up_since_cached_tokens_have_other_prices() -> None:
    event = {"type": "message_delta", "usage": {"input_tokens": 5, "cache_read_input_tokens": 900, "output_tokens": 7}}
    tally = MessagesTally()
    tally.see(json.dumps(event).encode())
    tally.see(b'{"type":"message_stop"}')
    assert ended(tally).outcome == "unsettled"
    assert ended(tally, HERE).charge_nanos == 905 * 1000 + 7 * 2000


def test_usage_with_neither_tokens_nor_cost_is_no_usage_where_somebody_knows_better() -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert ended(said(nothing), THERE).outcome == "unsettled"
    assert ended(said(nothing), HERE).charge_nanos == 0


@pytest.mark.parametrize("cost", [0, 5, Decimal("0.000000001")])
def test_a_server_of_ours_does_not_name_its_own_price(cost: Any) -> None:
    ending = ended(said({"prompt_tokens": 100, "completion_tokens": 10, "cost": cost, "is_byok": True}), HERE)
    assert ending.charge_nanos == 100 * 1000 + 10 * 2000


NONSENSE = ({"prompt_tokens": -1}, {"cost": Decimal(-1)}, {"prompt_tokens": 100_001}, {"completion_tokens": "7"})


@pytest.mark.parametrize("usage", NONSENSE)
def test_nonsense_is_charged_at_the_hold_where_nobody_can_be_asked(usage: dict[str, Any]) -> None:
    ending = ended(said(usage, id=None))
    assert (ending.charge_nanos, ending.quarantined) == (HOLD, True)


@pytest.mark.parametrize("usage", NONSENSE)
def test_nonsense_of_openrouter_is_final_only_after_its_record_was_asked(usage: dict[str, Any]) -> None:
    ending = ended(said(usage))
    assert ending.outcome == "unsettled"
    assert not ending.quarantined


def test_a_cost_of_more_than_ten_holds_waits_for_the_record_that_confirms_it() -> None:
    ten = {"prompt_tokens": 1, "completion_tokens": 1, "cost": Decimal("0.01")}
    assert ended(said(ten)).charge_nanos == 10 * HOLD
    more = ended(said(ten | {"cost": Decimal("0.010000001")}))
    assert more.outcome == "unsettled"
    assert more.usage["cost"] == "0.010000001"


@pytest.mark.parametrize("hold_nanos", [0, 1000])
@pytest.mark.parametrize("cost", ["0.02", "7", "4000"])
def test_a_cost_that_answer_and_record_state_is_charged_in_full(hold_nanos: int, cost: str) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": Decimal(cost)}
    waiting = ended(said(usage), hold_nanos=hold_nanos)
    row = ROW | {"hold_nanos": hold_nanos, "usage": waiting.usage, "markup_ppm": 0}
    found = late_endings.found(row, {"total_cost": Decimal(cost), "tokens_prompt": 1, "tokens_completion": 1})
    assert found.charge_nanos == int(Decimal(cost) * 10**9)
    assert not found.quarantined


def test_an_answer_that_says_it_failed_is_remembered_as_failed() -> None:
    error = {"code": 502, "message": "Provider disconnected"}
    usage = {"prompt_tokens": 1, "completion_tokens": 0, "cost": 0}
    assert ended(said(usage, error=error)).error_code == "failed_upstream"
    assert ended(said(usage, choices=[{"finish_reason": "error"}])).error_code == "failed_upstream"
    assert ended(said(usage, choices=[{"finish_reason": "length"}])).error_code is None


def test_a_server_that_only_says_that_it_failed_is_not_paid() -> None:
    tally = Tally()
    tally.see(b'{"error":{"message":"EngineCore encountered an issue.","code":500}}')
    assert ended(tally, HERE, events=1).outcome == "released"


def test_a_servers_failure_is_not_counted_among_what_it_said() -> None:
    tally = Tally()
    cut = ended(tally, HERE, events=3)
    tally.see(b'{"error":{"message":"EngineCore encountered an issue.","code":500}}')
    failed = ended(tally, HERE, events=4)
    assert cut.estimated
    assert failed.charge_nanos == cut.charge_nanos


@pytest.mark.parametrize("keys", [NO_KEYS, OrgKeys({OURS.id: SecretStr("sk-theirs")}, 1)], ids=["ours", "the org's"])
def test_an_estimate_has_no_more_output_than_was_held_for(keys: OrgKeys) -> None:
    """Texts are counted high, and a server cannot have said more than it was allowed to."""
    tally = Tally(counts=True)
    tally.see(written({"choices": [{"delta": {"content": "東京" * 40}}]}))
    assert tally.said_tokens > 64
    assert ended(tally, HERE, output_tokens=64, org_keys=keys).completion_tokens == 64
    assert ended(tally, HERE, output_tokens=1_000, org_keys=keys).completion_tokens == tally.said_tokens


CUT_IN_TIME = UpstreamCut(upstream=OPENROUTER, generation_id="gen-1")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CUT_IN_TIME, "unsettled"),
        (UpstreamTimeout(phase="total", upstream=OPENROUTER), "unsettled"),
        (UpstreamTimeout(phase="first_byte", upstream=OPENROUTER), "unsettled"),
        (UpstreamGarbled(upstream=OPENROUTER, generation_id="gen-1"), "unsettled"),
        (UpstreamGarbled(upstream=OPENROUTER), "released"),
        (UpstreamTimeout(phase="connect", upstream=OPENROUTER), "released"),
        (UpstreamUnavailable(), "released"),
        (UpstreamBusy(), "released"),
        (ServerBusy(), "released"),
        (TooManyInFlight(limit=1, in_flight=1, of="server share"), "released"),
        (UpstreamCut(upstream="ups_ours"), "released"),
        (UpstreamTimeout(phase="total", upstream="ups_ours"), "released"),
        (UpstreamGarbled(upstream=SANDBOX, generation_id="gen-1"), "released"),
        (UpstreamGarbled(upstream="ups_ours", generation_id="gen-1"), "released"),
    ],
)
def test_what_openrouter_may_have_begun_is_looked_up_and_all_else_is_free(
    error: UpstreamError | TooManyInFlight, outcome: str
) -> None:
    ending = endings.failed(error, [HERE, THERE])
    assert ending.outcome == outcome
    assert (ending.status, ending.error_code) == (error.status, error.code)


def test_a_failure_leaves_the_name_by_which_its_cost_can_be_asked_for() -> None:
    ending = endings.failed(CUT_IN_TIME, [THERE])
    assert (ending.upstream, ending.generation_id) == (OPENROUTER, "gen-1")


def test_only_openrouter_may_want_money_for_what_nobody_saw() -> None:
    assert endings.unanswered([HERE, THERE]).outcome == "unsettled"
    assert endings.unanswered([HERE]).outcome == "released"
    assert endings.broken_off(THERE, "gen-1").outcome == "unsettled"
    assert endings.broken_off(HERE, None).outcome == "released"


ROW = {"hold_nanos": 1000, "markup_ppm": 100_000, "price": {"fixed_nanos": "100.5"}, "sweeps": 1}


@given(st.integers(0, 10**6), st.integers(0, 10**7), st.decimals(0, 10**6, allow_nan=False, places=6))
def test_what_nobody_knows_is_estimated_at_the_prompt_and_within_the_hold(
    hold: int, markup: int, fixed: Decimal
) -> None:
    row = {"hold_nanos": hold, "markup_ppm": markup, "price": {"fixed_nanos": str(fixed)}}
    ending = late_endings.without_a_trace(row)
    assert ending.estimated
    assert 0 <= ending.charge_nanos <= hold
    assert ending.charge_nanos == hold or ending.charge_nanos >= fixed


def test_a_generation_is_charged_what_openrouter_keeps_of_it() -> None:
    record = {"total_cost": Decimal("0.0000005"), "native_tokens_prompt": 7, "native_tokens_completion": 2}
    ending = late_endings.found(ROW, record)
    assert (ending.cost_nanos, ending.charge_nanos) == (500, 550)
    assert (ending.prompt_tokens, ending.completion_tokens) == (7, 2)
    vendor = record | {"is_byok": True, "upstream_inference_cost": Decimal("0.000001")}
    assert late_endings.found(ROW, vendor).cost_nanos == 1500
    for nonsense in ({"total_cost": None}, {"total_cost": Decimal(-1)}, {"total_cost": 1}, {"total_cost": "x"}):
        assert late_endings.found(ROW, record | nonsense).quarantined, nonsense


def test_a_generation_is_looked_for_less_and_less_often_and_given_up_after_more_than_an_hour() -> None:
    waited = 0
    for sweeps in range(1, late_endings.MOST_LOOKS):
        again = late_endings.not_found(ROW | {"sweeps": sweeps})
        assert again.outcome == "unsettled"
        waited += again.sweep_in_seconds
    assert waited > 3600
    assert late_endings.not_found(ROW | {"sweeps": late_endings.MOST_LOOKS}) == endings.RELEASED._replace(
        basis="no_record"
    )
    assert late_endings.asked_again(ROW | {"sweeps": 10**6}).sweep_in_seconds == late_endings.LONGEST_BETWEEN_LOOKS


@pytest.mark.parametrize("usage", [{"prompt_tokens": 5, "cost": 1}, {"prompt_tokens": -5}, None])
def test_a_test_keys_call_is_free_whatever_was_used(usage: Any) -> None:
    ending = ended(said(usage), Route(SANDBOXED, "a/model", Price()))
    assert (ending.outcome, ending.charge_nanos, ending.cost_nanos) == ("settled", 0, 0)


@pytest.mark.parametrize(
    ("route", "events", "done", "failure", "outcome", "charge"),
    [
        (HERE, 1, True, None, "settled", 4 * 1000),
        (HERE, 1, False, None, "settled", 4 * 1000),
        (HERE, 0, False, None, "released", None),
        (HERE, 1, False, {"message": "no"}, "released", None),
        (THERE, 1, True, None, "settled", HOLD),
        (THERE, 1, False, None, "unsettled", None),
    ],
    ids=["whole", "broken off", "nothing came", "failed", "nobody states its cost", "a part of it"],
)
def test_speech_is_charged_by_its_text_once_something_came(
    route: Route, events: int, done: bool, failure: Any, outcome: str, charge: int | None
) -> None:
    tally = UnitsTally(events=events, done=done)
    if failure:
        tally.take_plain({"error": failure})
    granted = Grant("org_1", (), PRICE, HOLD, 0, prompt_tokens=0, context_tokens=None, units=Units(characters=4))
    ending = endings.of_answer(tally, route, granted, None)
    assert (ending.outcome, ending.charge_nanos) == (outcome, charge)
    assert ending.usage == (None if outcome == "released" else {"characters": 4})


def test_a_prefill_of_images_is_charged_its_prompt_and_no_image() -> None:
    priced = read({"prompt": "0.000001", "completion": "0", "output_image": "0.01"})
    granted = Grant("org_1", (), priced, HOLD * 100, 0, 10, None, units=Units(images=2))
    ending = endings.prefill(HERE._replace(price=priced), granted)
    assert (ending.charge_nanos, ending.basis) == (10_000, "abandoned_prefill")
