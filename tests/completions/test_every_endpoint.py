"""Each endpoint of the table through the suites of the paid path: what it costs, and what is left of it when it is
repeated, cut, or abandoned. A new endpoint is met here as soon as `asks.CALLS` says how it is called."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import pytest

from completions.asks import AT_OPENROUTER, CALLS, STREAMED, path_of
from completions.paid import Line, Turnstile, eventually
from completions.stage import OWN_SERVER, Row, Stage, before, served, staged
from gateway import Upstream
from people import Person
from sandbox.serving import a_chat, serving
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database.postgres import PostgresDoor
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

EACH = [*((name, False) for name in CALLS), *((name, True) for name in STREAMED)]
"""Endpoints, and whether they answer in events."""
CUT = [(name, stream, {}) for name, stream in EACH if name in AT_OPENROUTER]
LEFT = [(name, stream) for name, stream, _ in CUT if stream or ENDPOINTS[name].answers_bytes]
"""Only a sandbox in OpenRouter's place breaks off and stalls as it is told."""
IN_ONE_PIECE = [name for name, form in ENDPOINTS.items() if not (form.answers_bytes or form.is_free)]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
BY_MORE_UNITS: list[tuple[Endpoint, dict[str, Any]]] = [
    ("chat", {"model": "sandbox/image", "messages": [{"role": "user", "content": [PICTURE]}]}),
    ("chat", a_chat("think", "sandbox/reasoner")),
    ("completions", {"n": 2}),
    ("transcriptions", {"model": "sandbox/ear-tokens"}),
]
"""Changes of a call, so that each unit of price is met: a picture and a request, thoughts, choices, tokens of sound."""

BALANCE = 10 * NANOS_PER_CREDIT


class Scene(NamedTuple):
    stage: Stage
    gate: Turnstile
    calls: dict[Endpoint, dict[str, Any]]

    @property
    def upstream(self) -> Upstream:
        return self.stage.gateway.upstream

    def body(self, endpoint: Endpoint, stream: bool, **more: Any) -> dict[str, Any]:
        return {**self.calls[endpoint], **({"stream": True} if stream else {}), **more}

    async def customer(self) -> Person:
        return await self.stage.customer(BALANCE, markup_ppm=0)

    async def post(self, someone: Person, endpoint: Endpoint, body: Any, **headers: str) -> httpx.Response:
        return await self.stage.post(someone, body, path_of(endpoint), **headers)

    async def ended(self, someone: Person) -> list[Row]:
        """The requests of someone, after a sweep: each has ended, is no estimate, and nothing is held."""
        await eventually(self.stage.all_ended)
        await self.stage.sweep(someone)
        rows = await self.stage.rows(someone)
        assert {row["state"] for row in rows} <= {"settled", "released"}
        assert not any(row["estimated"] for row in rows)
        charged = sum(row["charge_nanos"] for row in rows)
        assert await self.stage.money(someone) == (BALANCE - charged, 0)
        return rows


@pytest.fixture(scope="module")
async def scene(shared_database: str) -> AsyncIterator[Scene]:
    gate = Turnstile(create_sandbox(Habits(generation_delay_seconds=0.0)))
    door = PostgresDoor(shared_database, pool_size=1, deadline_seconds=30)
    with serving(gate) as address:
        upstream = Upstream(gate.app, address)
        calls = await served(door, upstream)  # first, so that the gateway knows them from its start
        await door.close()
        with before(upstream, shared_database, **OWN_SERVER) as gateway:
            async with staged(gateway, shared_database) as stage:
                yield Scene(stage, gate, calls)


def test_there_is_a_call_of_each_endpoint() -> None:
    assert CALLS.keys() == ENDPOINTS.keys()


