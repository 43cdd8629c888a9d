"""What must hold of charges whatever is asked: the same work costs the same in every form, and everything once."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from completions.asks import GENERATE, MESSAGES, RESPONSES, SAYING, asking
from completions.stage import Row, Stage, before, erring, staged
from people import Person
from sandbox.serving import a_chat, until
from tollgate.core.money import NANOS_PER_CREDIT

FAULTS = ("byok", "cost-differs=3", "cost-differs=20", "cost-differs=100000", "blank", "wrong-model", "hold-until=2")
PPM = 1_000_000
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
LONG = "word " * 6000


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    with erring(FAULTS) as sandbox, before(sandbox, shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


async def paid(stage: Stage, someone: Person, body: dict[str, Any], path: str = "/v1/chat/completions") -> int:
    """The charge; what was owed for it is the same but for a markup, and every place says the same of it."""
    known = {row["id"] for row in await stage.rows(someone)}
    before_it = await stage.money(someone)
    answer = await stage.post(someone, body, path, **{"x-tollgate-usage": "true"})
    assert answer.status_code == 200, answer.text
    (row,) = [row for row in await stage.rows(someone) if row["id"] not in known]
    assert row["state"] == "settled"
    assert await stage.money(someone) == (before_it[0] - row["charge_nanos"], 0)
    assert told(answer) == row["charge_nanos"]
    charge: int = row["charge_nanos"]
    if row["markup_ppm"] and row["endpoint"] != "generate":
        assert stated(answer) == [Decimal(charge) / NANOS_PER_CREDIT]
    return charge


def stated(answer: httpx.Response) -> list[Decimal]:
    """Every cost that the answer states."""
    return [Decimal(cost) for cost in re.findall(r'"[a-z_]*cost[a-z_]*":([^,}]*)', answer.text)]


def told(answer: httpx.Response) -> int:
    """The charge as the client is told of it."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return int(answer.headers["x-tollgate-charge-nanos"])
    (charge,) = re.findall(r'"charge_nanos":(\d+)', answer.text)
    return int(charge)


def with_markup(cost: int, markup_ppm: int) -> int:
    return -(-cost * (PPM + markup_ppm) // PPM)


def with_image(**more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "what is this"}, IMAGE]
    return {"model": "sandbox/image", "messages": [{"role": "user", "content": content}], **more}


ASKED = {
    "an echo": a_chat("one two three"),
    "a bound": a_chat("one two three", max_tokens=2),
    "several answers": a_chat("one two three", n=4),
    "many words": a_chat("go", "sandbox/words", max_tokens=300),
    "tools": a_chat("look", "sandbox/tools", tools=[TOOL]),
    "thoughts": a_chat("think", "sandbox/reasoner"),
    "no thoughts": a_chat("think", "sandbox/reasoner", reasoning={"effort": "none"}),
    "an image": with_image(),
    "a long prompt": a_chat(LONG, "sandbox/long-context", max_tokens=100),
    "nothing to pay": a_chat("one", "sandbox/free:free"),
    "an alias": a_chat("one", "~sandbox/echo-latest"),
    "a router": a_chat(
        "one", "sandbox/router", max_tokens=100, provider={"max_price": {"prompt": "1", "completion": "2"}}
    ),
    "fallbacks": a_chat("one", "sandbox/words", models=["sandbox/echo"]),
    "one's own key": a_chat("one", "sandbox/fault-byok"),
    "another cost": a_chat("one", "sandbox/fault-cost-differs=3"),
    "no answer at all": a_chat("one", "sandbox/fault-blank"),
    "another model": a_chat("one", "sandbox/fault-wrong-model"),
}


@pytest.mark.parametrize("markup_ppm", [0, 100_000])
@pytest.mark.parametrize("what", ASKED)
async def test_a_stream_costs_what_the_whole_answer_costs_and_both_what_is_owed(
    stage: Stage, what: str, markup_ppm: int
) -> None:
    someone = await stage.customer(markup_ppm=markup_ppm)
    charges = []
    for stream in (False, True):
        owed = stage.gateway.upstream.owed_nanos
        charges.append(await paid(stage, someone, ASKED[what] | {"stream": stream}))
        assert charges[-1] == with_markup(stage.gateway.upstream.owed_nanos - owed, markup_ppm)
    assert charges[0] == charges[1]
    assert (charges[0] == 0) == (what in ("nothing to pay", "no answer at all"))
    assert await stage.charged(someone) == sum(charges)


