"""Tollgate on a real socket before a sandbox that errs as it is told, and what is left in the books afterwards."""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import asyncpg
import httpx

from completions.asks import AT_OPENROUTER, CALLS
from gateway import CHAT, Gateway, Upstream, running
from people import PEPPER, Person
from sandbox.serving import PATIENCE_SECONDS, serving
from tollgate.catalog import store as catalog
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.keys import rules
from tollgate.keys.authentication import console
from tollgate.sandbox.app import Sandbox
from tollgate.sandbox.catalog import Catalog
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.state import Habits, State
from tollgate.upstreams import store as upstreams

CRON_SECRET = "a-cron-secret-of-the-tests"

Row = dict[str, Any]


@contextlib.contextmanager
def erring(faults: Iterable[str], clock: Callable[[], float] = time.time) -> Iterator[Upstream]:
    """A sandbox that also lists a model for each of these faults, values included."""
    habits = Habits(generation_delay_seconds=0.0)
    made = Sandbox(State(habits, Catalog(MODELS).with_faulty(faults), clock, secrets.randbits))
    with serving(made) as address:
        yield Upstream(made, address)


@contextlib.contextmanager
def before(upstream: Upstream, database: str, **more: str) -> Iterator[Gateway]:
    with running({"DATABASE_URL": database, "CRON_SECRET": CRON_SECRET, **more}, upstream) as made:
        yield made


OWN_SERVER = {"PRIVATE_UPSTREAMS": "true", "UPSTREAM_OWN_KEY": "sk-of-the-tests"}
"""Settings of a gateway that is to reach the models of `served`."""


async def served(door: Door, upstream: Upstream) -> dict[Endpoint, dict[str, Any]]:
    """The calls of all endpoints. What OpenRouter lacks, a server of our own has: the sandbox by another name, at the
    sandbox's prices."""
    operator, token = console(door, "tests"), secrets.token_hex(4)
    named = {"name": f"own-{token}", "base_url": upstream.url, "dialect": "openai", "secret_name": "UPSTREAM_OWN_KEY"}
    server = (await upstreams.make(operator, named))["id"]
    made = dict(CALLS)
    for name, form in ENDPOINTS.items():
        if name not in AT_OPENROUTER and not form.is_free:
            model = f"ours/{token}-{name}"
            pricing = {"prompt": "0", "completion": "0", **dict.fromkeys(form.meters or ("request",), "0.0001")}
            route = {"model": model, "upstream_id": server, "upstream_model": made[name]["model"], "pricing": pricing}
            await catalog.put_route(operator, route)
            made[name] = made[name] | {"model": model}
    return made


class Stage:
    """One gateway for many tests: their orgs keep them apart."""

    def __init__(self, gateway: Gateway, door: Door, connection: asyncpg.Connection, http: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.door = door
        self.connection = connection
        self.http = http

    async def customer(
        self, nanos: int = NANOS_PER_CREDIT, markup_ppm: int | None = None, secret: str | None = None, **key: Any
    ) -> Person:
        someone = Person(self.door, **key)
        if secret:
            someone.secret = secret
            someone.key = rules.stored(secret, PEPPER, name="Of the tests", scopes=rules.MEMBER_SCOPES)
        await someone.seed()
        change = "update tollgate.orgs set plan_id = 'enterprise', markup_ppm = $2 where id = $1"
        await self.sql(change, someone.org_id, markup_ppm)
        if nanos:
            granter = console(self.door, "tests")
            await credits.grant(granter, someone.org_id, nanos, source="funding", reason="", reference=someone.org_id)
        return someone

    async def post(self, someone: Person, body: Any, path: str = CHAT, **headers: str) -> httpx.Response:
        """A body of bytes goes as it is."""
        sent: Any = {"content": body} if isinstance(body, bytes) else {"json": body}
        given = {"authorization": f"Bearer {someone.secret}", "content-type": "application/json", **headers}
        return await self.http.post(self.gateway.address + path, headers=given, **sent)

    async def sql(self, statement: str, *arguments: object) -> Any:
        return await self.connection.fetchval(statement, *arguments)

    async def rows(self, someone: Person) -> list[Row]:
        found = await self.sql(
            "select json_agg(r order by r.created_at) from tollgate.requests r where org_id = $1", someone.org_id
        )
        return json.loads(found) if found else []

    async def row(self, someone: Person) -> Row:
        (only,) = await self.rows(someone)
        return only

    async def money(self, someone: Person) -> tuple[int, int]:
        """What is on the org's balance, and what of it is held."""
        found = await self.sql(
            "select array[balance_nanos, held_nanos] from tollgate.orgs where id = $1", someone.org_id
        )
        return found[0], found[1]

    async def charged(self, someone: Person) -> int:
        """The sum of the org's charges in the ledger."""
        found: int = await self.sql(
            "select coalesce(sum(amount_nanos), 0)::bigint from tollgate.transfers"
            " where org_id = $1 and kind = 'charge'",
            someone.org_id,
        )
        return found

    async def sweep(self, someone: Person, looks: int = 0) -> None:
        """Ends what of someone's is open, as if its time had come, after so many looks in vain."""
        await self.sql(
            "update tollgate.holds set next_sweep_at = clock_timestamp() - interval '1 second', sweeps = $2"
            " where request_id in (select id from tollgate.requests where org_id = $1)",
            someone.org_id,
            looks,
        )
        answer = await self.post(someone, b"", "/internal/sweep", authorization=f"Bearer {CRON_SECRET}")
        assert answer.status_code == 200, answer.text

    async def all_ended(self) -> bool:
        return self.gateway.upstream.all_ended()

    async def books_agree(self) -> None:
        books = await self.door.call("tollgate_audit_books")
        assert books["faults"] == [], books["faults"]


@contextlib.asynccontextmanager
async def staged(gateway: Gateway, database: str) -> AsyncIterator[Stage]:
    door = PostgresDoor(database, pool_size=2, deadline_seconds=30)
    connection = await asyncpg.connect(database)
    try:
        async with httpx.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as http:  # noqa: S501  # nothing here is TLS
            yield Stage(gateway, door, connection, http)
    finally:
        await connection.close()
        await door.close()
