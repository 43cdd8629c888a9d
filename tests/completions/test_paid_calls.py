"""Paid calls as a client makes them: through the whole server, to a sandbox that keeps a ledger of its own."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from completions.paid import eventually
from gateway import BOTH_DOORS, Gateway
from people import Person
from sandbox.serving import a_chat, payloads, until
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.process import logs

Customer = Callable[..., Any]

STREAMED = {"stream": True}


async def money(someone: Person) -> tuple[int, int]:
    """What is on the org's balance, and what of it is held."""
    found = await credits.balance(someone.at_the_door())
    return found["balance_nanos"], found["held_nanos"]


async def row(sql: Any, database: str, someone: Person) -> dict[str, Any]:
    """The org's only request."""
    rows = json.loads(
        await sql(database, "select json_agg(r) from tollgate.requests r where org_id = $1", someone.org_id)
    )
    assert len(rows) == 1
    return dict(rows[0])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions"])
async def test_a_completion_is_charged_what_it_cost(
    gateway: Gateway, customer: Customer, sql: Any, shared_database: str, path: str
) -> None:
    someone = await customer()
    answer = await gateway.post(someone, a_chat(), path)
    assert answer.status_code == 200
    owed = gateway.upstream.owed_nanos
    assert owed > 0
    assert answer.headers["x-tollgate-charge-nanos"] == str(owed)
    assert answer.headers["x-tollgate-balance-nanos"] == str(NANOS_PER_CREDIT - owed)
    assert answer.headers["x-tollgate-request-id"] == (await row(sql, shared_database, someone))["id"]
    assert "x-tollgate-max-tokens" not in answer.headers
    assert await money(someone) == (NANOS_PER_CREDIT - owed, 0)


@BOTH_DOORS
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "sandbox/echo", "prompt": "hello there", "stream": True}),
        ("/api/v1/embeddings", {"model": "sandbox/embed", "input": ["hello", "there"]}),
        ("/v1/chat/completions", a_chat(n=3)),
    ],
)
async def test_every_kind_of_call_is_charged_what_it_cost(
    gateway: Gateway, customer: Customer, path: str, body: dict[str, Any]
) -> None:
    someone = await customer()
    answer = await gateway.post(someone, body, path)
    assert answer.status_code == 200, answer.text
    assert 0 < gateway.upstream.owed_nanos < NANOS_PER_CREDIT
    assert await money(someone) == (NANOS_PER_CREDIT - gateway.upstream.owed_nanos, 0)


async def test_a_stream_is_settled_before_its_last_bytes(gateway: Gateway, customer: Customer) -> None:
    someone = await customer()
    body = a_chat(stream=True)
    async with gateway.client(someone) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        seen = b""
        async for piece in answer.aiter_raw():
            seen += piece
            if b"[DONE]" in seen:
                left = await money(someone)
                await eventually(gateway.upstream.all_ended)
                assert left == (NANOS_PER_CREDIT - gateway.upstream.owed_nanos, 0)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert seen.endswith(b"data: [DONE]\n\n")


async def test_the_charge_goes_into_the_last_chunk_for_those_who_ask(gateway: Gateway, customer: Customer) -> None:
    someone = await customer()
    answer = await gateway.post(someone, a_chat(stream=True), **{"x-tollgate-usage": "true"})
    *_, last, done = payloads(answer.text)
    assert done == "[DONE]"
    told = json.loads(last)["usage"]["tollgate"]
    owed = gateway.upstream.owed_nanos
    assert told == {
        "charge_nanos": owed,
        "balance_nanos": NANOS_PER_CREDIT - owed,
        "request_id": answer.headers["x-request-id"],
    }


async def test_an_empty_balance_is_refused_and_says_what_it_could_afford(gateway: Gateway, customer: Customer) -> None:
    someone = await customer(nanos=500_000)
    answer = await gateway.post(someone, a_chat(max_tokens=1_000))
    assert answer.status_code == 402
    error = answer.json()["error"]
    assert error["code"] == "insufficient_credits"
    assert error["available_nanos"] == 500_000
    assert error["required_nanos"] > 500_000
    assert 0 < error["affordable_output_tokens"] < 1_000
    again = await gateway.post(someone, a_chat(max_tokens=error["affordable_output_tokens"]))
    assert again.status_code == 200


