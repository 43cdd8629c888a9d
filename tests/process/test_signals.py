"""A signal to stop that arrives while a command asks the database."""

import asyncio
import signal
import threading
from asyncio import selector_events
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tollgate.process import signals


class Stopped(BaseException):
    """What a handler raises, as SystemExit."""


@pytest.fixture
def raising() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in signals.STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("raising")
@pytest.mark.parametrize("number", signals.STOPS)
def test_a_signal_amid_a_library_s_c_code_is_neither_lost_nor_raised_there(
    number: signal.Signals, own_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport: Any = selector_events._SelectorSocketTransport
    write, went_on, closed = transport.write, [], []

    def interrupted(self: Any, data: bytes) -> None:
        """asyncpg calls it from C."""
        write(self, data)
        if b"select 'interrupted'" in bytes(data):
            signal.raise_signal(number)

    async def work() -> None:
        connection = await asyncpg.connect(own_database)
        try:
            await connection.execute("select 'interrupted'")
            went_on.append(True)
        finally:
            await connection.close()
            closed.append(True)

    monkeypatch.setattr(transport, "write", interrupted)
    with pytest.raises(Stopped):
        signals.run(work())
    assert (went_on, closed) == ([], [True])


@pytest.mark.usefixtures("raising")
def test_work_that_waits_is_woken_up() -> None:
    async def work() -> None:
        asyncio.get_running_loop().run_in_executor(None, signal.pthread_kill, main, signal.SIGTERM)
        await asyncio.sleep(3600)

    main = threading.main_thread().ident or 0
    with pytest.raises(Stopped):
        signals.run(work())
