"""The simple API: a text for a prompt, and for many at once, each prompt a paid call of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from completions.asks import BATCH, GENERATE
from completions.paid import Client, Turnstile, Watched, app, eventually, given
from completions.stage import Stage, before, erring, staged
from gateway import Upstream
from people import Person
from sandbox.serving import payloads, serving
from tollgate import settings
from tollgate.app import create_app
from tollgate.completions import batch
from tollgate.completions.batch import AT_ONCE, LONGEST_KEY, Result, in_turn
from tollgate.core.dialects.generate import LONGEST_STOP, MOST_PROMPTS, MOST_STOPS
from tollgate.core.errors import TooManyInFlight
from tollgate.core.money import NANOS_PER_CREDIT, credits_text
from tollgate.process.drain import Drain
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits
from tollgate.upstreams import transports

ECHO = "sandbox/echo"
PPM = 50_000
"""The markup, so that charge and cost differ."""
LONG = "word " * 4_000
TOO_LONG = "x" * 600_000
"""For the context of the model."""


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    with erring(["cut", "mid-stream-error", "finish-error"]) as sandbox, before(sandbox, shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


async def batched(
    stage: Stage, someone: Person, prompts: Any, path: str = f"/v1{BATCH}", key: str | None = None, **more: Any
) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return await stage.post(someone, {"model": ECHO, "prompts": prompts, **more}, path, **headers)


def outputs(answer: httpx.Response) -> list[str | None]:
    assert answer.status_code == 200, answer.text
    return [result["output"] for result in answer.json()["results"]]


@pytest.mark.parametrize("mount", ["/v1", "/api/v1"])
async def test_an_answer_says_the_text_its_tokens_and_its_charge(stage: Stage, mount: str) -> None:
    someone = await stage.customer(markup_ppm=PPM)
    asked = {"model": ECHO, "prompt": "one two", "max_new_tokens": 9, "top_k": 4, "stop": "x", "cache": True}
    answer = await stage.post(someone, asked | {"temperature": 0.5}, mount + GENERATE)
    row = await stage.row(someone)
    counts = {name: row[name] for name in ("prompt_tokens", "completion_tokens", "charge_nanos")}
    assert answer.json() == {
        "model": ECHO,
        "output": "one two",
        "finish_reason": "stop",
        "cached": False,
        "charge_credits": credits_text(row["charge_nanos"]),
        "request_id": row["id"],
        **counts,
    }
    assert answer.headers["x-tollgate-charge-nanos"] == str(row["charge_nanos"])
    assert (row["endpoint"], row["state"]) == ("generate", "settled")
    sent = stage.gateway.upstream.generations()[-1]["parameters"]
    assert {name: sent.get(name) for name in ("max_tokens", "top_k", "stop", "cache", "temperature")} == {
        "max_tokens": 9,
        "top_k": 4,
        "stop": "x",
        "cache": None,
        "temperature": 0.5,
    }


async def test_the_last_event_of_a_stream_says_the_rest_and_a_replay_says_the_same(stage: Stage) -> None:
    someone = await stage.customer(markup_ppm=PPM)
    asked = {"model": "sandbox/reasoner", "prompt": "what does it cost?", "stream": True}
    first, again = [await stage.post(someone, asked, f"/v1{GENERATE}", **{"idempotency-key": "a"}) for _ in range(2)]
    assert first.content.split(b"\n\n", 1)[1] == again.content.split(b"\n\n", 1)[1]
    assert again.headers["idempotency-replayed"] == "true"
    *events, done = payloads(first.text)
    *pieces, last = map(json.loads, events)
    row = await stage.row(someone)
    assert done == "[DONE]"
    assert len(pieces) > 1
    assert all(piece.keys() == {"output"} for piece in pieces)
    assert "".join(piece["output"] for piece in [*pieces, last]) == "what does it cost?"
    assert (last["finish_reason"], last["cached"], last["request_id"]) == ("stop", False, row["id"])
    assert (last["charge_nanos"], last["completion_tokens"]) == (row["charge_nanos"], row["completion_tokens"])


@pytest.mark.parametrize(("fault", "code"), [("cut", "upstream_cut"), ("mid-stream-error", "provider_unavailable")])
async def test_a_stream_that_breaks_off_ends_with_an_error_of_ours(stage: Stage, fault: str, code: str) -> None:
    someone = await stage.customer()
    asked = {"model": f"sandbox/fault-{fault}", "prompt": "one two three", "stream": True}
    *events, done = payloads((await stage.post(someone, asked, f"/api/v1{GENERATE}")).text)
    error = json.loads(events[-1])["error"]
    assert (done, error["code"], error["type"]) == ("[DONE]", code, "server_error")
    await eventually(stage.all_ended)
    await stage.sweep(someone)
    assert await stage.charged(someone) == (await stage.row(someone))["charge_nanos"]


async def test_a_plain_answer_that_fails_half_way_says_why_and_keeps_what_came(stage: Stage) -> None:
    someone = await stage.customer()
    asked = {"model": "sandbox/fault-finish-error", "prompt": "one two three four"}
    answer = await stage.post(someone, asked, f"/v1{GENERATE}")
    assert (answer.status_code, answer.json()["finish_reason"]) == (200, "error")
    assert answer.json()["error"].keys() >= {"code", "type", "message", "param"}
    assert "one two three four".startswith(answer.json()["output"])
    assert answer.json()["output"]
    told = await batched(stage, someone, ["one two three four"], model="sandbox/fault-finish-error")
    assert told.json()["results"][0]["error"] == answer.json()["error"]


async def test_each_prompt_of_a_batch_is_paid_for_and_answered_in_order(stage: Stage) -> None:
    someone = await stage.customer(markup_ppm=PPM)
    owed = stage.gateway.upstream.owed_nanos
    prompts = [f"number {place} of many" + " and more" * (place % 4) for place in range(2 * AT_ONCE + 1)]
    answer = await batched(stage, someone, prompts)
    assert outputs(answer) == prompts
    told, rows = answer.json(), await stage.rows(someone)
    by_id = {row["id"]: row for row in rows}
    assert len(rows) == len(prompts) == len({result["request_id"] for result in told["results"]})
    for result in told["results"]:
        row = by_id[result["request_id"]]
        assert (row["endpoint"], row["state"]) == ("generate", "settled")
        assert result["charge_nanos"] == row["charge_nanos"] == -(-row["cost_nanos"] * (10**6 + PPM) // 10**6)
        assert (result["prompt_tokens"], result["completion_tokens"]) == (
            row["prompt_tokens"],
            row["completion_tokens"],
        )
    assert sum(row["cost_nanos"] for row in rows) == stage.gateway.upstream.owed_nanos - owed
    total = sum(row["charge_nanos"] for row in rows)
    assert (told["model"], told["charge_nanos"], told["charge_credits"]) == (ECHO, total, credits_text(total))
    assert answer.headers["x-tollgate-charge-nanos"] == str(total) == str(await stage.charged(someone))
    assert await stage.money(someone) == (NANOS_PER_CREDIT - total, 0)


async def test_a_prompt_that_fails_costs_nothing_and_leaves_the_others(stage: Stage) -> None:
    """One is refused by its upstream, one by the balance."""
    rich, poor = await stage.customer(), await stage.customer(nanos=2_000_000)
    failed = []
    for someone, long, states in ((rich, TOO_LONG, ["released"]), (poor, LONG, [])):
        answer = await batched(stage, someone, ["one", long, "two"], max_new_tokens=16)
        assert outputs(answer) == ["one", None, "two"]
        assert answer.json()["charge_nanos"] == await stage.charged(someone) > 0
        assert sorted(row["state"] for row in await stage.rows(someone)) == [*states, "settled", "settled"]
        failed.append(answer.json()["results"][1])
    by_upstream, by_balance = failed
    for one in failed:
        assert (one["cached"], one["prompt_tokens"], one["completion_tokens"]) == (False, None, None)
        assert (one["charge_nanos"], one["charge_credits"]) == (0, "0.00")
    assert (by_upstream["status"], by_upstream["error"]["upstream"]) == (400, "openrouter")
    assert by_upstream["request_id"] in [row["id"] for row in await stage.rows(rich)]
    assert (by_balance["status"], by_balance["error"]["code"]) == (402, "insufficient_credits")
    assert by_balance["error"]["required_nanos"] > by_balance["error"]["available_nanos"]
    assert "request_id" not in by_balance


async def test_a_limit_that_is_hit_midway_refuses_the_rest_and_says_when_to_come_again(stage: Stage) -> None:
    someone = await stage.customer()
    await stage.sql("update tollgate.api_keys set limits.requests_per_minute = 3 where id = $1", someone.key_id)
    answer = await batched(stage, someone, ["one"] * 5)
    refused = [result for result in answer.json()["results"] if "error" in result]
    assert outputs(answer).count("one") == 3
    assert [(one["status"], one["error"]["code"]) for one in refused] == [(429, "rate_limit_exceeded")] * 2
    assert all(one["error"]["retry_after_ms"] > 0 for one in refused)
    assert [row["state"] for row in await stage.rows(someone)] == ["settled"] * 3


async def test_a_batch_whose_prompts_are_all_refused_alike_is_refused(stage: Stage) -> None:
    poor, someone = await stage.customer(nanos=1), await stage.customer()
    reader = await stage.customer(scopes=["usage"])
    stranger = Person(stage.door)
    for who, more, status, code in (
        (stranger, {"prompts": []}, 401, "invalid_api_key"),
        (poor, {}, 402, "insufficient_credits"),
        (reader, {}, 403, "permission_denied"),
        (someone, {"model": "nobody/knows"}, 404, "model_not_found"),
        (someone, {"model": "sandbox/embed"}, 400, "invalid_request"),
    ):
        answer = await stage.post(who, {"model": ECHO, "prompts": ["one", "two"], **more}, f"/api/v1{BATCH}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert [row["state"] for row in await stage.rows(someone)] == ["released"] * 2
    assert await stage.rows(poor) == await stage.rows(reader) == []


async def test_a_batch_that_is_sent_again_runs_what_it_has_not_answered(stage: Stage) -> None:
    someone = await stage.customer()
    key = "k" * LONGEST_KEY
    first = await batched(stage, someone, ["one", "two"], key=key)
    again = await batched(stage, someone, ["one", "another", "three"], key=key)
    assert outputs(first) == ["one", "two"]
    assert outputs(again) == ["one", None, "three"]
    replayed, reused, new = again.json()["results"]
    assert replayed == first.json()["results"][0] | {"replayed": True}
    assert (reused["status"], reused["error"]["code"]) == (422, "idempotency_key_reused")
    assert again.headers["x-tollgate-charge-nanos"] == str(new["charge_nanos"])
    assert await stage.charged(someone) == first.json()["charge_nanos"] + new["charge_nanos"]
    assert outputs(await batched(stage, someone, ["two"], key="another")) == ["two"]


HOSTILE = [
    ({"prompts": None}, "prompts"),
    ({"prompts": []}, "prompts"),
    ({"prompts": "one"}, "prompts"),
    ({"prompts": {"0": "one"}}, "prompts"),
    ({"prompts": ["one", 2]}, "prompts"),
    ({"prompts": ["one", None]}, "prompts"),
    ({"prompts": [["one"]]}, "prompts"),
    ({"prompts": ["one"] * (MOST_PROMPTS + 1)}, "prompts"),
    ({"prompt": "one"}, "prompt"),
    ({"stream": True}, "stream"),
    ({"model": None}, "model"),
    ({"model": ["a"]}, "model"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": True}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"stop": [1]}, "stop"),
    ({"stop": ["x"] * (MOST_STOPS + 1)}, "stop"),
    ({"stop": "x" * (LONGEST_STOP + 1)}, "stop"),
    ({"cache": "yes"}, "cache"),
    ({"n": 3}, "n"),
    ({"api_key": "sk-mine"}, "api_key"),
]


async def test_a_batch_that_makes_no_sense_is_refused_by_name_and_costs_nothing(stage: Stage) -> None:
    someone = await stage.customer()
    for more, param in HOSTILE:
        answer = await stage.post(someone, {"model": ECHO, "prompts": ["one"], **more}, f"/v1{BATCH}")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", param), more
    for key in ("", "k" * (LONGEST_KEY + 1)):
        assert (await batched(stage, someone, ["one"], key=key)).status_code == 400
    for body in (b"", b"[]", b'{"prompts":["\\ud83d"]}', b'{"prompts":["a"],"prompts":["b"]}', b'{"prompts":[NaN]}'):
        assert (await stage.post(someone, body, f"/v1{BATCH}")).status_code == 400
    assert await stage.rows(someone) == []


async def test_a_storm_of_batches_spends_what_there_is_and_no_more(stage: Stage) -> None:
    someone = await stage.customer()
    assert outputs(await batched(stage, someone, ["say it"], model="sandbox/words", max_new_tokens=200))
    hold = (await stage.row(someone))["hold_nanos"]
    spender = await stage.customer(nanos=20 * hold)
    storm = [batched(stage, spender, ["say it"] * 12, model="sandbox/words", max_new_tokens=200) for _ in range(6)]
    answers = await asyncio.gather(*storm)
    results = [result for answer in answers if answer.status_code == 200 for result in answer.json()["results"]]
    paid = [result for result in results if "error" not in result]
    assert {result["error"]["code"] for result in results if "error" in result} <= {"insufficient_credits"}
    assert {answer.status_code for answer in answers} <= {200, 402}
    assert len(paid) >= 20
    rows = await stage.rows(spender)
    assert {row["id"]: row["charge_nanos"] for row in rows} == {one["request_id"]: one["charge_nanos"] for one in paid}
    total = sum(result["charge_nanos"] for result in paid)
    assert await stage.charged(spender) == total
    assert await stage.money(spender) == (20 * hold - total, 0)


async def test_an_org_that_may_have_two_open_is_served_two_at_a_time(stage: Stage) -> None:
    someone = await stage.customer()
    await stage.sql("update tollgate.orgs set max_concurrent_requests = 2 where id = $1", someone.org_id)
    assert outputs(await batched(stage, someone, ["one"] * 12)) == ["one"] * 12
    assert [row["state"] for row in await stage.rows(someone)] == ["settled"] * 12


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile(create_sandbox(Habits(generation_delay_seconds=0.0)), is_open=False)


@pytest.fixture
def slow(turnstile: Turnstile) -> Iterator[Upstream]:
    with serving(turnstile) as address:
        yield Upstream(turnstile.app, address)


class Leaver(Client):
    """One who leaves when told, and knows when the server has heard of it."""

    is_gone = False

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        message = await super().receive()
        self.is_gone = message["type"] == "http.disconnect"
        return message


async def test_a_client_that_leaves_pays_for_what_has_begun_and_for_no_more(
    stage: Stage, slow: Upstream, turnstile: Turnstile
) -> None:
    someone = await stage.customer()
    client = Leaver(someone, {"model": ECHO, "prompts": ["one"] * 3 * AT_ONCE}, path=f"/v1{BATCH}")
    async with app(stage.door, slow) as server:
        call = asyncio.ensure_future(client.call(server))
        await eventually(lambda: turnstile.came == AT_ONCE)
        client.leave()
        await eventually(lambda: client.is_gone)
        turnstile.is_open = True
        await call
    assert (turnstile.came, client.messages) == (AT_ONCE, [])
    assert [row["state"] for row in await stage.rows(someone)] == ["settled"] * AT_ONCE
    assert await stage.charged(someone) == slow.owed_nanos


async def test_a_batch_takes_no_more_than_the_share_of_its_org_and_answers_all(
    stage: Stage, slow: Upstream, turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "MOST_CONNECTIONS", 4)  # of which an org has three
    someone, watched = await stage.customer(), Watched(stage.door)
    client = Client(someone, {"model": ECHO, "prompts": ["one"] * 20}, path=f"/v1{BATCH}")
    async with app(watched, slow) as server:
        call = asyncio.ensure_future(client.call(server))
        await eventually(lambda: turnstile.came == 3 and sum(map(len, watched.items)) == 2 * AT_ONCE - 3)
        turnstile.is_open = True
        await call
    assert [result["output"] for result in json.loads(client.body)["results"]] == ["one"] * 20
    assert turnstile.came == 20
    rows = await stage.rows(someone)
    assert [row["state"] for row in rows if row["error_code"] is None] == ["settled"] * 20
    assert {row["state"] for row in rows if row["error_code"] == "too_many_in_flight"} == {"released"}
    assert await stage.charged(someone) == slow.owed_nanos


async def test_a_server_that_stops_sends_no_more_prompts(stage: Stage, slow: Upstream, turnstile: Turnstile) -> None:
    someone, drain, environ = await stage.customer(), Drain(), given(slow.url)
    client = Client(someone, {"model": ECHO, "prompts": ["one"] * (AT_ONCE + 2)}, path=f"/v1{BATCH}")
    server = create_app(settings.read(environ), door=stage.door, environ=environ, drain=drain)
    async with server.router.lifespan_context(server):
        call = asyncio.ensure_future(client.call(server))
        await eventually(lambda: turnstile.came == AT_ONCE)
        drain.end_all()
        await call
    told = json.loads(client.body)
    codes = [result["error"]["code"] for result in told["results"]]
    assert codes == ["server_restarting"] * AT_ONCE + ["prompt_not_sent"] * 2
    assert [result["charge_nanos"] for result in told["results"]] == [None] * AT_ONCE + [0] * 2
    assert told["charge_nanos"] is None
    assert len(await stage.rows(someone)) == AT_ONCE


async def test_the_refused_prompts_of_a_batch_are_one_refused_call(stage: Stage) -> None:
    someone = await stage.customer()
    await stage.sql("update tollgate.api_keys set limits.requests_per_minute = 1 where id = $1", someone.key_id)
    async with app(stage.door, stage.gateway.upstream) as server:
        await Client(someone, {"model": ECHO, "prompts": ["one"] * 3}, path=f"/v1{BATCH}").call(server)
    counted = await stage.sql(
        "select json_agg(json_build_array(key_id, code, model, count)) from tollgate.refused_calls where org_id = $1",
        someone.org_id,
    )
    assert json.loads(counted) == [[someone.key_id, "rate_limit_exceeded", ECHO, 1]]


async def test_no_prompt_begins_when_the_time_of_its_batch_is_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = await stage.customer()
    monkeypatch.setattr(batch, "BEGINS_WITHIN", 0.0)
    answer = await batched(stage, someone, ["one", "two"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "prompt_not_sent")
    assert await stage.rows(someone) == []


@pytest.mark.parametrize("share", [1, 3, AT_ONCE])
async def test_prompts_wait_for_a_share_that_is_full_and_keep_their_order(share: int) -> None:
    under_way, began = set[int](), list[int]()

    async def run(place: int) -> Result:
        if len(under_way) >= share:
            return Result({}, 0, (429, "too_many_in_flight"), TooManyInFlight())
        under_way.add(place)
        began.append(place)
        await asyncio.sleep(0)
        under_way.remove(place)
        return Result({"place": place}, 1)

    ended = await in_turn(20, run, lambda: len(began) < 15)
    assert began[:15] == list(range(15))
    assert [result and result.shown["place"] for result in ended[:15]] == list(range(15))
    assert ended[len(began) :] == [None] * (20 - len(began))