@pytest.mark.parametrize(("endpoint", "stream"), EACH)
async def test_a_call_costs_what_is_owed_and_its_repetition_nothing(
    scene: Scene, endpoint: Endpoint, stream: bool
) -> None:
    someone, owed, body = await scene.customer(), scene.upstream.owed_nanos, scene.body(endpoint, stream)
    came, key = scene.gate.came, {"idempotency-key": "once"}
    first, again = [await scene.post(someone, endpoint, body, **key) for _ in range(2)]
    assert first.status_code == 200, first.text
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    for name in ("content-type", "x-tollgate-request-id"):
        assert again.headers[name] == first.headers[name]
    other = await scene.post(someone, endpoint, body | {"temperature": 0.5}, **key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    (row,) = await scene.ended(someone)
    assert row["charge_nanos"] == scene.upstream.owed_nanos - owed <= row["hold_nanos"]
    assert (row["endpoint"], row["status"], row["error_code"]) == (endpoint, 200, None)
    is_free = ENDPOINTS[endpoint].is_free
    assert ((row["charge_nanos"] == 0), scene.gate.came - came) == (is_free, 0 if is_free else 1)


@pytest.mark.parametrize(
    ("endpoint", "stream", "more"),
    [*CUT, *((name, stream, more) for name, more in BY_MORE_UNITS for stream in (False, True))],
)
async def test_an_answer_that_is_cut_costs_what_is_owed(
    scene: Scene, endpoint: Endpoint, stream: bool, more: dict[str, Any]
) -> None:
    someone, owed, body = await scene.customer(), scene.upstream.owed_nanos, scene.body(endpoint, stream, **more)
    faults = ("cut=0", "cut=1", "cut=3", "cut", "early-eof")
    for fault in faults:
        try:
            answer = await scene.post(someone, endpoint, body, **{"x-sandbox-fault": fault})
            assert answer.status_code in (200, 502), answer.text
        except httpx.RemoteProtocolError:
            assert ENDPOINTS[endpoint].answers_bytes
    rows = await scene.ended(someone)
    theirs = {one["id"]: one["owed_nanos"] for one in scene.upstream.generations()}
    assert [row["charge_nanos"] for row in rows] == [theirs[row["generation_id"]] for row in rows]
    assert len(rows) == len(faults)
    assert sum(row["charge_nanos"] for row in rows) == scene.upstream.owed_nanos - owed
    assert all(row["error_code"] == "upstream_cut" for row in rows[:4])


@pytest.mark.parametrize(("endpoint", "stream"), LEFT)
async def test_who_leaves_in_the_middle_stops_the_upstream_and_pays_what_is_owed(
    scene: Scene, endpoint: Endpoint, stream: bool
) -> None:
    someone = await scene.customer()
    line = await Line.opened(scene.stage.gateway.address)
    stalls = {"x-sandbox-fault": "stall-after=2"}
    await line.ask(someone, scene.body(endpoint, stream), path_of(endpoint), **stalls)
    assert await line.status() == 200
    await line.headers()
    await (line.until(b"data: ") if stream else line.reader.read(1))
    assert scene.gate.inside == 1
    line.hang_up()
    await eventually(lambda: scene.gate.inside == 0)
    await eventually(lambda: scene.upstream.generations()[-1]["finished"])
    generation = scene.upstream.generations()[-1]

    async def has_ended() -> bool:
        return (await scene.stage.row(someone))["state"] != "held"

    await eventually(has_ended)
    (row,) = await scene.ended(someone)
    assert (row["error_code"], row["generation_id"]) == ("client_gone", generation["id"])
    assert row["charge_nanos"] == generation["owed_nanos"]
    assert generation["cancelled"]


@pytest.mark.parametrize("endpoint", IN_ONE_PIECE)
async def test_a_plain_call_runs_to_its_end_without_its_client(scene: Scene, endpoint: Endpoint) -> None:
    someone, owed, came = await scene.customer(), scene.upstream.owed_nanos, scene.gate.came
    scene.gate.is_open = False
    line = await Line.opened(scene.stage.gateway.address)
    await line.ask(someone, scene.body(endpoint, stream=False), path_of(endpoint))
    await eventually(lambda: scene.gate.came == came + 1)
    line.hang_up()
    scene.gate.is_open = True

    async def has_ended() -> bool:
        return [row["state"] for row in await scene.stage.rows(someone)] == ["settled"]

    await eventually(has_ended)
    (row,) = await scene.ended(someone)
    assert row["charge_nanos"] == scene.upstream.owed_nanos - owed > 0
