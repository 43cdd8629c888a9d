"""One request with all that is stored of it: GET /admin/usage/{id} and GET /user/usage/{id}."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from admin.api_client import unique
from completions.paid import HOLD, admit, an_item, database, settle, settled, unsettled
from completions.test_own_servers import PRICE, own_server
from gateway import BOTH_DOORS, Gateway, Upstream, running
from people import Person
from sandbox.serving import a_chat
from servers.relay import Relay
from tollgate.catalog import store as catalog
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.upstreams import store as upstreams
from tollgate.usage.request import basis
from upstreams.scripted import answer
from usage.test_contents import look

COSTS = {"cost_nanos", "cost_credits", "margin_nanos", "markup", "price", "fixed_cost", "output_token_cost", "why"}


@pytest.fixture
def keeping(wire: Relay, shared_database: str, sandbox: Upstream) -> Iterator[Gateway]:
    with running({**database(wire, shared_database), "LOG_CONTENT": "redacted"}, sandbox) as made:
        yield made


def names(found: Any) -> set[str]:
    """Of all members, at any depth."""
    if isinstance(found, list):
        return set[str]().union(*map(names, found))
    return set(found).union(*map(names, found.values())) if isinstance(found, dict) else set()


async def test_a_paid_call_is_shown_from_hold_to_refund(keeping: Gateway, customer: Any, person: Any) -> None:
    someone, admin = await customer(), await person("admin")
    for _ in range(3):
        paid = await keeping.post(someone, a_chat("hello"), **{"idempotency-key": "once"})
    request_id = paid.headers.get("x-tollgate-request-id") or (await only(keeping, someone))["id"]
    async with keeping.client(admin, **{"idempotency-key": unique("refund")}) as http:
        refund = {"request_id": request_id, "credits": "0.000000007", "reason": "sorry"}
        assert (await http.post("/admin/credits/refund", json=refund)).status_code == 200

    life = await look(keeping, admin, f"/admin/usage/{request_id}")
    assert life["org_name"] == "Org"
    assert life["state"] == "settled"
    hold, settlement = life["hold"], life["settlement"]
    assert hold["amount_nanos"] >= life["charge_nanos"] > 0
    assert (hold["is_open"], hold["next_look_at"], hold["looks"]) == (False, None, None)
    assert float(hold["output_token_cost"]) > 0
    assert settlement["basis"] == "stated_cost"
    assert settlement["usage"]["cost"]
    assert float(settlement["price"]["completion"]) > 0
    assert settlement["margin_nanos"] == life["charge_nanos"] - life["cost_nanos"]
    assert (settlement["refunded_nanos"], settlement["refundable_nanos"]) == (7, life["charge_nanos"] - 7)
    assert [(one["kind"], one["change_nanos"]) for one in life["transfers"]] == [
        ("charge", -life["charge_nanos"]), ("refund", 7),
    ]  # fmt: skip
    (attempt,) = life["attempts"]
    assert (attempt["upstream"], attempt["outcome"], attempt["status"]) == ("openrouter", "answered", 200)
    idempotency = life["idempotency"]
    assert (idempotency["key"], idempotency["answer"], idempotency["replays"]) == ("once", "kept", 2)
    assert idempotency["replayed_at"] > life["created_at"]
    assert life["content"] is None

    content = (await look(keeping, admin, f"/admin/usage/{request_id}", include="content"))["content"]
    assert content["prompt"] == "hello"
    query = {"action": "content.read", "org_id": someone.org_id}
    (read,) = (await look(keeping, admin, "/admin/audit-logs", **query))["data"]
    assert read["details"] == {"request_ids": [request_id]}


async def only(gateway: Gateway, someone: Person) -> Any:
    (row,) = (await look(gateway, someone, "/user/usage"))["data"]
    return row


async def test_its_org_sees_it_without_our_cost_and_no_other_org_does(
    keeping: Gateway, customer: Any, person: Any
) -> None:
    someone, stranger, admin = await customer(), await customer(), await person("admin")
    await keeping.post(someone, a_chat("hello"))
    row = await only(keeping, someone)
    life = await look(keeping, someone, f"/user/usage/{row['id']}")
    assert {name: life[name] for name in row} == row
    assert life["settlement"]["usage"]["prompt_tokens"] == row["prompt_tokens"]
    assert not names(life) & {*COSTS, "cost", "content", "events"}
    assert "hello" not in json.dumps(life)
    assert names(await look(keeping, admin, f"/admin/usage/{row['id']}")) >= COSTS
    for asking in (stranger, admin):
        refusal = await look(keeping, asking, f"/user/usage/{row['id']}", 404)
        assert refusal["error"]["kind"] == "request"
    await look(keeping, someone, f"/admin/usage/{row['id']}", 403)
    await look(keeping, someone, f"/user/usage/{row['id']}", 400, include="content")
    await look(keeping, admin, "/admin/usage/req_nobody_made", 404)


@BOTH_DOORS
async def test_an_open_request_says_when_the_sweeper_looks(gateway: Gateway, door: Door, customer: Any) -> None:
    someone = await customer()
    item = await unsettled(door, someone, "gen-1")
    life = await look(gateway, someone, f"/user/usage/{item['id']}")
    assert life["hold"]["amount_nanos"] == HOLD
    assert life["hold"]["is_open"] is True
    assert life["hold"]["next_look_at"] is not None
    assert (life["settlement"]["basis"], life["settlement"]["settled_at"], life["transfers"]) == (None, None, [])


async def test_a_correction_and_what_it_corrected_are_both_shown(
    gateway: Gateway, door: Door, customer: Any, person: Any
) -> None:
    someone, admin = await customer(), await person("admin")
    item = an_item(someone)
    await admit(door, item)
    await settle(door, settled(item, 50_000, estimated=True, basis="no_trace"))
    path = f"/admin/usage/{item['id']}"
    assert (await look(gateway, admin, path))["settlement"]["basis"] == "no_trace"
    await settle(door, settled(item, 21_000, basis="generation_record"))
    life = await look(gateway, admin, path)
    assert life["settlement"]["basis"] == "generation_record"
    assert [one["change_nanos"] for one in life["transfers"]] == [-50_000, 29_000]
    assert [event["action"] for event in life["events"]] == ["settlement.late"]


async def test_nonsense_is_quarantined_with_a_reason(gateway: Gateway, door: Door, customer: Any) -> None:
    someone = await customer()
    item = an_item(someone)
    await admit(door, item)
    await settle(door, settled(item, 10**18))
    life = await look(gateway, someone, f"/user/usage/{item['id']}")
    assert (life["quarantined"], life["settlement"]["basis"]) == (True, "out_of_range")


async def test_attempts_tell_what_failed_and_what_was_paid(shared_database: str) -> None:
    """A server that fails twice, and answers then at the price of its route."""
    good = answer(
        json.dumps({"model": "ours", "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "choices": []}).encode()
    )
    async with own_server(shared_database, "openai", answer(status=503), answer(status=503), good) as staged:
        stage, _, someone, body = staged
        operator = console(stage.door, "tests")
        server = {"name": "dear", "base_url": "http://127.0.0.1:9/v1", "dialect": "openai"}
        dear = {"model": body["model"], "pricing": {"prompt": "0.00001", "completion": "0.00001"}, "priority": 90}
        other = await upstreams.make(operator, server)
        await catalog.put_route(operator, dear | {"upstream_id": other["id"], "context_tokens": 4096})
        assert (await stage.post(someone, body | {"stream": False})).status_code == 200
        row = await stage.row(someone)
        life = await look(stage.gateway, someone, f"/user/usage/{row['id']}")
    tries = [(one["outcome"], one["error_code"]) for one in life["attempts"]]
    assert tries == [("failed", "upstream_busy"), ("failed", "upstream_busy"), ("answered", None)]
    assert [one["started_ms"] for one in life["attempts"]] == sorted(one["started_ms"] for one in life["attempts"])
    assert row["attempts"][0]["why"] == "HTTP 503"
    assert life["settlement"]["basis"] == "listed_price"
    assert Decimal(row["price"]["prompt"]) == 10_000
    assert {name: Decimal(nanos) for name, nanos in row["charged_price"].items()} == {
        "prompt": 1000,
        "completion": 1000,
    }
    assert row["charge_nanos"] == 7 * PRICE


def test_a_basis_follows_from_a_row_without_one() -> None:
    row: dict[str, Any] = {
        "settled_at": "then", "state": "settled", "upstream": "openrouter", "estimated": False, "quarantined": False,
        "charge_nanos": 105, "cost_nanos": 100, "settlement": {"basis": None, "usage": {"cost": "0.1"}},
    }  # fmt: skip
    assert basis(row) == "stated_cost"
    assert basis(row | {"upstream": "ups_1"}) == "listed_price"
    assert basis(row | {"upstream": "sandbox"}) == "free"
    assert basis(row | {"upstream": None, "charge_nanos": 0, "cost_nanos": 0}) == "free"
    assert basis(row | {"state": "released"}) == "released"
    assert basis(row | {"quarantined": True}) == "unknown"
    assert basis(row | {"settled_at": None}) is None
