"""No secret anywhere: not in a log line, an answer, a row, or what goes upstream. The secrets here have no form that
could be recognised and hidden, and the logs are told of none: what is not found was never written."""

import contextlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from completions.asks import AT_OPENROUTER, CALLS, MESSAGES, SAYING, STREAMED, asking, path_of
from completions.stage import CRON_SECRET, Stage, before, erring, staged
from gateway import Upstream
from people import PEPPER, Person
from sandbox.serving import a_chat, serving
from tollgate.core.endpoints import ENDPOINTS
from tollgate.process import logs

CLIENTS = "chosen-canary-of-the-client-0a1b2c3d4e"
STRANGERS = "chosen-canary-of-a-stranger-5f6a7b8c9d"
OPENROUTERS = "canary-of-openrouter-without-a-form-1e2f3a"
ORGS_OWN = "canary-of-an-orgs-own-key-at-openrouter-4b5c"
VAULT_KEY = "c0ffee" * 10 + "c0de"
SECRETS = {"the client's key": CLIENTS, "a stranger's key": STRANGERS, "OpenRouter's key": OPENROUTERS,
           "the pepper": PEPPER, "the cron secret": CRON_SECRET,
           "an org's own key": ORGS_OWN, "the vault's key": VAULT_KEY}  # fmt: skip
FAULTS = (
    *(
        "status=401",
        "status=402",
        "status=429,retry-after=30",
        "status=500",
        "moderation",
        "cut",
        "garbage",
        "bad-json",
    ),
    *("redirect", "mid-stream-error", "no-usage", "negative-cost", "gzip-bomb=1", "set-cookie"),
)
BY_HEADER = [name for name in AT_OPENROUTER if ENDPOINTS[name].path not in SAYING]
"""The endpoints that do not meet each of the faults."""


