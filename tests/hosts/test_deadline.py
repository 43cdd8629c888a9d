"""A deadline below the platform's limit ends a call in good order, while there is still time to close its books."""

from collections.abc import AsyncIterator, Iterator

import pytest

from completions.paid import Line, Turnstile, eventually
from completions.stage import Stage, before, staged
from gateway import Gateway, Upstream
from people import Person
from sandbox.serving import a_chat, chunks, serving, told, until
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits
from tollgate.settings import read

SECONDS = 3.0
"""Long enough for a busy machine to pass on the first words."""
WORDS = "one two three four five six seven eight nine ten " * 20
SLOW = a_chat(WORDS, model="sandbox/fault-slow", stream=True)
ENDLESS = a_chat(model="sandbox/fault-many", stream=True)
A_DATABASE = {"DATABASE_URL": "postgresql://nobody@192.0.2.1/nothing"}


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile(create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0)))


@pytest.fixture
def gateway(own_database: str, turnstile: Turnstile) -> Iterator[Gateway]:
    with serving(turnstile) as address:
        upstream = Upstream(turnstile.app, address)
        with before(upstream, own_database, UPSTREAM_TIMEOUT_SECONDS=str(SECONDS)) as made:
            yield made


@pytest.fixture
async def stage(gateway: Gateway, own_database: str) -> AsyncIterator[Stage]:
    async with staged(gateway, own_database) as made:
        yield made


@pytest.mark.parametrize("mark", ["VERCEL", "AWS_LAMBDA_FUNCTION_NAME"])
def test_where_a_host_cuts_off_at_300_s_the_deadline_is_below_that_by_itself(mark: str) -> None:
    assert read({mark: "1", **A_DATABASE}).upstream_timeout_seconds == 280
    assert read({mark: "1", **A_DATABASE, "UPSTREAM_TIMEOUT_SECONDS": "700"}).upstream_timeout_seconds == 700
    assert read({mark: "", **A_DATABASE}).upstream_timeout_seconds == 600


async def test_a_stream_at_its_deadline_ends_with_an_event_and_is_paid_for_what_it_said(
    stage: Stage, gateway: Gateway, turnstile: Turnstile
) -> None:
    someone = await stage.customer()
    answer = await stage.post(someone, SLOW)
    assert answer.status_code == 200
    *said, last = chunks(answer.text)
    assert len(said) > 3
    assert told(answer.text) != WORDS
    assert (last["error"]["code"], last["error"]["phase"]) == ("upstream_timeout", "total")
    assert "[DONE]" not in answer.text  # it is not whole
    await eventually(lambda: turnstile.inside == 0)
    row = await stage.row(someone)
    (generation,) = gateway.upstream.generations()
    assert (row["state"], row["generation_id"]) == ("unsettled", generation["id"])
    await stage.sweep(someone)
    assert await stage.charged(someone) == generation["owed_nanos"] > 0
    assert (await stage.money(someone))[1] == 0
    await stage.books_agree()


async def test_a_plain_call_at_its_deadline_is_refused_and_not_forgotten(stage: Stage, gateway: Gateway) -> None:
    someone = await stage.customer()
    answer = await stage.post(someone, a_chat(WORDS, model="sandbox/fault-stall-after"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert (await stage.row(someone))["state"] == "unsettled"
    await stage.sweep(someone)
    (generation,) = gateway.upstream.generations()
    assert await stage.charged(someone) == generation["owed_nanos"] > 0
    await stage.books_agree()


async def test_a_client_that_does_not_read_does_not_move_the_deadline(
    stage: Stage, gateway: Gateway, turnstile: Turnstile
) -> None:
    """Then nobody waits for the upstream: what it has said waits to be taken."""
    someone = await stage.customer(nanos=10**12)
    line = await Line.of_one_who_never_reads(gateway.address)
    await line.ask(someone, ENDLESS)
    await until(lambda: _has_ended(stage, someone))
    await eventually(lambda: turnstile.inside == 0)
    assert (await stage.row(someone))["error_code"] == "upstream_timeout"
    line.hang_up()


async def _has_ended(stage: Stage, someone: Person) -> bool:
    return any(row["state"] != "held" for row in await stage.rows(someone))
