"""Proves Tollgate against a real inference server: what it charges is what the server itself counted.

    UPSTREAM_KEY=… python tools/prove_self_hosted.py --dialect vllm --url http://127.0.0.1:18000/v1 --model tiny

Starts Tollgate with a database of its own in a temporary folder, makes an upstream and a route as an operator would,
and sends plain calls, streams, cut streams and mistakes. Prints a line for each, and ends with 1 if one is wrong.
Embeddings are tried where --embeddings says that the server has them.
"""

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tollgate import settings
from tollgate.app import compose
from tollgate.catalog import store as catalog
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database import embedded, migrations
from tollgate.keys import rules
from tollgate.keys import store as keys
from tollgate.keys.authentication import console
from tollgate.process import server
from tollgate.settings import Settings
from tollgate.upstreams import store as upstreams

PRICING = {"prompt": "0.00000025", "completion": "0.00000125"}
CREDITS = 100
CONTEXT = 2048
KEY_VARIABLE = "UPSTREAM_KEY"
CUT_AFTER = 8
SETTLED_WITHIN_SECONDS = 60
START_SECONDS = 60


class Proof:
    def __init__(self, client: httpx.AsyncClient, database: asyncpg.Connection, model: str) -> None:
        self._client = client
        self._database = database
        self._model = model
        self.wrong = 0

    async def plain(self, name: str, **more: Any) -> None:
        answer = await self._client.post("/v1/chat/completions", json=self._chat(**more))
        usage = answer.json().get("usage") or {}
        self._tell(name, answer.status_code == 200 and self._agrees(usage, answer.headers), answer, usage)

    async def completion(self) -> None:
        body = {"model": self._model, "prompt": "Once upon a time", "max_tokens": 24}
        answer = await self._client.post("/v1/completions", json=body)
        usage = answer.json().get("usage") or {}
        self._tell("text completion", answer.status_code == 200 and self._agrees(usage, answer.headers), answer, usage)

    async def embedding(self) -> None:
        body = {"model": self._model, "input": ["one two three", "four"]}
        answer = await self._client.post("/v1/embeddings", json=body)
        usage = answer.json().get("usage") or {}
        self._tell("embeddings", answer.status_code == 200 and self._agrees(usage, answer.headers), answer, usage)

    async def stream(self, name: str, *, asked: bool) -> None:
        """Whether or not the client asks for the usage, it is charged by it; only who asks gets to see it."""
        options = {"stream_options": {"include_usage": True}} if asked else {}
        answer = await self._client.post("/v1/chat/completions", json=self._chat(stream=True, **options))
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        shown = [usage for event in events if (usage := json.loads(event).get("usage"))]
        row = await self._settled()
        whole = answer.text.rstrip().endswith("data: [DONE]") and bool(shown) == asked
        agrees = row["charge_nanos"] == charge(row["prompt_tokens"], row["completion_tokens"])
        seen = not asked or shown[-1]["completion_tokens"] == row["completion_tokens"]
        self._tell(name, whole and agrees and seen and not row["estimated"], answer, row)

    async def choices(self, *, apart: bool) -> None:
        """Of a stream, the usages of all choices together. llama.cpp states each apart, and in a plain answer that of
        the first, so the charge is more."""
        options = {"stream_options": {"include_usage": True}}
        answer = await self._client.post("/v1/chat/completions", json=self._chat(n=2, stream=True, **options))
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        usages = [event["usage"] for event in events if event.get("usage")]
        row = await self._settled()
        made = sum(usage["completion_tokens"] for usage in usages)
        agrees = row["charge_nanos"] == charge(usages[-1]["prompt_tokens"], made) and not row["estimated"]
        self._tell("stream, two choices", agrees and len(usages) == (2 if apart else 1), answer, row)
        if apart:
            await self._first_choice_apart()
        else:
            await self.plain("chat, two choices", n=2)

    async def _first_choice_apart(self) -> None:
        answer = await self._client.post("/v1/chat/completions", json=self._chat(n=2))
        row = await self._row()
        first = answer.json()["usage"]
        enough = (
            row["completion_tokens"] > first["completion_tokens"] and row["prompt_tokens"] == first["prompt_tokens"]
        )
        self._tell("chat, two choices", enough and row["estimated"], answer, row)

    async def cut(self) -> None:
        """Charged by the server's own counts so far where it tells them, else by an estimate that is no lower."""
        body = self._chat(stream=True, max_tokens=1500)
        events = 0
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                events += line.startswith("data: {")
                if events >= CUT_AFTER:
                    break
        row = await self._settled()
        agrees = row["charge_nanos"] == charge(row["prompt_tokens"], row["completion_tokens"])
        paid = row["completion_tokens"] >= CUT_AFTER - 2 and row["charge_nanos"] <= row["hold_nanos"]
        stopped = row["estimated"] or row["completion_tokens"] <= 1500
        self._tell("cut stream", agrees and paid and stopped and row["state"] == "settled", answer, row)

    async def left_before_its_usage(self) -> None:
        """Who reads every word and leaves before the usage pays what the same answer costs in whole, or an estimate
        that is no lower. The seed makes the two answers one."""
        body = self._chat(stream=True, temperature=0, seed=1)
        await self._client.post("/v1/chat/completions", json=body)
        whole = await self._row()
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if '"finish_reason":"' in line.replace(" ", ""):
                    break
        row = await self._settled()
        enough = row["state"] == "settled" and whole["charge_nanos"] <= row["charge_nanos"] <= row["hold_nanos"]
        self._tell("left before the usage", enough, answer, row)

    async def refused(self, name: str, *statuses: int, **body: Any) -> None:
        before = await self._balance()
        answer = await self._client.post("/v1/chat/completions", json=body)
        error = answer.json().get("error") or {}
        fair = answer.status_code in statuses and bool(error.get("message")) and await self._balance() == before
        self._tell(name, fair, answer, {"message": error.get("message", "")[:80]})

    def _chat(self, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Tell me about the sea."}]
        return {"model": self._model, "messages": messages, "max_tokens": 32, **more}

    def _agrees(self, usage: dict[str, Any], headers: httpx.Headers) -> bool:
        counted = charge(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        return headers.get("x-tollgate-charge-nanos") == str(counted) and counted > 0

    async def _row(self) -> dict[str, Any]:
        return dict(await self._database.fetchrow("select * from tollgate.requests order by created_at desc limit 1"))

    async def _settled(self) -> dict[str, Any]:
        """The client left; the server settles without it."""
        for _ in range(SETTLED_WITHIN_SECONDS * 20):
            row = await self._row()
            if row["state"] != "held":
                break
            await asyncio.sleep(0.05)
        return row

    async def _balance(self) -> int:
        return int(await self._database.fetchval("select balance_nanos from tollgate.orgs where id = 'org_proof'"))

    def _tell(self, name: str, good: bool, answer: httpx.Response, facts: Any) -> None:
        self.wrong += not good
        wanted = ("prompt_tokens", "completion_tokens", "charge_nanos", "state", "estimated", "message")
        shown = {key: facts[key] for key in wanted if key in facts}
        cost = answer.headers.get("x-tollgate-charge-nanos", "")
        print(f"{'ok   ' if good else 'WRONG'} {name:34} {answer.status_code} {cost:>8} {shown}", flush=True)


def charge(prompt_tokens: int, completion_tokens: int) -> int:
    cost = prompt_tokens * Decimal(PRICING["prompt"]) + completion_tokens * Decimal(PRICING["completion"])
    return int((cost * NANOS_PER_CREDIT).to_integral_value(ROUND_CEILING))


@contextmanager
def tollgate(folder: Path, database: str | None) -> Iterator[tuple[str, Settings]]:
    with nullcontext(database) if database else embedded.running(folder) as url:
        asyncio.run(migrations.migrate(url))
        with server.bind("127.0.0.1", int(os.environ.get("PORT", "0"))) as free:
            address, port = server.address(free), free.getsockname()[1]
        given = {"DATABASE_URL": url, "PRIVATE_UPSTREAMS": "true", "LOG_LEVEL": "error", "PORT": str(port)}
        command = [sys.executable, "-m", "tollgate", "serve"]
        with subprocess.Popen(command, env={**os.environ, **given}, cwd=folder.parent) as process:
            try:
                _wait_for(f"{address}/health")
                yield address, settings.read(given)
            finally:
                process.terminate()


def _wait_for(url: str) -> None:
    for _ in range(START_SECONDS * 20):
        with suppress(httpx.TransportError):
            httpx.get(url)
            return
        time.sleep(0.05)
    raise SystemExit("Tollgate did not start.")


async def furnished(chosen: Settings, options: argparse.Namespace) -> str:
    """An org with credits, the upstream and its route. The key's secret comes back."""
    rooms = compose(chosen)
    operator = console(rooms.database, "prove")
    secret = rules.mint("live", secrets.token_bytes(rules.RANDOM_BYTES))
    key = rules.stored(secret, chosen.peppers[0], name="Proof", scopes=rules.MEMBER_SCOPES)
    owner = {"id": "usr_proof", "email": "proof@localhost", "name": "", "role": "member"}
    await keys.seed(operator, {"id": "org_proof", "name": "Proof", "plan_id": "enterprise"}, owner, key)
    nanos = CREDITS * NANOS_PER_CREDIT
    await credits.grant(operator, "org_proof", nanos, source="funding", reason="proof", reference="proof")
    upstream = {"name": options.dialect, "base_url": options.url, "dialect": options.dialect}
    if KEY_VARIABLE in os.environ:
        upstream |= {"secret_name": KEY_VARIABLE}
    made = await upstreams.make(operator, upstream)
    route = {"model": options.model, "upstream_id": made["id"], "pricing": PRICING, "context_tokens": CONTEXT}
    await catalog.put_route(operator, route)
    await rooms.close()
    return secret


async def prove(address: str, chosen: Settings, options: argparse.Namespace) -> int:
    secret = await furnished(chosen, options)
    database = await asyncpg.connect(chosen.database_url and chosen.database_url.get_secret_value())
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=120) as client:
        proof = Proof(client, database, options.model)
        await proof.plain("chat")
        await proof.choices(apart=options.dialect == "llamacpp")
        await proof.plain("chat, newer name of the bound", max_tokens=None, max_completion_tokens=16)
        await proof.plain("chat, open bound", max_tokens=None, stop=[" "])
        await proof.completion()
        if options.embeddings:
            await proof.embedding()
        await proof.stream("stream", asked=False)
        await proof.stream("stream with its usage", asked=True)
        await proof.cut()
        await proof.left_before_its_usage()
        # 503 where OpenRouter's list cannot be read either: then nobody knows whether there is such a model.
        await proof.refused(
            "unknown model", 404, 503, model="nobody/knows", messages=[{"role": "user", "content": "x"}]
        )
        await proof.refused("no messages", 400, model=options.model)
        await proof.refused(
            "bad parameter", 400, model=options.model, messages=[{"role": "user", "content": "x"}], temperature="hot"
        )
        await proof.refused(
            "too long", 400, model=options.model, messages=[{"role": "user", "content": "sea " * 4000}], max_tokens=16
        )
        rooms = compose(chosen)
        books = await credits.audit_books(rooms.database)
        await rooms.close()
        open_holds = await database.fetchval("select count(*) from tollgate.holds")
        held = await database.fetchval("select sum(held_nanos) from tollgate.orgs")
    await database.close()
    print(f"books: {len(books['faults'])} faults, {books['requests']} requests, {open_holds} holds, {held} nanos held")
    return proof.wrong + len(books["faults"]) + open_holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialect", required=True, choices=["vllm", "sglang", "llamacpp", "tgi", "openai"])
    parser.add_argument("--url", required=True, help="up to and with /v1")
    parser.add_argument("--model", required=True, help="as the server calls it")
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--database", help="the URL of an empty one, instead of one of its own")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        tollgate(Path(folder) / "data", options.database) as (address, chosen),
    ):
        return 1 if asyncio.run(prove(address, chosen, options)) else 0


if __name__ == "__main__":
    sys.exit(main())
