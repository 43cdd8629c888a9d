"""Images, speech, rerank and moderations: what is held and charged where tokens are not all that is priced."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from completions.asks import IMAGES, MADE, MODERATIONS, RERANK, SPEECH
from completions.paid import Line, eventually
from completions.stage import Row, Stage, before, erring, staged
from people import Person
from tollgate.catalog import store as catalog
from tollgate.completions.replay import MOST_STORED_BYTES
from tollgate.core.extras.register import REGISTER
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.spoken import FRAME, SAMPLES
from tollgate.upstreams import store as upstreams

TEXT = "Zwölf Boxkämpfer jagen Viktor. 小さな鳥 🐦"
MODELS = {IMAGES: "sandbox/painter", SPEECH: "sandbox/voice", RERANK: "sandbox/rank", MODERATIONS: "sandbox/guard"}
ROUTES: dict[str, tuple[str, dict[str, str]]] = {
    "image": (IMAGES, {"output_image": "0.03"}),
    "dear-image": (IMAGES, {"output_image": "0.25"}),
    "image-by-request": (IMAGES, {"request": "0.01"}),
    "image-by-token": (IMAGES, {"completion": "0.000001"}),
    "speech": (SPEECH, {"character": "0.00002"}),
    "slow-speech": (SPEECH, {"character": "0.00002"}),
    "speech-by-prompt": (SPEECH, {"prompt": "0.00001"}),
    "speech-by-second": (SPEECH, {"second": "0.0001"}),
    "speech-by-token": (SPEECH, {"prompt": "0.00001", "audio_output": "0.00002"}),
    "rerank": (RERANK, {"request": "0.001"}),
    "rerank-by-token": (RERANK, {"prompt": "0.000001"}),
    "silent-rerank": (RERANK, {"prompt": "0.000001"}),
    "moderation": (MODERATIONS, {"request": "0.0001"}),
    "free-moderation": (MODERATIONS, {}),
}
"""To a server of our own: the sandbox, by another name. Each is a model, ours/<token>-<name>."""
OURS: dict[str, tuple[dict[str, Any], int, dict[str, int]]] = {
    "image": ({"prompt": "x", "n": 2}, 2 * 30_000_000, {"images": 2}),
    "image-by-request": ({"prompt": "x", "n": 2}, 10_000_000, {"images": 2}),
    "image-by-token": ({"prompt": "x", "n": 2}, 512_000, {"images": 2, "completion_tokens": 512}),
    "speech": ({"input": TEXT}, len(TEXT) * 20_000, {"characters": len(TEXT)}),
    "speech-by-prompt": ({"input": "four"}, 40_000, {"characters": 4}),
    "rerank": ({"query": "a", "documents": ["a"] * 101}, 2_000_000, {"search_units": 2}),
    "rerank-by-token": ({"query": "four", "documents": ["four"] * 3}, 6000, {"prompt_tokens": 6}),
    "moderation": ({"input": ["a", "b"]}, 100_000, {}),
    "free-moderation": ({"input": "a"}, 0, {}),
}
"""Body, charge in nanos, and what the row keeps of the usage."""


FAULTY = {"slow-speech": "@slow=0.03", "silent-rerank": "@no-usage"}


class Units(NamedTuple):
    stage: Stage
    token: str

    def body(self, name: str, **more: Any) -> dict[str, Any]:
        return {"model": f"ours/{self.token}-{name}", **more}


@pytest.fixture(scope="module")
async def units(shared_database: str) -> AsyncIterator[Units]:
    """The routes are made first, so that the gateway knows them from its start."""
    more = {"PRIVATE_UPSTREAMS": "true", "UPSTREAM_UNITS_KEY": "sk-of-the-tests"}
    token = secrets.token_hex(4)
    with erring([]) as sandbox:
        door = PostgresDoor(shared_database, pool_size=1, deadline_seconds=30)
        operator = console(door, "tests")
        named = {"name": f"units-{token}", "dialect": "openai", "secret_name": "UPSTREAM_UNITS_KEY"}
        server = (await upstreams.make(operator, {**named, "base_url": sandbox.url}))["id"]
        for name, (path, prices) in ROUTES.items():
            pricing = {"prompt": "0", "completion": "0", **prices}
            route = {
                "model": f"ours/{token}-{name}",
                "upstream_id": server,
                "upstream_model": MODELS[path] + FAULTY.get(name, ""),
            }
            await catalog.put_route(operator, {**route, "pricing": pricing})
        await door.close()
        with before(sandbox, shared_database, **more) as gateway:
            async with staged(gateway, shared_database) as made:
                yield Units(made, token)


@pytest.fixture
def stage(units: Units) -> Stage:
    return units.stage


async def settled(stage: Stage, someone: Person) -> Row:
    row = await stage.row(someone)
    assert (row["state"], row["error_code"]) == ("settled", None)
    assert await stage.money(someone) == (NANOS_PER_CREDIT - row["charge_nanos"], 0)
    assert row["charge_nanos"] <= row["hold_nanos"]
    return row


@pytest.mark.parametrize("what", MADE)
async def test_what_is_charged_is_what_is_owed_with_its_markup(stage: Stage, what: str) -> None:
    someone, (path, body) = await stage.customer(10 * NANOS_PER_CREDIT, markup_ppm=100_000), MADE[what]
    before_it = stage.gateway.upstream.owed_nanos
    answer = await stage.post(someone, body, f"/v1{path}")
    assert answer.status_code == 200, answer.text
    owed = stage.gateway.upstream.owed_nanos - before_it
    row = await stage.row(someone)
    assert (row["state"], row["estimated"]) == ("settled", False)
    assert 0 < row["charge_nanos"] == -(-owed * 11 // 10) <= row["hold_nanos"]
    assert f'"cost":{row["charge_nanos"] / NANOS_PER_CREDIT:.9f}'.rstrip("0") in answer.text


@pytest.mark.parametrize("what", OURS)
async def test_a_server_of_our_own_is_charged_by_the_units_of_its_route(units: Units, what: str) -> None:
    stage, (body, nanos, kept) = units.stage, OURS[what]
    someone = await stage.customer(markup_ppm=0)
    answer = await stage.post(someone, units.body(what, **body), f"/v1{ROUTES[what][0]}")
    assert answer.status_code == 200, answer.text
    row = await settled(stage, someone)
    assert (row["charge_nanos"], row["cost_nanos"], row["estimated"]) == (nanos, nanos, False)
    assert {name: (row["usage"] or {}).get(name) for name in kept} == kept


async def test_the_hold_of_images_covers_the_dearest_at_openrouter_and_the_price_of_a_route_of_our_own(
    units: Units,
) -> None:
    stage, asked = units.stage, {"prompt": "x", "n": 4}
    rich, poor = await stage.customer(10 * NANOS_PER_CREDIT), await stage.customer(markup_ppm=0)
    there = {"model": "sandbox/painter", **asked}
    assert (await stage.post(rich, there, f"/v1{IMAGES}")).status_code == 200
    assert (await stage.row(rich))["hold_nanos"] >= 4 * REGISTER["output:image"].nanos
    refused = await stage.post(poor, there, f"/v1{IMAGES}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_credits")
    assert "output tokens" not in refused.json()["error"]["message"]
    here = units.body("dear-image", **asked)
    assert (await stage.post(poor, here, f"/v1{IMAGES}")).status_code == 200
    assert (await stage.row(poor))["hold_nanos"] == NANOS_PER_CREDIT
    assert await stage.money(poor) == (0, 0)
    assert (await stage.post(poor, here, f"/v1{IMAGES}")).status_code == 402


async def test_speech_comes_as_bytes_and_openrouters_record_says_what_it_cost(stage: Stage) -> None:
    someone = await stage.customer(markup_ppm=0)
    before_it = stage.gateway.upstream.owed_nanos
    answer = await stage.post(
        someone, {"model": "sandbox/voice", "input": TEXT, "response_format": "pcm"}, f"/v1{SPEECH}"
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/pcm;rate=24000;channels=1")
    assert len(answer.content) == 2 * SAMPLES * len(TEXT)
    assert "x-tollgate-charge-nanos" not in answer.headers
    row = await stage.row(someone)
    assert (row["state"], row["streamed"], row["generation_id"]) == (
        "unsettled",
        True,
        answer.headers["x-generation-id"],
    )
    await stage.sweep(someone)
    row = await settled(stage, someone)
    assert row["charge_nanos"] == stage.gateway.upstream.owed_nanos - before_it == len(TEXT) * 15_000
    assert (row["usage"]["characters"], row["basis"]) == (len(TEXT), "generation_record")


@pytest.mark.parametrize("has_key", [False, True])
async def test_speech_whose_client_leaves_is_charged_whole_since_its_text_was_read(units: Units, has_key: bool) -> None:
    stage, body = units.stage, units.body("slow-speech", input="x" * 100)
    someone, key = await stage.customer(markup_ppm=0), {"idempotency-key": "once"} if has_key else {}
    line = await Line.opened(stage.gateway.address)
    await line.ask(someone, body, f"/v1{SPEECH}", **key)
    assert await line.status() == 200
    await line.headers()
    await line.reader.read(1)
    line.hang_up()

    async def has_ended() -> bool:
        return [row["state"] for row in await stage.rows(someone)] == ["settled"]

    await eventually(has_ended)
    row = await stage.row(someone)
    assert (row["charge_nanos"], row["usage"], row["estimated"]) == (100 * 20_000, {"characters": 100}, False)
    assert row["error_code"] == "client_gone"
    if has_key:
        again = await stage.post(someone, body, f"/v1{SPEECH}", **key)
        assert (again.headers["idempotency-replayed"], again.headers["content-type"]) == ("true", "audio/mpeg")
        assert again.content.startswith(FRAME)


async def test_a_long_answer_is_not_stored_for_a_replay_and_a_short_one_is(units: Units) -> None:
    stage, someone = units.stage, await units.stage.customer()
    short, long = units.body("speech", input="x"), units.body("speech", input="x" * 2000, response_format="pcm")
    first, second = [await stage.post(someone, short, f"/v1{SPEECH}", **{"idempotency-key": "a"}) for _ in range(2)]
    assert first.content == second.content
    assert second.headers["idempotency-replayed"] == "true"
    whole = await stage.post(someone, long, f"/v1{SPEECH}", **{"idempotency-key": "b"})
    assert len(whole.content) > MOST_STORED_BYTES
    again = await stage.post(someone, long, f"/v1{SPEECH}", **{"idempotency-key": "b"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "answer_not_kept")
    assert len(await stage.rows(someone)) == 2


@pytest.mark.parametrize(("fault", "status"), [("moderation", 403), ("garbage", 502)])
async def test_speech_that_was_not_begun_costs_nothing(stage: Stage, fault: str, status: int) -> None:
    someone, headers = await stage.customer(), {"x-sandbox-fault": fault}
    answer = await stage.post(someone, {"model": "sandbox/voice", "input": TEXT}, f"/v1{SPEECH}", **headers)
    row = await stage.row(someone)
    assert (answer.status_code, row["state"], row["charge_nanos"]) == (status, "released", 0)
    assert await stage.money(someone) == (NANOS_PER_CREDIT, 0)


async def test_what_openrouter_never_states_the_cost_of_is_charged_at_the_hold_as_an_estimate(stage: Stage) -> None:
    someone, (path, body) = await stage.customer(), MADE["an image"]
    assert (await stage.post(someone, body, f"/v1{path}", **{"x-sandbox-fault": "no-usage,no-id"})).status_code == 200
    row = await settled(stage, someone)
    assert (row["charge_nanos"], row["estimated"], row["basis"]) == (row["hold_nanos"], True, "no_usage")


async def test_a_server_that_states_no_tokens_where_they_are_priced_is_charged_an_estimate(units: Units) -> None:
    stage, someone = units.stage, await units.stage.customer()
    body = units.body("silent-rerank", query="four", documents=["four"] * 3)
    assert (await stage.post(someone, body, f"/v1{RERANK}")).status_code == 200
    row = await settled(stage, someone)
    assert (row["estimated"], row["basis"]) == (True, "no_usage")
    assert 6000 < row["charge_nanos"] <= row["hold_nanos"]


@pytest.mark.parametrize(
    ("path", "model", "status", "code"),
    [
        (MODERATIONS, "sandbox/guard", 404, "endpoint_not_served"),
        (SPEECH, "speech-by-second", 400, "model_unpriced"),
        (SPEECH, "speech-by-token", 400, "model_unpriced"),
        (SPEECH, "image", 400, "model_unpriced"),
        (IMAGES, "speech", 400, "model_unpriced"),
        (RERANK, "speech", 400, "model_unpriced"),
        ("/chat/completions", "speech", 400, "model_unpriced"),
        ("/embeddings", "image", 400, "model_unpriced"),
    ],
)
async def test_what_could_not_be_charged_does_not_go_upstream(
    units: Units, path: str, model: str, status: int, code: str
) -> None:
    stage, someone = units.stage, await units.stage.customer()
    before_it = len(stage.gateway.upstream.generations())
    named = {"model": model} if "/" in model else units.body(model)
    body = {**named, "prompt": "x", "query": "x", "documents": ["x"], "messages": [{"role": "user", "content": "x"}]}
    answer = await stage.post(someone, body | {"input": "x"}, f"/v1{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"] == "model"
    assert path in answer.json()["error"]["message"]
    assert await stage.rows(someone) == []
    assert len(stage.gateway.upstream.generations()) == before_it


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (IMAGES, {"provider": {"options": {"x": {"num_images": 9}}}}),
        (IMAGES, {"tools": [{"type": "web_search"}]}),
        (SPEECH, {"input_references": [{"type": "input_audio"}]}),
        (RERANK, {"plugins": [{"id": "web"}]}),
    ],
)
async def test_what_may_cost_more_and_has_no_price_is_refused(stage: Stage, path: str, more: dict[str, Any]) -> None:
    body = {"model": MODELS[path], "prompt": "x", "input": "x", "query": "x", "documents": ["x"]}
    answer = await stage.post(await stage.customer(), body | more, f"/v1{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "extra_unpriced")


async def test_images_at_once_never_spend_more_than_the_balance(units: Units) -> None:
    stage, body = units.stage, units.body("dear-image", prompt="x", n=2)
    someone = await stage.customer(2 * NANOS_PER_CREDIT - 1, markup_ppm=0)
    answers = await asyncio.gather(*(stage.post(someone, body, f"/v1{IMAGES}") for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [402] * 9
    assert await stage.money(someone) == (NANOS_PER_CREDIT // 2 - 1, 0)
