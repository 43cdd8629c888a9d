"""Bytes that are too large for memory."""

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollgate.core.errors import ServerBusy
from tollgate.process.spools import BLOCK_BYTES, Spool, Spools

BODY = bytes(range(256)) * (BLOCK_BYTES // 100)


def files() -> int:
    """Temporary files of this process. They have no name, so only its descriptors show them."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += one.readlink().name.endswith("(deleted)")
    return found


@pytest.fixture(autouse=True)
def no_file_is_left() -> Iterator[None]:
    gc.collect()  # the files that earlier tests left are closed now, and not later
    before = files()
    yield
    assert files() == before


async def filled(spool: Spool, body: bytes, size: int) -> bytes:
    for place in range(0, len(body), size):
        await spool.add(body[place : place + size])
    return b"".join([piece async for piece in spool.pieces()])


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(BODY)])
@pytest.mark.parametrize("size", [7_001, BLOCK_BYTES + 1])
async def test_what_is_kept_comes_back_as_often_as_it_is_read(length: int, size: int) -> None:
    spools = Spools(100_000_000)
    spool, body = spools.open("a key"), BODY[:length]
    assert await filled(spool, body, size) == body
    assert b"".join([piece async for piece in spool.pieces()]) == body
    for ends in (10, 65_536):
        assert await spool.ends(ends) == (body[:ends], body[-ends:])
    assert spool.size == spools.bytes_kept == length
    spool.close()
    assert spools.bytes_kept == 0


async def test_only_a_block_is_in_memory() -> None:
    spools, before = Spools(100_000_000), files()
    spool = spools.open("a key")
    await filled(spool, BODY[: BLOCK_BYTES - 1], 7_001)
    assert files() == before
    await spool.add(BODY)
    assert files() == before + 1
    assert max([len(piece) async for piece in spool.pieces()]) == BLOCK_BYTES
    spool.close()


async def test_the_room_is_bounded_and_shared() -> None:
    spools = Spools(4_000)
    one, other, third = spools.open("one"), spools.open("other"), spools.open("one")
    await one.add(bytes(1_000))
    await other.add(bytes(1_000))
    for spool in (one, third):
        with pytest.raises(ServerBusy):
            await spool.add(b"x")
    one.close()
    await third.add(bytes(1_000))
    for spool in (other, third):
        spool.close()
    assert spools.bytes_kept == 0


async def test_a_folder_that_takes_no_file_is_no_fault_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    spools = Spools(100_000_000)
    spool = spools.open("a key")
    with pytest.raises(ServerBusy):
        await spool.add(BODY)
    spool.close()
    assert spools.bytes_kept == 0


async def test_one_that_is_closed_while_it_is_read_reads_no_other_file() -> None:
    spools = Spools(100_000_000)
    spool = spools.open("a key")
    await filled(spool, BODY, BLOCK_BYTES)
    reading = spool.pieces()
    await anext(reading)
    task = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    spool.close()
    assert await task in (b"", BODY[BLOCK_BYTES : 2 * BLOCK_BYTES])
    await reading.aclose()