async def test_a_text_costs_the_same_on_every_path(stage: Stage) -> None:
    someone = await stage.customer()
    chat = await paid(stage, someone, a_chat("one two three"))
    assert await paid(stage, someone, a_chat("one two three"), "/api/v1/chat/completions") == chat
    old = {"model": "sandbox/echo", "prompt": "one two three"}
    assert await paid(stage, someone, old, "/v1/completions") == chat
    assert await paid(stage, someone, old | {"stream": True}, "/api/v1/completions") == chat
    for path in (*SAYING, GENERATE):
        assert await paid(stage, someone, asking(path, "one two three"), f"/api/v1{path}") == chat


TYPED_ASKED = {
    f"{path}, {what}": (path, asking(path, text, model, **more))
    for path in (RESPONSES, MESSAGES)
    for what, text, model, more in [
        ("an echo", "one two three", "sandbox/echo", {}),
        ("a bound", "one two three", "sandbox/words", {"max_tokens": 20}),
        ("thoughts", "think", "sandbox/reasoner", {}),
        ("a cache", f"{path} " * 800, "sandbox/cached", {"max_tokens": 10}),
        ("nothing to pay", "one", "sandbox/free:free", {}),
        ("one's own key", "one", "sandbox/fault-byok", {}),
        ("no answer at all", "one", "sandbox/fault-blank", {}),
        ("another model", "one", "sandbox/fault-wrong-model", {}),
        ("fallbacks", "one", "sandbox/words", {"models": ["sandbox/echo"]}),
    ]
} | {
    f"{GENERATE}, {what}": (GENERATE, asking(GENERATE, "one two three", model, **more))
    for what, model, more in [
        ("a bound", "sandbox/words", {"max_tokens": 20}),
        ("thoughts", "sandbox/reasoner", {}),
        ("one's own key", "sandbox/fault-byok", {}),
    ]
}


@pytest.mark.parametrize("markup_ppm", [0, 100_000])
@pytest.mark.parametrize("what", TYPED_ASKED)
async def test_a_response_and_a_message_cost_what_is_owed(stage: Stage, what: str, markup_ppm: int) -> None:
    """The tokens of a message's cache are counted apart from its other input; the row has their sum."""
    someone = await stage.customer(markup_ppm=markup_ppm)
    path, body = TYPED_ASKED[what]
    for stream in (False, True):
        owed = stage.gateway.upstream.owed_nanos
        charge = await paid(stage, someone, body | {"stream": stream}, f"/v1{path}")
        assert charge == with_markup(stage.gateway.upstream.owed_nanos - owed, markup_ppm)
        row, generation = (await stage.rows(someone))[-1], stage.gateway.upstream.generations()[-1]
        for counted in ("prompt_tokens", "completion_tokens"):
            assert row[counted] == generation[counted]


async def test_embeddings_are_charged_by_what_goes_in(stage: Stage) -> None:
    someone = await stage.customer()
    owed = stage.gateway.upstream.owed_nanos
    one = await paid(stage, someone, {"model": "sandbox/embed", "input": "hello"}, "/v1/embeddings")
    two = await paid(stage, someone, {"model": "sandbox/embed", "input": ["hello"] * 2}, "/v1/embeddings")
    assert (one + two, two) == (stage.gateway.upstream.owed_nanos - owed, 2 * one)


