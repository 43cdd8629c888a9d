import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.models import Dialect
from tollgate.upstreams import rules
from upstreams.scripted import a_route

PROPER = {"content-type": "application/json"}


@pytest.mark.parametrize("dialect", ["openrouter", "vllm", "openai"])
@given(status=st.integers(100, 599))
def test_every_status_has_one_consequence(dialect: Dialect, status: int) -> None:
    step = rules.step_after(status, dialect)
    assert (step == "reply") == (200 <= status < 300 and status not in (204, 205))
    if step == "refuse":
        assert 400 <= status < 500
    if step == "again":
        assert status in (429, 503)
    if 400 <= status < 500 or step == "reply":
        assert not rules.is_fault(status)
    if status < 400 and step != "reply":
        assert step == ("stop" if dialect == "openrouter" else "elsewhere")


def test_sound_is_announced_as_sound() -> None:
    for kind in ("audio/mpeg", "Audio/PCM; rate=24000", "application/octet-stream"):
        assert rules.is_readable({"content-type": kind}, stream=True, as_bytes=True)
    for kind in ("application/json", "text/event-stream", "text/html", ""):
        assert not rules.is_readable({"content-type": kind}, stream=True, as_bytes=True)
    assert not rules.is_readable({"content-type": "audio/mpeg", "content-encoding": "gzip"}, stream=True, as_bytes=True)


def test_whose_trouble_a_403_is() -> None:
    assert rules.step_after(403, "openrouter") == "refuse"
    assert rules.step_after(403, "vllm") == "elsewhere"


@pytest.mark.parametrize(
    ("headers", "stream", "readable"),
    [
        (PROPER, False, True),
        ({"content-type": "Application/JSON; charset=utf-8"}, True, True),
        ({"content-type": "application/problem+json"}, False, True),
        ({"content-type": "text/event-stream"}, True, True),
        ({"content-type": "text/event-stream"}, False, False),
        ({"content-type": "text/html"}, True, False),
        ({}, False, False),
        ({**PROPER, "content-encoding": "gzip"}, False, False),
        ({**PROPER, "content-encoding": "identity"}, False, True),
        ({**PROPER, "content-length": "0"}, False, False),
    ],
)
def test_what_a_head_must_announce(headers: dict[str, str], stream: bool, readable: bool) -> None:
    assert rules.is_readable(headers, stream=stream) is readable


NOW = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2", 2),
        (" 2.5 ", 2.5),
        ("999999", 86_400),
        ("Sun, 06 Nov 1994 08:49:40 GMT", 3),
        ("Sun, 06 Nov 1994 08:49:30 GMT", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("1e9", None),
        ("9" * 5000, None),
    ],
)
def test_when_to_come_back(value: str, seconds: float | None) -> None:
    assert rules.retry_after({"retry-after": value, "date": NOW}) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_asked_is_a_sane_time_or_none(value: str, date: str) -> None:
    seconds = rules.retry_after({"retry-after": value, "date": date})
    assert seconds is None or 0 <= seconds <= 86_400


def test_a_date_without_a_date_to_count_from_says_nothing() -> None:
    assert rules.retry_after({"retry-after": NOW}) is None


@given(st.integers(0, 5), st.none() | st.floats(0, 100), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_shorter_than_asked(turn: int, asked: float | None, chance: float) -> None:
    pause = rules.pause(turn, asked, chance)
    assert pause >= (asked or 0)
    assert asked is not None or 0.125 * 2**turn <= pause <= 0.375 * 2**turn


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 5)), max_size=6),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=8),
)
def test_a_call_has_all_routes_once_and_keeps_the_runs(given: list[tuple[int, int]], chances: list[float]) -> None:
    routes = [
        a_route("http://x", f"u{place}", priority=priority, weight=weight)
        for place, (priority, weight) in enumerate(given)
    ]
    numbers = iter(chances)
    drawn = rules.ordered(routes, lambda: next(numbers))
    assert sorted(drawn, key=routes.index) == routes
    assert [route.priority for route in drawn] == [route.priority for route in routes]


def test_weights_are_chances() -> None:
    routes = [a_route("http://x", "light", weight=1), a_route("http://x", "heavy", weight=3)]
    firsts = Counter(rules.ordered(routes, lambda n=n: n / 400)[0].upstream.id for n in range(400))
    assert firsts == {"light": 100, "heavy": 300}


@pytest.mark.parametrize("value", ["", "gen 1", "gen\x7f", "g" * 257, "gén"])
def test_an_id_that_could_not_be_kept_is_none(value: str) -> None:
    assert rules.generation_id({"x-generation-id": value}, "openrouter") is None


def test_only_openrouters_ids_can_be_looked_up() -> None:
    assert rules.generation_id({"x-generation-id": "gen-1"}, "openrouter") == "gen-1"
    assert rules.generation_id({"x-generation-id": "gen-1"}, "vllm") is None


def test_a_limit_is_finite() -> None:
    assert math.isfinite(rules.pause(3, rules.retry_after({"retry-after": "999999"}), 0.5))
