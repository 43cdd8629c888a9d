"""The nginx configuration that we ship, in a real nginx before a real Tollgate."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from gateway import CHAT, Upstream, running
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat, serving, told
from servers.nginx import PROGRAM, nginx
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (CI installs it)")

FORGED = "198.51.100.66"


@pytest.fixture(scope="module")
def front(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sandbox = create_sandbox()
    with (
        serving(sandbox) as upstream,
        running(
            {"DATABASE_URL": shared_database},
            Upstream(sandbox, upstream),
            TRUSTED_PROXY="proxy",
            MAX_BODY_BYTES="2048",
        ) as gateway,
        nginx(gateway.address, tmp_path_factory.mktemp("nginx")) as address,
    ):
        yield address


@pytest.fixture
async def someone(shared_database: str) -> AsyncIterator[Person]:
    door = PostgresDoor(shared_database, pool_size=2, deadline_seconds=30)
    made = Person(door, "admin")
    await made.seed()
    await credits.grant(console(door, "tests"), made.org_id, 10**9, source="funding", reason="", reference=made.org_id)
    yield made
    await door.close()


def client(front: str, someone: Person, **headers: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {someone.secret}", **headers}
    return httpx.AsyncClient(base_url=front, headers=headers, timeout=PATIENCE_SECONDS)


async def test_each_event_of_a_stream_comes_through_when_it_is_sent(front: str, someone: Person) -> None:
    async with (
        client(front, someone, **{"x-sandbox-fault": "stall-after=1"}) as http,
        http.stream("POST", CHAT, json=a_chat("first second", stream=True)) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        text = ""
        async for piece in answer.aiter_text():
            text += piece
            if told(text):
                break
    assert "first".startswith(told(text))


async def test_a_paid_call_goes_through_and_refusals_keep_their_shape(front: str, someone: Person) -> None:
    async with client(front, someone) as http:
        paid = await http.post(CHAT, json=a_chat())
        assert paid.status_code == 200, paid.text
        assert int(paid.headers["x-tollgate-charge-nanos"]) > 0
        refused = await http.post(CHAT, json=a_chat("much " * 1000))
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


async def test_the_caller_is_the_one_that_connected_whatever_it_claims(
    front: str, someone: Person, shared_database: str, sql: Any
) -> None:
    claims = {"x-forwarded-for": FORGED, "x-real-ip": FORGED, "forwarded": f"for={FORGED}"}
    async with client(front, someone, **claims) as http:
        made = await http.post("/admin/orgs", json={"name": "Seen"})
        assert made.status_code == 201, made.text
    seen = "select host(ip) from tollgate.audit_events where target_id = $1 limit 1"
    assert await sql(shared_database, seen, made.json()["id"]) == "127.0.0.1"


async def test_what_is_for_those_inside_is_closed(front: str, someone: Person) -> None:
    async with client(front, someone) as http:
        for method, path in (
            ("POST", "/internal/sweep"),
            ("GET", "/metrics"),
            ("GET", "//metrics"),
            ("GET", "/api/metrics"),
        ):
            assert (await http.request(method, front + path)).status_code == 404, path
        assert (await http.get("/healthz")).json() == {"status": "ok"}
