import asyncio

import pytest

from tollgate.upstreams.transports.timeouts import Patience


def after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_is_in_time_is_let_be() -> None:
    patience = Patience()
    for _ in range(3):
        with patience.until(after(1)):
            await asyncio.sleep(0.4)  # longer together than each may take
    await asyncio.sleep(1.1)
    patience.end()


async def test_what_is_late_is_ended_each_time() -> None:
    patience = Patience()
    for _ in range(2):
        with pytest.raises(TimeoutError), patience.until(after(0.01)):
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0


async def test_a_shorter_wait_may_follow_a_longer_one() -> None:
    patience = Patience()
    with patience.until(after(60)):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError), patience.until(after(0.01)):
            await asyncio.sleep(60)


async def test_who_is_cancelled_from_outside_is_cancelled() -> None:
    patience = Patience()

    async def wait() -> None:
        with patience.until(after(60)):
            await asyncio.sleep(60)

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    patience.end()


async def test_a_failure_in_time_stays_what_it_is() -> None:
    patience = Patience()
    with pytest.raises(KeyError), patience.until(after(60)):
        raise KeyError
    patience.end()