async def test_what_was_cached_is_paid_for_once_and_at_its_own_price(stage: Stage) -> None:
    """The first writes the cache, the second reads it: each is charged its cost, and neither its tokens twice."""
    someone = await stage.customer()
    body = a_chat(LONG[:8000], "sandbox/cached", max_tokens=10)
    owed = stage.gateway.upstream.owed_nanos
    written, read = [await paid(stage, someone, body | {"stream": stream}) for stream in (False, True)]
    assert written + read == stage.gateway.upstream.owed_nanos - owed
    assert 0 < read < written / 2
    first, second = await stage.rows(someone)
    assert first["prompt_tokens"] == second["prompt_tokens"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 1000


async def test_thoughts_are_within_the_output_and_an_image_is_on_top(stage: Stage) -> None:
    someone = await stage.customer()
    thinking = await paid(stage, someone, ASKED["thoughts"])
    assert thinking > await paid(stage, someone, ASKED["no thoughts"])
    row = (await stage.rows(someone))[0]
    thought = row["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < thought < row["completion_tokens"]
    assert thinking == 3000 * row["prompt_tokens"] + 15_000 * row["completion_tokens"]
    with_one = await paid(stage, someone, with_image())
    with_two = with_image()
    with_two["messages"][0]["content"].append(IMAGE)
    assert await paid(stage, someone, with_two) - with_one == 1_445_000


@pytest.mark.parametrize("markup_ppm", [0, 1, 50_000, 333_333, 10_000_000])
async def test_a_markup_is_exact_and_rounds_up_once(stage: Stage, markup_ppm: int) -> None:
    someone = await stage.customer(markup_ppm=markup_ppm)
    for body in (ASKED["an echo"], ASKED["one's own key"] | {"stream": True}):
        owed = stage.gateway.upstream.owed_nanos
        charge = await paid(stage, someone, body)
        cost = stage.gateway.upstream.owed_nanos - owed
        assert charge == with_markup(cost, markup_ppm)
        row = (await stage.rows(someone))[-1]
        assert row["cost_nanos"] == cost
        assert row["hold_nanos"] >= charge


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replay_states_the_charge_as_the_first_answer_did(stage: Stage, stream: bool) -> None:
    someone = await stage.customer(markup_ppm=100_000)
    first, again = [
        await stage.post(someone, ASKED["an echo"] | {"stream": stream}, **{"idempotency-key": "once"})
        for _ in range(2)
    ]
    assert again.headers["idempotency-replayed"] == "true"
    assert first.content == again.content
    assert stated(first) == [Decimal(await stage.charged(someone)) / NANOS_PER_CREDIT]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_operator_may_show_the_cost_beside_the_charge(
    stage: Stage, shared_database: str, stream: bool
) -> None:
    someone = await stage.customer(markup_ppm=100_000)
    with before(stage.gateway.upstream, shared_database, SHOW_COST="both") as gateway:
        answer = await gateway.post(someone, ASKED["an echo"] | {"stream": stream})
    row = await stage.row(someone)
    assert stated(answer) == [Decimal(row[f"{name}_nanos"]) / NANOS_PER_CREDIT for name in ("cost", "charge")]


async def test_a_cost_above_the_hold_posts_even_below_nothing_and_is_recorded(stage: Stage) -> None:
    cheap = a_chat("one two three four five six", "sandbox/fault-cost-differs=20", max_tokens=10)
    probe = await stage.customer()
    cost = await paid(stage, probe, cheap)
    hold = (await stage.row(probe))["hold_nanos"]
    assert hold < cost <= 10 * hold
    poor = await stage.customer(nanos=hold)
    assert await paid(stage, poor, cheap) == cost
    assert await stage.money(poor) == (hold - cost, 0)
    assert (await stage.post(poor, cheap)).status_code == 402
    events = "select count(*) from tollgate.audit_events where action = 'credits.overdrawn' and org_id = $1"
    assert await stage.sql(events, poor.org_id) == 1


async def test_what_was_spent_is_the_sum_of_its_transfers(stage: Stage) -> None:
    """Many calls of all kinds at once, on one balance."""
    had = 100 * NANOS_PER_CREDIT
    someone = await stage.customer(had, markup_ppm=70_000)
    owed = stage.gateway.upstream.owed_nanos
    bodies = [body | {"stream": stream} for body in ASKED.values() for stream in (False, True)]
    answers = await asyncio.gather(*(stage.post(someone, body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    rows = await stage.rows(someone)
    assert len(rows) == len(bodies)
    spent = sum(row["charge_nanos"] for row in rows)
    costs = sum(row["cost_nanos"] for row in rows)
    assert costs == stage.gateway.upstream.owed_nanos - owed
    assert 0 <= spent - costs * 1.07 < len(rows)
    assert await stage.charged(someone) == spent
    assert await stage.money(someone) == (had - spent, 0)
    balances = (
        "select count(distinct balance_after_nanos) from tollgate.transfers where org_id = $1 and kind = 'charge'"
    )
    assert await stage.sql(balances, someone.org_id) == sum(row["charge_nanos"] > 0 for row in rows)


OURS = "ours/price-changer"


async def serve_it_ourselves(
    stage: Stage, prompt: str, completion: str, model: str = OURS, served: str = "sandbox/fault-hold-until=2"
) -> None:
    """The sandbox as a server of ours, one that names no cost we would believe: tokens times the route's price."""
    pricing = json.dumps({"prompt": prompt, "completion": completion})
    await stage.sql(
        "insert into tollgate.upstreams (id, name, base_url, dialect, secret_name)"
        " values ('ups_pricechanger', 'Ours', $1, 'openai', 'OUR_OWN_KEY')"
        " on conflict (id) do update set base_url = excluded.base_url",
        stage.gateway.upstream.url,
    )
    await stage.sql(
        "insert into tollgate.routes (model, upstream_id, upstream_model, pricing, context_tokens, most_output)"
        " values ($1, 'ups_pricechanger', $3, $2::jsonb, 100000, 1000)"
        " on conflict (model, upstream_id) do update set pricing = excluded.pricing",
        model,
        pricing,
        served,
    )


async def test_a_price_that_changes_meanwhile_is_that_of_the_hold(stage: Stage, shared_database: str) -> None:
    """Two wait for each other at their server. Between their holds the price becomes a hundred times as high."""
    early, late = await stage.customer(), await stage.customer()
    body = a_chat("one two three", OURS)
    more = {"PRIVATE_UPSTREAMS": "true", "OUR_OWN_KEY": "of-the-tests"}
    await serve_it_ourselves(stage, "0.000001", "0.000002")
    with before(stage.gateway.upstream, shared_database, **more) as then:
        first = asyncio.create_task(Stage(then, stage.door, stage.connection, stage.http).post(early, body))

        async def waits() -> bool:
            seen = await stage.http.get(stage.gateway.upstream.address + "/sandbox/ledger")
            return bool(seen.json()["held"] == 1)

        await until(waits)
        await serve_it_ourselves(stage, "0.0001", "0.0002")
        with before(stage.gateway.upstream, shared_database, **more) as now:
            second = await Stage(now, stage.door, stage.connection, stage.http).post(late, body)
        assert ((await first).status_code, second.status_code) == (200, 200)
    cheap, dear = await stage.row(early), await stage.row(late)
    assert [row["upstream"] for row in (cheap, dear)] == ["ups_pricechanger"] * 2
    assert cheap["charge_nanos"] > 0
    assert dear["charge_nanos"] == 100 * cheap["charge_nanos"]
    assert cheap["charge_nanos"] == at_its_price(cheap)


async def test_who_serves_is_paid_at_its_own_price_and_not_at_the_dearest_that_was_held(
    stage: Stage, shared_database: str
) -> None:
    someone = await stage.customer()
    await serve_it_ourselves(stage, "0.000000001", "0.000000002", "ours/cheap", "sandbox/echo")
    more = {"PRIVATE_UPSTREAMS": "true", "OUR_OWN_KEY": "of-the-tests"}
    with before(stage.gateway.upstream, shared_database, **more) as gateway:
        there = Stage(gateway, stage.door, stage.connection, stage.http)
        for stream in (False, True):
            body = a_chat("one two three", "ours/cheap", models=["sandbox/reasoner"], stream=stream)
            assert (await there.post(someone, body)).status_code == 200
    for row in await stage.rows(someone):
        assert row["charge_nanos"] == row["prompt_tokens"] + 2 * row["completion_tokens"] > 0
        assert row["hold_nanos"] > 1000 * row["charge_nanos"]


def at_its_price(row: Row) -> int:
    """Tokens times the price that the hold was made with, which the row still has."""
    prompt, completion = (Decimal(row["price"][part]) for part in ("prompt", "completion"))
    return int(row["prompt_tokens"] * prompt + row["completion_tokens"] * completion)
