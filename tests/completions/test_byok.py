"""Calls that go upstream with the org's own key: they cost the fee, and no other key is ever used in its place."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from csv import DictReader
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from completions.asks import AT_OPENROUTER, CALLS, COUNT, STREAMED, asking, path_of
from completions.paid import Line, admit, an_item, eventually, released, settle
from completions.stage import Row, Stage, before, erring, staged
from gateway import CHAT, Upstream
from people import Person
from sandbox.serving import a_chat, serving
from tollgate.catalog import store as catalog
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.keys.authentication import console
from tollgate.upstreams import store as upstreams
from upstreams.scripted import Play, Scripted, answer

VAULT_KEY = "5e" * 32
OURS = "sk-or-v1-of-the-tests"
OWN = "sk-or-v1-of-an-org-of-the-tests"
FEE = 1_000_000
"""The default of BYOK_FEE, in nanos."""
PRICING = {"prompt": "0.000001", "completion": "0.000001"}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "theirs",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


class Doorman:
    """Before OpenRouter: notes the key of each call, and refuses keys that end in -401 or -402."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.keys: list[str] = []
        self.looked_up: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/generation"):
            self.looked_up.append(scope["query_string"].decode())
        app = self._app
        if scope["method"] == "POST":
            key = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
            self.keys.append(key)
            if status := next((status for status in (401, 402) if key.endswith(f"-{status}")), None):
                app = JSONResponse({"error": {"code": status, "message": f"no, {key}"}}, status)
        await app(scope, receive, send)