async def test_a_quota_serves_what_fits_and_says_what_is_left_for_what_does_not(
    gateway: Gateway, customer: Customer, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    await sql(shared_database, "update tollgate.api_keys set tokens_per_month = 50 where id = $1", someone.key_id)
    refused = (await gateway.post(someone, a_chat("x", max_tokens=100))).json()["error"]
    assert (refused["code"], refused["left"], refused["limit"]) == ("quota_exhausted", 50, 50)
    assert f"needs {refused['needed']} tokens, and 50 are left" in refused["message"]
    assert (await gateway.post(someone, a_chat("Say hello.", max_tokens=20))).status_code == 200


async def test_an_open_bound_shrinks_to_the_balance_and_is_sent_upstream(gateway: Gateway, customer: Customer) -> None:
    someone = await customer(nanos=200_000)
    answer = await gateway.post(someone, a_chat(model="sandbox/words"))
    assert answer.status_code == 200
    (generation,) = gateway.upstream.generations()
    assert 16 <= generation["parameters"]["max_completion_tokens"] < 200
    balance, held = await money(someone)
    assert balance >= 0
    assert held == 0


async def test_a_bound_that_the_model_has_anyway_is_not_sent(gateway: Gateway, customer: Customer) -> None:
    someone = await customer()
    await gateway.post(someone, a_chat())
    (generation,) = gateway.upstream.generations()
    assert "max_tokens" not in generation["parameters"]
    assert "max_completion_tokens" not in generation["parameters"]


async def test_a_wrong_key_is_refused(gateway: Gateway, customer: Customer) -> None:
    someone = await customer()
    someone.secret = someone.secret[:-1] + ("a" if someone.secret[-1] != "a" else "b")
    assert (await gateway.post(someone, a_chat())).json()["error"]["code"] == "invalid_api_key"
    nobody = Person(someone.door)
    for _ in range(2):
        answer = await gateway.post(nobody, a_chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_an_unknown_model_is_refused(gateway: Gateway, customer: Customer) -> None:
    someone = await customer()
    answer = await gateway.post(someone, a_chat(model="nobody/knows"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("fault", ["status=400", "status=401", "cut", "garbage"])
async def test_whatever_a_test_key_meets_is_the_sandbox_s_and_no_error_in_the_log(
    gateway: Gateway, customer: Customer, shared_database: str, sql: Any, fault: str
) -> None:
    someone, out = await customer(environment="test"), io.StringIO()
    logs.configure("warning", [], out)
    answer = await gateway.post(someone, a_chat(), **{"x-sandbox-fault": fault})
    assert answer.status_code >= 400
    assert (await row(sql, shared_database, someone))["upstream"] == "sandbox"
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {line["level"] for line in lines if "library" not in line} <= {"warning"}  # the sandbox has its own server
    assert "Traceback" not in out.getvalue()


async def test_a_test_key_reaches_the_sandbox_and_pays_nothing(gateway: Gateway, customer: Customer) -> None:
    someone = await customer(environment="test")
    answer = await gateway.post(someone, a_chat())
    assert answer.status_code == 200
    assert answer.headers["x-tollgate-charge-nanos"] == "0"
    assert await money(someone) == (NANOS_PER_CREDIT, 0)


async def test_a_client_that_leaves_stops_the_upstream_and_is_charged_what_was_said(
    gateway: Gateway, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    body = a_chat(model="sandbox/words", max_tokens=100_000, stream=True)
    async with gateway.client(someone) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for _ in answer.aiter_raw():
            break

    async def is_unsettled() -> bool:
        return (await row(sql, shared_database, someone))["state"] == "unsettled"

    await until(is_unsettled)
    found = await row(sql, shared_database, someone)
    assert found["error_code"] == "client_gone"
    await eventually(gateway.upstream.all_ended)
    (generation,) = gateway.upstream.generations()
    assert generation["cancelled"]
    assert generation["completion_tokens"] < 100_000


async def test_the_limits_are_told(gateway: Gateway, customer: Customer) -> None:
    someone = await customer(plan="pro")
    answer = await gateway.post(someone, a_chat(max_tokens=10))
    assert answer.headers["x-ratelimit-limit-requests"] == "600"
    assert answer.headers["x-ratelimit-remaining-requests"] == "599"
    used = answer.json()["usage"]["total_tokens"]
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(2_000_000 - used)
    stream = await gateway.post(someone, a_chat(max_tokens=10, stream=True))
    assert int(stream.headers["x-ratelimit-remaining-tokens"]) < 2_000_000 - 2 * used - 10
