"""Which model and which upstream a paid call gets: defaults, aliases, lists of orgs, ends of models, and vendors."""

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from completions.asks import MESSAGES
from completions.stage import Stage, before, erring, staged
from gateway import Gateway
from people import Person
from sandbox.serving import a_chat
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.upstreams.presets import PRESETS
from upstreams.scripted import Play, Scripted, answer, streamed

KEY = "sk-of-a-vendor"
DEFAULT = "sandbox/echo"
PRICING = {
    "prompt": "0.000001", "completion": "0.000002", "input_cache_read": "0.0000001", "input_cache_write": "0.00000125"
}  # fmt: skip
LAST_DAY = datetime.now(UTC).date() + timedelta(days=7)
CHAT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "theirs",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 12}},
    }
).encode()
CHAT_NANOS = 8 * 1000 + 12 * 100 + 5 * 2000
MESSAGE_USAGE = {
    "input_tokens": 8, "cache_read_input_tokens": 12, "cache_creation_input_tokens": 4, "output_tokens": 5
}  # fmt: skip
MESSAGE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "theirs",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": MESSAGE_USAGE,
    }
).encode()
MESSAGE_NANOS = 8 * 1000 + 12 * 100 + 4 * 1250 + 5 * 2000


@pytest.fixture(scope="module")
def gateway(shared_database: str) -> Iterator[Gateway]:
    keys = {preset.secret_name: KEY for preset in PRESETS.values()}
    more = {"PRIVATE_UPSTREAMS": "true", "DEFAULT_MODEL": DEFAULT, **keys}
    with erring([]) as upstream, before(upstream, shared_database, **more) as made:
        yield made


class Office:
    """An operator, and what it has made."""

    def __init__(self, stage: Stage, operator: Person) -> None:
        self.stage = stage
        self.operator = operator
        self.made: list[str] = []

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.operator.secret}"}
        sent = await self.stage.http.request(method, self.stage.gateway.address + path, headers=headers, json=body)
        assert sent.status_code < 300, sent.text
        return sent.json()

    async def upstream(self, server: Scripted, **given: Any) -> str:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        found = await self.ask("POST", "/admin/upstreams", {"name": "theirs", "base_url": base_url, **given})
        self.made.append(f"/admin/upstreams/{found['id']}?routes=true")
        return str(found["id"])

    async def model(self, server: Scripted, upstream: Any = None, **given: Any) -> str:
        """A model that this server serves."""
        upstream_id = await self.upstream(server, **(upstream or {"dialect": "vllm"}))
        name = f"ours/{secrets.token_hex(6)}"
        route = {"model": name, "upstream_id": upstream_id, "pricing": PRICING, "context_tokens": 8192, **given}
        await self.ask("POST", "/admin/models/registry", route)
        return name

    async def alias(self, *targets: dict[str, Any], **given: Any) -> str:
        name = f"alias-{secrets.token_hex(6)}"
        await self.ask("POST", "/admin/models/aliases", {"name": name, "targets": list(targets), **given})
        self.made.append(f"/admin/models/aliases/{name}")
        return name


@pytest.fixture
async def office(gateway: Gateway, shared_database: str) -> AsyncIterator[Office]:
    async with staged(gateway, shared_database) as stage:
        operator = Person(stage.door, role="admin")
        await operator.seed()
        made = Office(stage, operator)
        yield made
        for path in made.made:
            await made.ask("DELETE", path)


@contextlib.asynccontextmanager
async def serving(*plays: Play) -> AsyncIterator[Scripted]:
    async with Scripted(*plays or (answer(CHAT),)).listening() as server:
        yield server


async def called(office: Office, someone: Person, body: Any, path: str = "/v1/chat/completions") -> Any:
    sent = await office.stage.post(someone, body, path)
    assert sent.status_code == 200, sent.text
    return sent