class Place:
    def __init__(self, stage: Stage, doorman: Doorman, without_vault: Stage) -> None:
        self.stage = stage
        self.doorman = doorman
        self.without_vault = without_vault
        """The same, but the server has no VAULT_KEY."""

    async def customer(self, key: str | None = OWN, upstream: str = "openrouter", **more: Any) -> Person:
        someone = await self.stage.customer(**more)
        if key:
            stored = await self.ask("PUT", someone, f"/{upstream}", json={"key": key})
            assert stored.status_code == 200, stored.text
            assert key not in stored.text
        return someone

    async def ask(self, method: str, someone: Person, path: str = "", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {someone.secret}"}
        address = f"{self.stage.gateway.address}/user/upstream-keys{path}"
        return await self.stage.http.request(method, address, headers=headers, **more)

    async def keys_of(self, work: Awaitable[Any]) -> list[str]:
        """The keys with which the work called OpenRouter."""
        self.doorman.keys.clear()
        await work
        return list(self.doorman.keys)


@pytest.fixture(scope="module")
async def place(shared_database: str) -> AsyncIterator[Place]:
    with erring(("cut", "stall-before", "stall-after", "status=500", "garbage")) as sandbox:
        doorman = Doorman(sandbox.app)
        with (
            serving(doorman) as address,
            before(
                Upstream(sandbox.app, address), shared_database, VAULT_KEY=VAULT_KEY, PRIVATE_UPSTREAMS="true"
            ) as gateway,
            before(Upstream(sandbox.app, address), shared_database) as without,
        ):
            async with staged(gateway, shared_database) as stage, staged(without, shared_database) as other:
                yield Place(stage, doorman, other)


def error(answer: httpx.Response) -> dict[str, Any]:
    return dict(answer.json()["error"])


async def paid_the_fee(place: Place, someone: Person, fee: int = FEE) -> Row:
    row = await place.stage.row(someone)
    assert (row["state"], row["charge_nanos"], row["cost_nanos"], row["is_byok"]) == ("settled", fee, 0, True)
    assert (row["basis"], row["estimated"], row["quarantined"]) == ("byok_fee", False, False)
    assert await place.stage.charged(someone) == fee
    assert (await place.stage.money(someone))[1] == 0
    return row


@pytest.mark.parametrize("endpoint", AT_OPENROUTER)
async def test_a_call_goes_up_with_the_orgs_own_key_and_costs_the_fee(place: Place, endpoint: Endpoint) -> None:
    for body in (calls[endpoint] for calls in (CALLS, STREAMED) if endpoint in calls):
        someone = await place.customer(markup_ppm=50_000)
        assert await place.keys_of(place.stage.post(someone, body, path_of(endpoint))) == [OWN]
        row = await paid_the_fee(place, someone)
        assert (row["hold_nanos"], row["markup_ppm"], row["upstream"]) == (FEE, 0, "openrouter")
        assert row["completion_tokens"] > 0 or not ENDPOINTS[endpoint].generates


async def test_the_answer_states_the_fee_and_what_the_orgs_account_was_billed(place: Place) -> None:
    someone, usual = await place.customer(), await place.customer(key=None)
    answer = await place.stage.post(someone, a_chat(max_tokens=50))
    stated = (await place.stage.post(usual, a_chat(max_tokens=50))).json()["usage"]["cost"]
    assert answer.headers["x-tollgate-charge-nanos"] == str(FEE)
    usage = answer.json()["usage"]
    assert (usage["cost"], usage["upstream_cost"]) == (0.001, stated)
    (line,) = (await place.stage.post(someone, a_chat(stream=True, max_tokens=50))).text.split("\n\n")[-3:-2]
    usage = json.loads(line.removeprefix("data: "))["usage"]
    assert (usage["cost"], usage["upstream_cost"]) == (0.001, stated)

    async with place.stage.gateway.client(someone) as http:
        rows = (await http.get("/user/usage")).json()["data"]
        life = (await http.get(f"/user/usage/{rows[0]['id']}")).json()
        csv = (await http.get("/user/usage/export")).text
    assert [row["is_byok"] for row in rows] == [True, True]
    assert (life["settlement"]["basis"], life["settlement"]["charge_nanos"]) == ("byok_fee", FEE)
    assert [row["is_byok"] for row in DictReader(csv.splitlines())] == ["true", "true"]


async def test_one_orgs_key_serves_no_other_org(place: Place) -> None:
    someone, usual = await place.customer(), await place.customer(key=None)
    posts = [place.stage.post(one, a_chat(max_tokens=50)) for one in (someone, usual) * 5]
    keys = await place.keys_of(asyncio.gather(*posts))
    assert sorted(keys) == sorted([OWN, OURS] * 5)
    assert await place.stage.charged(someone) == 5 * FEE
    rows = await place.stage.rows(usual)
    assert {(row["is_byok"], row["charge_nanos"] == row["cost_nanos"] > 0) for row in rows} == {(False, True)}


async def test_without_its_key_an_org_pays_the_usual_price_again(place: Place) -> None:
    someone = await place.customer()
    assert (await place.ask("DELETE", someone, "/openrouter")).status_code == 200
    assert await place.keys_of(place.stage.post(someone, a_chat(max_tokens=50))) == [OURS]
    assert (await place.stage.row(someone))["cost_nanos"] > 0


@pytest.mark.parametrize("status", [401, 402])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_the_upstream_refuses_is_not_replaced_by_ours(place: Place, status: int, stream: bool) -> None:
    someone, usual = await place.customer(key=f"{OWN}-{status}"), await place.customer(key=None)
    for _ in range(12):
        answer = await place.stage.post(someone, a_chat(stream=stream, max_tokens=50))
        told = error(answer)
        assert (answer.status_code, told["code"], told["upstream_status"]) == (403, "upstream_key_refused", status)
        assert "/user/upstream-keys/openrouter" in told["message"]
        assert OWN not in answer.text
    assert set(place.doorman.keys[-12:]) == {f"{OWN}-{status}"}
    assert {row["state"] for row in await place.stage.rows(someone)} == {"released"}
    assert await place.stage.charged(someone) == 0
    # No breaker has opened, for this org or another.
    assert (await place.stage.post(usual, a_chat(max_tokens=50))).status_code == 200
    await place.ask("PUT", someone, "/openrouter", json={"key": OWN})
    assert (await place.stage.post(someone, a_chat(max_tokens=50))).status_code == 200


@pytest.mark.parametrize(
    ("fault", "state"),
    [("cut", "settled"), ("status=500", "released"), ("garbage", "released")],
)
async def test_who_got_something_pays_the_fee_and_who_got_nothing_pays_nothing(
    place: Place, fault: str, state: str
) -> None:
    someone = await place.customer()
    await place.stage.post(someone, a_chat(model=f"sandbox/fault-{fault}", stream=True, max_tokens=50))
    row = await place.stage.row(someone)
    assert (row["state"], row["charge_nanos"]) == (state, FEE if state == "settled" else 0)
    assert await place.stage.money(someone) == (10**9 - row["charge_nanos"], 0)


@pytest.mark.parametrize("fault", ["stall-before", "stall-after"])
async def test_who_leaves_while_the_upstream_works_pays_the_fee_at_once(place: Place, fault: str) -> None:
    someone, came = await place.customer(), len(place.doorman.keys)
    line = await Line.opened(place.stage.gateway.address)
    await line.ask(someone, a_chat(model=f"sandbox/fault-{fault}", stream=True, max_tokens=50))
    await eventually(lambda: len(place.doorman.keys) > came)
    if fault == "stall-after":
        await line.until(b"data: ")
    line.hang_up()

    async def has_ended() -> bool:
        return (await place.stage.row(someone))["state"] != "held"

    await eventually(has_ended)
    row = await paid_the_fee(place, someone)
    assert row["error_code"] == "client_gone"


async def test_the_fee_needs_credits_and_no_more_than_the_fee(place: Place) -> None:
    poor = await place.customer(nanos=FEE - 1)
    answer = await place.stage.post(poor, a_chat(max_tokens=8000))
    assert (answer.status_code, error(answer)["required_nanos"]) == (402, FEE)
    assert "fewer output tokens" not in error(answer)["message"]
    just, usual = await place.customer(nanos=FEE), await place.customer(key=None, nanos=FEE)
    assert (await place.stage.post(usual, a_chat(max_tokens=8000))).status_code == 402
    assert (await place.stage.post(just, a_chat(max_tokens=8000))).status_code == 200
    assert await place.stage.money(just) == (0, 0)
    assert (await place.stage.post(just, a_chat(max_tokens=10))).status_code == 402


async def test_the_fee_may_be_the_orgs_or_the_plans(place: Place) -> None:
    change = "update tollgate.{} set byok_fee_nanos = $2 where id = $1"
    someone = await place.customer()
    await place.stage.sql(change.format("orgs"), someone.org_id, 7)
    await place.stage.post(someone, a_chat(max_tokens=50))
    await paid_the_fee(place, someone, 7)
    other = await place.customer()
    await place.stage.sql(change.format("plans"), "enterprise", 0)
    try:
        await place.stage.post(other, a_chat(max_tokens=50))
    finally:
        await place.stage.sql(change.format("plans"), "enterprise", None)
    await paid_the_fee(place, other, 0)


async def test_counting_tokens_is_free_with_an_own_key_too(place: Place) -> None:
    someone = await place.customer()
    assert (await place.stage.post(someone, asking(COUNT), f"/v1{COUNT}")).status_code == 200
    assert await place.stage.charged(someone) == 0


async def test_an_admission_that_is_repeated_gets_the_key_again_and_none_that_was_stored_since(place: Place) -> None:
    with_key, without = await place.customer(), await place.customer(key=None)
    for someone, byok in ((with_key, {"fee_nanos": FEE, "only": True}), (without, None)):
        asked = an_item(someone, upstreams=[["openrouter"]], byok_fee_nanos=FEE)
        (first,) = await admit(place.stage.door, asked)
        await place.ask("PUT", someone, "/openrouter", json={"key": OWN})
        (again,) = await admit(place.stage.door, asked)
        for got in (first, again):
            given = got["granted"]["byok"]
            assert (given and {name: given[name] for name in ("fee_nanos", "only")}) == byok
            assert given is None or set(given["keys"]) == {"openrouter"}
        await settle(place.stage.door, released(asked))


async def test_a_call_whose_server_died_is_charged_the_fee_and_looked_up_nowhere(place: Place) -> None:
    someone = await place.customer()
    await place.stage.post(someone, a_chat(max_tokens=50))
    row = await place.stage.row(someone)
    admitted = (
        "insert into tollgate.requests (id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, markup_ppm,"
        " output_bound, reserved_tokens, price, upstream, generation_id, expires_at, is_byok)"
        " select 'req_of_a_dead_server_' || $1, org_id, key_id, user_id, 'held', endpoint, model, hold_nanos,"
        " markup_ppm, output_bound, 0, price, upstream, generation_id, now(), is_byok"
        " from tollgate.requests where org_id = $1"
    )
    await place.stage.sql(admitted, someone.org_id)
    await place.stage.sql(
        "insert into tollgate.holds (request_id, next_sweep_at) values ('req_of_a_dead_server_' || $1, now())",
        someone.org_id,
    )
    await place.stage.sql(
        "update tollgate.orgs set held_nanos = held_nanos + $2, open_requests = open_requests + 1 where id = $1",
        someone.org_id,
        FEE,
    )
    await place.stage.sweep(someone)
    dead = next(one for one in await place.stage.rows(someone) if one["id"] != row["id"])
    assert (dead["state"], dead["charge_nanos"], dead["cost_nanos"]) == ("settled", FEE, 0)
    assert (dead["estimated"], dead["basis"]) == (True, "no_trace")
    assert not [query for query in place.doorman.looked_up if dead["generation_id"] in query]


async def test_without_the_vaults_key_the_call_is_refused_and_not_made_with_ours(place: Place) -> None:
    someone, usual = await place.customer(), await place.customer(key=None)
    keys = await place.keys_of(place.without_vault.post(someone, a_chat(max_tokens=50)))
    assert keys == []
    answer = await place.without_vault.post(someone, a_chat(max_tokens=50), **{"idempotency-key": "again"})
    assert (answer.status_code, error(answer)["code"]) == (503, "vault_locked")
    assert "VAULT_KEY" in error(answer)["message"]
    assert {row["state"] for row in await place.stage.rows(someone)} == {"released"}
    assert await place.stage.money(someone) == (10**9, 0)
    assert (await place.without_vault.post(usual, a_chat(max_tokens=50))).status_code == 200
    assert (await place.stage.post(someone, a_chat(max_tokens=50), **{"idempotency-key": "again"})).status_code == 200


async def test_a_key_that_was_moved_to_another_org_in_the_database_is_not_used(place: Place) -> None:
    someone, thief = await place.customer(), await place.customer(key=f"{OWN}-of-the-thief")
    await place.stage.sql(
        "update tollgate.secrets t set sealed = s.sealed from tollgate.secrets s where t.org_id = $1 and s.org_id = $2",
        thief.org_id,
        someone.org_id,
    )
    assert await place.keys_of(place.stage.post(thief, a_chat(max_tokens=50))) == []
    answer = await place.stage.post(thief, a_chat(max_tokens=50))
    assert (answer.status_code, error(answer)["code"]) == (503, "vault_locked")


class Theirs:
    """A server at which orgs have accounts of their own, and the model that it serves."""

    def __init__(self, server: Scripted, upstream_id: str, model: str) -> None:
        self.server = server
        self.upstream_id = upstream_id
        self.model = model

    @property
    def keys(self) -> list[str | None]:
        return [line.headers.get("authorization") for line in self.server.seen]


@pytest.fixture
def theirs(place: Place) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def listening(*plays: Play, **more: Any) -> AsyncIterator[Theirs]:
        async with Scripted(*plays).listening() as server:
            operator = console(place.stage.door, "tests")
            address = f"http://127.0.0.1:{server.port}/v1"
            name = {"name": f"theirs-{server.port}", "dialect": "openai", "base_url": address}
            made = await upstreams.make(operator, {**name, "takes_org_keys": True, **more})
            model = f"theirs/{server.port}"
            route = {"model": model, "upstream_id": made["id"], "pricing": PRICING, "context_tokens": 4096}
            await catalog.put_route(operator, route)
            found = Theirs(server, made["id"], model)
            await seen_by_catalog(place, found)
            yield found
            await upstreams.delete(operator, made["id"], with_routes=True)

    return listening


def completion() -> Play:
    return answer(json.dumps(COMPLETION).encode())


async def test_an_upstream_without_a_key_of_ours_serves_orgs_with_their_own(place: Place, theirs: Any) -> None:
    async with theirs(completion(), secret_name="UPSTREAM_OF_NOBODY_KEY") as found:
        someone = await place.customer(upstream=found.upstream_id)
        usual = await place.customer(key=None)
        body = a_chat(model=found.model, max_tokens=20)
        refusal = await place.stage.post(usual, body)
        assert (refusal.status_code, error(refusal)["code"]) == (502, "upstream_unavailable")
        assert (await place.stage.post(someone, body)).status_code == 200
        assert found.keys == [f"Bearer {OWN}"]
        row = await paid_the_fee(place, someone)
        assert (row["prompt_tokens"], row["completion_tokens"], row["charged_price"]) == (5, 1, None)


async def test_a_refused_key_of_another_upstream_is_told_as_well(place: Place, theirs: Any) -> None:
    """There, 403 is about the key too."""
    async with theirs(answer(b'{"error":{"message":"no"}}', status=403)) as found:
        someone = await place.customer(upstream=found.upstream_id)
        refusal = await place.stage.post(someone, a_chat(model=found.model, max_tokens=20))
        assert (refusal.status_code, error(refusal)["upstream"]) == (403, found.upstream_id)
        assert error(refusal)["code"] == "upstream_key_refused"


async def test_a_model_that_a_vendor_does_not_have_is_no_fault_of_the_key(place: Place, theirs: Any) -> None:
    no_model = answer(b'{"error":{"message":"no such model","code":"model_not_found"}}', status=404)
    async with theirs(no_model, dialect="openai-platform") as found:
        someone = await place.customer(upstream=found.upstream_id)
        refusal = await place.stage.post(someone, a_chat(model=found.model, max_tokens=20))
        told = error(refusal)
        assert (refusal.status_code, told["code"], told["message"]) == (404, "model_not_found", "no such model")
        assert await place.stage.charged(someone) == 0


async def test_a_key_is_sent_to_no_other_address(place: Place, theirs: Any) -> None:
    """An operator moves the upstream, or says that it takes no keys any more: the key must be stored again."""
    async with Scripted(completion(), completion()).listening() as elsewhere, theirs() as found:
        someone = await place.customer(upstream=found.upstream_id)
        operator = console(place.stage.door, "tests")
        moved = {"base_url": f"http://127.0.0.1:{elsewhere.port}/v1"}
        body = a_chat(model=found.model, max_tokens=20)
        for change in ({"takes_org_keys": False}, {"takes_org_keys": True} | moved):
            await upstreams.change(operator, found.upstream_id, change)
            await seen_by_catalog(place, found)
            answer = await place.stage.post(someone, body)
            assert (answer.status_code, error(answer)["code"]) == (403, "upstream_key_outdated"), answer.text
        assert (found.server.seen, elsewhere.seen) == ([], [])
        assert await place.stage.charged(someone) == 0
        stored = await place.ask("PUT", someone, f"/{found.upstream_id}", json={"key": OWN})
        assert stored.status_code == 200
        assert (await place.stage.post(someone, body)).status_code == 200
        assert [line.headers["authorization"] for line in elsewhere.seen] == [f"Bearer {OWN}"]


async def seen_by_catalog(place: Place, found: Theirs) -> None:
    """Has the catalog read again, as the API does after a change."""
    admin = Person(place.stage.door, "admin")
    await admin.seed()
    async with place.stage.gateway.client(admin) as http:
        answer = await http.patch(f"/admin/upstreams/{found.upstream_id}", json={"state": "active"})
        assert answer.status_code == 200, answer.text


async def test_each_model_of_a_list_is_charged_by_the_key_that_served_it(place: Place, theirs: Any) -> None:
    """The org has a key for one of two upstreams: the usual worst case is held, and the other has the usual price."""
    async with theirs(completion(), takes_org_keys=False) as found:
        for first, second in ((found.model, "sandbox/echo"), ("sandbox/echo", found.model)):
            someone = await place.customer()
            body = a_chat(max_tokens=20) | {"model": first, "models": [first, second]}
            keys = await place.keys_of(place.stage.post(someone, body))
            if first == found.model:
                row = await place.stage.row(someone)
                assert (row["is_byok"], row["charge_nanos"], row["upstream"]) == (False, 6000, found.upstream_id)
                assert (keys, found.keys) == ([], [None])
            else:
                row = await paid_the_fee(place, someone)
                assert keys == [OWN]
            assert row["hold_nanos"] >= FEE


@pytest.mark.parametrize("path", [CHAT])
async def test_test_keys_are_free_and_use_no_key_of_the_org(place: Place, path: str) -> None:
    someone = await place.customer(environment="test", upstream="openrouter")
    keys = await place.keys_of(place.stage.post(someone, a_chat(max_tokens=20), path))
    assert OWN not in keys
    row = await place.stage.row(someone)
    assert (row["charge_nanos"], row["is_byok"], row["upstream"]) == (0, False, "sandbox")
