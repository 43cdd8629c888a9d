"""What holds the event loop is noticed. The loop is held until the watcher has seen it, so no time is measured."""

import asyncio
import io
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tollgate.process import logs
from tollgate.process.clock import monotonic
from tollgate.process.loop_lag import LoopLag
from tollgate.process.machine import Machine


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("info", [], stream)
    yield stream
    logs.configure("info", [])


def blocked(written: io.StringIO) -> list[dict[str, Any]]:
    return [line for text in written.getvalue().splitlines() if (line := json.loads(text))["event"] == "loop_blocked"]


def is_named(line: Mapping[str, Any] | None) -> bool:
    return line is not None and any("hold_the_loop" in place for place in line.get("held_by", ()))


def hold_the_loop(lag: LoopLag) -> None:
    while not is_named(lag.seen):  # a busy machine may hold the loop before
        time.sleep(0.001)


async def test_what_holds_the_loop_is_counted_and_named_with_its_request(written: io.StringIO) -> None:
    lag = LoopLag(monotonic, limit_seconds=0.01, line_every_seconds=0)

    async def request() -> None:
        logs.note(request_id="req_1")
        hold_the_loop(lag)

    named: list[dict[str, Any]] = []
    with lag.watched():
        while not named:  # a busy machine may hold the loop afterwards too, and that is seen instead
            await asyncio.create_task(request())
            while lag.seen:  # noqa: ASYNC110  # the loop has to turn
                await asyncio.sleep(0)
            named = [line for line in blocked(written) if is_named(line)]
    line = named[0]
    if sys.version_info >= (3, 12):  # before, a task does not show its context
        assert line["request_id"] == "req_1"
    assert (line["level"], lag.times_blocked >= 1) == ("info", True)
    here = Machine({}, monotonic, kind="server", lag=lag)
    assert here.seen()["loop_delay_ms"] == here.taken()["loop_delay_ms"] > 10
    assert here.taken()["loop_delay_ms"] == 0, "a sample is of the time since the one before"


async def test_a_line_a_minute_tells_how_often_and_of_the_longest_time(written: io.StringIO) -> None:
    now = 0.0
    lag = LoopLag(lambda: now, limit_seconds=0.01)

    async def later(seconds: float) -> None:
        nonlocal now
        before, now = lag.times_blocked, now + seconds
        while lag.times_blocked == before:  # noqa: ASYNC110  # the loop has to turn
            await asyncio.sleep(0.001)

    with lag.watched():
        for seconds in (1, 2, 20, 3, 40):
            await later(seconds)
    first, second = blocked(written)
    assert (first["blocked_ms"], first["times"]) == (990, 1)
    assert second["blocked_ms"] == 39_990
    assert second["times"] >= 4


async def test_a_loop_that_only_waits_is_not_blocked(written: io.StringIO) -> None:
    now = 0.0
    lag = LoopLag(lambda: now, limit_seconds=0.001)
    with lag.watched():
        for _ in range(20):
            await asyncio.sleep(0.001)
    assert (blocked(written), lag.times_blocked) == ([], 0)