class Wiretap:
    """Before an upstream: all that reaches it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.heads: list[dict[str, str]] = []
        self.targets: list[str] = []
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.heads.append({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})
        self.targets.append(f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}")

        async def listening() -> Message:
            message = await receive()
            self.body += message.get("body", b"")
            return message

        await self._app(scope, listening, send)


class Traces:
    """Everything that was written while many kinds of calls were made."""

    def __init__(self, stage: Stage, tap: Wiretap, log: io.StringIO) -> None:
        self.stage = stage
        self.tap = tap
        self.log = log
        self.answers: list[httpx.Response] = []

    async def call(self, someone: Person | None, body: Any, path: str = "/v1/chat/completions", **headers: str) -> None:
        asking = someone or a_stranger(self.stage)
        with contextlib.suppress(httpx.RemoteProtocolError):  # sound that breaks off
            self.answers.append(await self.stage.post(asking, body, path, **headers))


def a_stranger(stage: Stage) -> Person:
    stranger = Person(stage.door)
    stranger.secret = STRANGERS
    return stranger


@pytest.fixture(scope="module")
async def traces(shared_database: str) -> AsyncIterator[Traces]:
    with erring(FAULTS) as sandbox:
        tap = Wiretap(sandbox.app)
        with (
            serving(tap) as address,
            before(
                Upstream(sandbox.app, address), shared_database, OPENROUTER_API_KEY=OPENROUTERS, VAULT_KEY=VAULT_KEY
            ) as gateway,
        ):
            log = io.StringIO()
            logs.configure("debug", [], log)
            async with staged(gateway, shared_database) as stage:
                made = Traces(stage, tap, log)
                await everything(made)
                yield made


async def everything(traces: Traces) -> None:
    """Good calls, refused ones and broken ones; keys where they belong and where they do not."""
    someone = await traces.stage.customer(secret=CLIENTS)
    poor = await traces.stage.customer(nanos=0)
    await good(traces, someone)
    await with_an_own_key(traces, await traces.stage.customer())
    await wrong(traces, someone, poor)
    for fault in FAULTS:
        for stream in (False, True):
            for path in SAYING:
                body = asking(path, model=f"sandbox/fault-{fault}", stream=stream, max_tokens=20)
                await traces.call(someone, body, f"/v1{path}")
    for fault in ("", "status=401", "status=500", "moderation", "cut", "garbage", "set-cookie"):
        for name in BY_HEADER:
            for calls in (CALLS, STREAMED):
                if name in calls:
                    await traces.call(someone, calls[name], path_of(name), **{"x-sandbox-fault": fault})
    await traces.stage.sweep(someone)
    await traces.stage.sql("update tollgate.api_keys set revoked_at = now() where id = $1", someone.key_id)
    await traces.call(someone, a_chat())


async def good(traces: Traces, someone: Person) -> None:
    for name, body in CALLS.items():
        await traces.call(someone, body, path_of(name))
    for stream in (False, True):
        await traces.call(someone, a_chat(stream=stream), **{"x-tollgate-usage": "true"})
    await traces.call(someone, asking(MESSAGES), "/v1/messages", **{"authorization": "", "x-api-key": CLIENTS})
    await traces.call(someone, a_chat(), **{"authorization": "", "x-api-key": CLIENTS})
    await traces.call(someone, a_chat(), **{"authorization": f"bearer {CLIENTS}", "idempotency-key": "once"})
    await traces.call(someone, a_chat(), **{"authorization": f"bearer {CLIENTS}", "idempotency-key": "once"})
    await traces.call(someone, a_chat(), **{"cookie": f"key={CLIENTS}", "proxy-authorization": f"Bearer {CLIENTS}"})


async def with_an_own_key(traces: Traces, someone: Person) -> None:
    """Stored and listed, used, and refused by the upstream."""
    address = f"{traces.stage.gateway.address}/user/upstream-keys"
    headers = {"authorization": f"Bearer {someone.secret}"}
    for value in ("too-short", ORGS_OWN):
        answer = await traces.stage.http.put(f"{address}/openrouter", headers=headers, json={"key": value})
        traces.answers.append(answer)
    traces.answers.append(await traces.stage.http.get(address, headers=headers))
    for model in ("echo", *(f"fault-{fault}" for fault in ("status=500", "cut", "garbage", "status=401"))):
        for stream in (False, True):
            await traces.call(someone, a_chat(model=f"sandbox/{model}", stream=stream, max_tokens=20))


async def wrong(traces: Traces, someone: Person, poor: Person) -> None:
    await traces.call(None, a_chat())
    await traces.call(None, a_chat())
    await traces.call(None, a_chat(), authorization=f"Basic {CLIENTS}")
    await traces.call(None, a_chat(), authorization=f"Bearer {CLIENTS} {STRANGERS}")
    await traces.call(None, a_chat(), f"/v1/chat/completions?key={CLIENTS}&api_key={CLIENTS}")
    await traces.call(None, a_chat(), f"/v1/{CLIENTS}/chat/completions")
    await traces.call(None, b"", "/internal/sweep", authorization=f"Bearer {CLIENTS}")
    for path in SAYING:
        await traces.call(poor, asking(path), f"/v1{path}")
        await traces.call(None, asking(path), f"/v1{path}", authorization=f"Basic {CLIENTS}")
    await traces.call(someone, a_chat(max_tokens=10**9))
    await traces.call(someone, a_chat(api_key=CLIENTS))
    await traces.call(someone, a_chat(extra_headers={"authorization": CLIENTS}))
    await traces.call(someone, a_chat(model="nobody/knows"))
    await traces.call(someone, a_chat()["messages"])
    await traces.call(someone, b'{"model":NaN}')
    await traces.call(someone, json.dumps({CLIENTS: 1}).encode())


async def test_the_calls_were_of_many_kinds(traces: Traces) -> None:
    """Else nothing is proven."""
    statuses = {answer.status_code for answer in traces.answers}
    assert statuses >= {200, 400, 401, 402, 404, 429, 500, 502}
    codes = {answer.json()["error"]["code"] for answer in traces.answers if answer.status_code == 401}
    assert codes == {"invalid_api_key", "missing_api_key", "key_revoked"}
    assert len(traces.log.getvalue().splitlines()) > len(traces.answers)
    assert "upstream_refuses_us" in traces.log.getvalue()


@pytest.mark.parametrize("whose", SECRETS)
async def test_no_log_line_has_it(traces: Traces, whose: str) -> None:
    for line in traces.log.getvalue().splitlines():
        assert SECRETS[whose] not in line
        json.loads(line)


@pytest.mark.parametrize("whose", SECRETS)
async def test_no_answer_has_it(traces: Traces, whose: str) -> None:
    for answer in traces.answers:
        assert SECRETS[whose] not in answer.text
        assert all(SECRETS[whose] not in f"{name}: {value}" for name, value in answer.headers.items())


@pytest.mark.parametrize("whose", SECRETS)
async def test_no_row_has_it(traces: Traces, whose: str) -> None:
    searched = 0
    async for table, rows in tables(traces.stage.connection):
        searched += 1
        for row in rows:
            assert SECRETS[whose] not in row, table
    assert searched > 10


async def tables(connection: asyncpg.Connection) -> AsyncIterator[tuple[str, list[str]]]:
    """Every row of every table as one text, whatever its columns are; in no test's way."""
    names = await connection.fetch(
        "select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('tollgate', 'public') and c.relkind = 'r'"
    )
    for (name,) in names:
        found = await connection.fetch(f"select t::text as row from {name} t")
        yield name, [row for (row,) in found]


async def test_a_search_of_rows_would_find_it(traces: Traces) -> None:
    """What the client did send to be kept, its chosen idempotency key, is found."""
    found = {name async for name, rows in tables(traces.stage.connection) if any("once" in row for row in rows)}
    assert "tollgate.answers" in found


@pytest.mark.parametrize(
    "whose", ["the client's key", "a stranger's key", "the pepper", "the cron secret", "the vault's key"]
)
async def test_nothing_that_went_upstream_has_it(traces: Traces, whose: str) -> None:
    assert len(traces.tap.heads) > 2 * len(FAULTS)
    for head in traces.tap.heads:
        assert all(SECRETS[whose] not in f"{name}: {value}" for name, value in head.items())
    assert all(SECRETS[whose] not in target for target in traces.tap.targets)
    assert SECRETS[whose].encode() not in traces.tap.body


async def test_one_key_travels_in_one_header_to_openrouter_alone(traces: Traces) -> None:
    carried = set()
    for head in traces.tap.heads:
        carrying = {(name, key) for name, value in head.items() for key in (OPENROUTERS, ORGS_OWN) if key in value}
        assert carrying in ({("authorization", OPENROUTERS)}, {("authorization", ORGS_OWN)})
        carried |= {key for _, key in carrying}
    assert carried == {OPENROUTERS, ORGS_OWN}
    for key in (OPENROUTERS, ORGS_OWN):
        assert all(key not in target for target in traces.tap.targets)
        assert key.encode() not in traces.tap.body


async def test_no_cookie_and_no_address_of_the_client_travels(traces: Traces) -> None:
    for head in traces.tap.heads:
        assert not {"cookie", "x-forwarded-for", "forwarded", "x-real-ip", "x-api-key", "proxy-authorization"} & set(
            head
        )