async def test_a_call_without_a_model_gets_the_orgs_default_or_the_settings(office: Office) -> None:
    stage, someone = office.stage, await office.stage.customer()
    body = {name: value for name, value in a_chat("Hello").items() if name != "model"}
    assert (await called(office, someone, body)).json()["model"] == DEFAULT
    batch = await called(office, await stage.customer(), {"prompts": ["Hello"]}, "/v1/generate/batch")
    assert batch.json()["results"][0]["model"] == DEFAULT
    async with serving() as server:
        model = await office.model(server)
        await office.ask("PATCH", f"/admin/orgs/{someone.org_id}", {"default_model": model})
        again = [await stage.post(someone, body, **{"idempotency-key": "once"}) for _ in range(2)]
        assert [sent.json()["model"] for sent in again] == ["theirs", "theirs"]
        (line,) = server.seen
        assert line.document["model"] == model
    assert [row["model"] for row in await stage.rows(someone)] == [DEFAULT, model]
    for path, place in (("/user/limit", "models"), ("/v1/models?limit=1", None)):
        found = (await stage.http.get(
            stage.gateway.address + path, headers={"authorization": f"Bearer {someone.secret}"}
        )).json()  # fmt: skip
        assert (found[place] if place else found)["default_model"] == model


async def test_a_key_keeps_its_target_and_a_session_has_its_own(office: Office) -> None:
    async with serving() as one, serving() as other:
        models = [await office.model(server) for server in (one, other)]
        name = await office.alias(*({"model": model} for model in models))
        someone = await office.stage.customer()
        for _ in range(3):
            await called(office, someone, a_chat("Hello", name))
        rows = await office.stage.rows(someone)
        assert {len(one.seen), len(other.seen)} == {0, 3}
        assert {(row["alias"], row["model"]) for row in rows} == {(name, models[0] if one.seen else models[1])}
        assert len({row["upstream"] for row in rows}) == 1
        for session in (*range(20), *range(6)):
            await called(office, someone, a_chat("Hello", name, session_id=f"session-{session}"))
        sessions = [[line.document.get("session_id") for line in server.seen] for server in (one, other)]
        assert set(sessions[0]) & set(sessions[1]) <= {None}
        assert all(any(session for session in seen) for seen in sessions), "both targets have sessions"


async def test_one_model_on_two_upstreams_can_be_compared(office: Office) -> None:
    async with serving() as one, serving() as other:
        model = await office.model(one)
        second = await office.upstream(other, dialect="vllm")
        await office.ask("POST", "/admin/models/registry", {"model": model, "upstream_id": second, "pricing": PRICING})
        name = await office.alias({"model": model, "upstream_id": second})
        someone = await office.stage.customer()
        for _ in range(4):
            await called(office, someone, a_chat("Hello", name))
        assert (len(one.seen), len(other.seen)) == (0, 4)
        assert {row["upstream"] for row in await office.stage.rows(someone)} == {second}


async def test_a_target_that_fails_is_replaced_by_the_fallbacks_in_their_order(office: Office) -> None:
    async with serving(answer(b"{}", status=500)) as broken, serving() as works:
        first, last = await office.model(broken), await office.model(works, priority=1)
        name = await office.alias({"model": first}, fallbacks=[last, DEFAULT])
        someone = await office.stage.customer()
        await called(office, someone, a_chat("Hello", name))
        assert (len(broken.seen), len(works.seen)) == (1, 1)
        row = await office.stage.row(someone)
        assert (row["model"], row["alias"], row["charge_nanos"]) == (first, name, CHAT_NANOS)


async def test_openrouter_is_told_the_fallbacks_that_it_serves(office: Office) -> None:
    name = await office.alias({"model": "sandbox/echo"}, fallbacks=["sandbox/reasoner"])
    named = {"name": name, "fallbacks": ["no/such", "sandbox/reasoner"]}
    assert (await office.ask("POST", "/admin/models/aliases", named))["not_served"] == ["no/such"]
    someone = await office.stage.customer()
    sent = await called(office, someone, a_chat("Hello", name))
    assert sent.json()["model"] == "sandbox/echo"
    assert (await office.stage.row(someone))["model"] == "sandbox/echo"


async def test_no_alias_widens_what_org_and_key_may_use(office: Office) -> None:
    name = await office.alias({"model": "sandbox/echo"}, fallbacks=["sandbox/reasoner"])
    stage, narrow = office.stage, await office.stage.customer()
    await stage.sql(
        "update tollgate.api_keys set allowed_models = $2 where id = $1", narrow.key_id, [name, "sandbox/echo"]
    )
    refused = await stage.post(narrow, a_chat("Hello", name))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert refused.json()["error"]["model"] == "sandbox/reasoner"

    someone = await stage.customer()
    await office.ask("PATCH", f"/admin/orgs/{someone.org_id}", {"allowed_models": ["sandbox/echo*"]})
    await called(office, someone, a_chat("Hello", "sandbox/echo"))
    for model in (name, "sandbox/reasoner"):
        error = (await stage.post(someone, a_chat("Hello", model))).json()["error"]
        assert (error["code"], error["of"]) == ("model_not_allowed", "org")
        assert error["message"].startswith("The org of this API key")
    key = {"authorization": f"Bearer {someone.secret}"}
    found = (await stage.http.get(stage.gateway.address + "/v1/models", headers=key)).json()
    ids = [model["id"] for model in found["data"]]
    assert [id_ for id_ in ids if id_.startswith("sandbox/")] == ["sandbox/echo"]  # aliases are other tests', too
    gone = await stage.http.get(stage.gateway.address + "/v1/models/sandbox/reasoner", headers=key)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    limits = (await stage.http.get(stage.gateway.address + "/user/limit", headers=key)).json()
    assert limits["models"]["allowed_of_org"] == ["sandbox/echo*"]


