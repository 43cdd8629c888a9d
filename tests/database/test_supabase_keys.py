"""The Supabase door with the new kind of keys, sb_secret_…, before Supabase's own small server.

A short set: with this version (0.10.0) jsonb arguments arrive encoded twice, as a JSON string, so what needs
a caller is tested before PostgREST itself.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from conftest import DEADLINE_SECONDS
from people import Person, refused
from sandbox.serving import PATIENCE_SECONDS
from servers.lite import PUBLISHABLE_KEY, SECRET_KEY, lite
from tollgate.core.errors import DatabaseUnavailable, InvalidApiKey
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.schema_version import NEEDED
from tollgate.database.supabase import SupabaseDoor
from tollgate.process.http_client import Http


@pytest.fixture(scope="module")
def supabase(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lite(shared_database, tmp_path_factory.mktemp("lite")) as url:
        yield url


@asynccontextmanager
async def opened(url: str, key: str) -> AsyncIterator[Door]:
    http = Http()
    try:
        yield SupabaseDoor(url, key, http=http, deadline_seconds=DEADLINE_SECONDS)
    finally:
        await http.close()


async def test_a_secret_key_opens(supabase: str) -> None:
    async with opened(supabase, SECRET_KEY) as door:
        assert (await door.call("tollgate_health"))["schema_version"] == NEEDED


async def test_refusals_arrive_with_their_codes(supabase: str) -> None:
    async with opened(supabase, SECRET_KEY) as door:
        assert isinstance(await refused(credits.balance(Person(door).at_the_door())), InvalidApiKey)


@pytest.mark.parametrize("key", ["sb_secret_of_another_project", PUBLISHABLE_KEY])
async def test_another_key_is_our_trouble_and_not_the_client_s(supabase: str, key: str) -> None:
    async with opened(supabase, key) as door:
        assert isinstance(await refused(door.call("tollgate_health")), DatabaseUnavailable)


async def test_many_calls_at_once_are_all_answered(supabase: str) -> None:
    async with opened(supabase, SECRET_KEY) as door:
        answers = await asyncio.gather(*(door.call("tollgate_health") for _ in range(50)))
        assert len(answers) == 50


async def test_a_browser_s_user_agent_would_be_refused(supabase: str) -> None:
    """Why the caller's is never passed on."""
    headers = {"apikey": SECRET_KEY, "user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_SECONDS) as browser:
        answer = await browser.post(f"{supabase}/rest/v1/rpc/tollgate_health", json={})
    assert answer.status_code == 401
