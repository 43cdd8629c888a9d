"""Redis as a level of the cache: whatever it does, the caller gets an answer or none."""

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis as Client

from servers.redis import Redis, redis
from tollgate.cache import level as levels
from tollgate.cache.level import REST_SECONDS, Kept, RedisLevel

KEPT = Kept("req_1", {"kept": True, "status": 200, "content_type": "application/json", "body": "e30="})


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may take as long as a busy machine needs."""
    monkeypatch.setattr(levels, "ANSWER_SECONDS", 60)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis(tmp_path_factory.mktemp("redis")) as made:
        yield made


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_stored_is_found_by_its_org_alone_until_redis_has_forgotten_it(server: Redis) -> None:
    clock = Clock()
    level = RedisLevel(server.url, clock)
    assert await level.put("org_a", "k", KEPT, 60)
    assert await level.get("org_a", "k") == KEPT
    assert await level.get("org_b", "k") is None
    server.kill()
    assert await level.get("org_a", "k") is None
    assert level.state == "resting"
    server.start()
    assert not await level.put("org_a", "k", KEPT, 60)  # it is not asked
    clock.now = REST_SECONDS
    assert await level.get("org_a", "k") is None  # it has forgotten
    assert level.state == "working"
    assert await level.put("org_a", "k", KEPT, 60)
    await level.close()


@pytest.mark.parametrize(
    "stored", [b"", b"no json", b"[]", b'{"request_id":"req_1"}', b'{"request_id":"r","answer":7}']
)
async def test_what_cannot_be_read_is_a_miss(server: Redis, stored: bytes) -> None:
    client = Client.from_url(server.url)
    await client.set("tollgate:cache:org_a:k", stored)
    await client.aclose()
    level = RedisLevel(server.url, Clock())
    assert await level.get("org_a", "k") is None
    assert level.state == "working"
    await level.close()


async def test_one_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "ANSWER_SECONDS", 0.01)

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        level = RedisLevel(f"redis://127.0.0.1:{port}", Clock())
        assert await level.get("org_a", "k") is None
        assert level.state == "resting"
        await level.close()