async def test_an_answer_tells_the_end_of_its_model_and_afterwards_there_is_none(office: Office) -> None:
    async with serving(answer(CHAT)) as server:
        ends = {"deprecated_on": "2026-01-02", "retires_on": str(LAST_DAY), "replacement": "ours/next"}
        model = await office.model(server, **ends)
        someone = await office.stage.customer()
        sent = await called(office, someone, a_chat("Hello", model))
        assert sent.headers["deprecation"] == "@1767312000"
        assert sent.headers["sunset"].startswith((LAST_DAY + timedelta(days=1)).strftime("%a, %d %b %Y 00:00:00"))
        assert sent.headers["x-tollgate-replacement"] == "ours/next"
        over = await office.alias({"model": model}, retires_on="2026-01-31", replacement="ours/next")
        error = (await office.stage.post(someone, a_chat("Hello", over))).json()["error"]
        assert (error["code"], error["expired_on"], error["replacement"]) == (
            "model_not_found", "2026-01-31", "ours/next"
        )  # fmt: skip
        assert "Use ours/next instead" in error["message"]
        assert len(server.seen) == 1


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "anthropic"])
async def test_a_vendor_is_paid_by_its_tokens_and_those_of_its_cache_by_their_price(
    office: Office, preset: str
) -> None:
    async with serving() as server:
        model = await office.model(server, {"preset": preset}, upstream_model="theirs")
        someone = await office.stage.customer()
        sent = await called(office, someone, a_chat("Hello", model, provider={"sort": "price"}))
        (line,) = server.seen
        assert line.headers.get("api-key" if preset == "azure-openai" else "authorization", "").endswith(KEY)
        assert (line.document["model"], "provider" in line.document) == ("theirs", False)
        row = await office.stage.row(someone)
        assert (row["charge_nanos"], row["cost_nanos"], row["state"]) == (CHAT_NANOS, CHAT_NANOS, "settled")
        assert sent.headers["x-tollgate-charge-nanos"] == str(CHAT_NANOS)


async def test_anthropic_is_paid_for_what_its_cache_read_and_wrote(office: Office) -> None:
    events = [
        {"type": "message_start", "message": {"model": "theirs", "usage": {**MESSAGE_USAGE, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]  # fmt: skip
    written = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    async with serving(answer(MESSAGE), streamed(*written)) as server:
        model = await office.model(server, {"preset": "anthropic"})
        someone = await office.stage.customer()
        for stream in (False, True):
            body = a_chat("Hello", model, max_tokens=50, stream=stream)
            await called(office, someone, body, f"/v1{MESSAGES}")
        assert [line.target for line in server.seen] == ["/v1/messages"] * 2
        assert {line.headers["x-api-key"] for line in server.seen} == {KEY}
        assert [row["charge_nanos"] for row in await office.stage.rows(someone)] == [MESSAGE_NANOS] * 2


async def test_a_vendor_is_not_asked_for_what_it_lacks_or_would_bill_apart(office: Office) -> None:
    async with serving() as server:
        model = await office.model(server, {"preset": "anthropic"})
        stage, someone = office.stage, await office.stage.customer()
        lacking = await stage.post(someone, {"model": model, "input": "Hello"}, "/v1/embeddings")
        assert (lacking.status_code, lacking.json()["error"]["code"]) == (404, "endpoint_not_served")
        search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}
        body = a_chat("Hello", model, max_tokens=50, tools=[search])
        dear = await stage.post(someone, body, f"/v1{MESSAGES}")
        assert (dear.status_code, dear.json()["error"]["code"]) == (400, "extra_unpriced")
        assert (server.seen, await stage.money(someone)) == ([], (NANOS_PER_CREDIT, 0))
