"""What every client's tests share. A client is told Tollgate's address and a key, and nothing else."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest

from clients.questions import FAULTS
from gateway import Gateway, Upstream, running
from people import Person
from sandbox.serving import serving
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import Sandbox
from tollgate.sandbox.catalog import Catalog
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.state import Habits, State

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # litellm asks GitHub for it otherwise, when it is imported

Customer = Callable[..., Awaitable[Person]]
Tries = Callable[[Person], Awaitable[int]]


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """It offers the faults that clients are tried with as models, values included."""
    made = Sandbox(State(Habits(), Catalog(MODELS).with_faulty(FAULTS), time.time, secrets.randbits))
    with serving(made) as address:
        yield Upstream(made, address)


@pytest.fixture
def gateway(shared_database: str, upstream: Upstream) -> Iterator[Gateway]:
    """A new one for each test: it still trusts the models that others saw fail, so its breakers are closed."""
    more = {"PRIVATE_UPSTREAMS": "true", "UPSTREAM_SANDBOX_KEY": "sk-of-the-tests"}
    with running({"DATABASE_URL": shared_database}, upstream, **more) as made:
        yield made


@pytest.fixture
def openai_url(gateway: Gateway) -> str:
    return f"{gateway.address}/v1"


@pytest.fixture
def openrouter_url(gateway: Gateway) -> str:
    return f"{gateway.address}/api/v1"


@pytest.fixture(scope="module")
async def customer(shared_database: str) -> AsyncIterator[Customer]:
    """Makes people with a credit, or with `nanos`; `plan` sets their limits."""
    door = PostgresDoor(shared_database, pool_size=2, deadline_seconds=30)

    async def make(nanos: int = NANOS_PER_CREDIT, plan: str = "enterprise") -> Person:
        made = Person(door)
        await made.seed()
        await _ask(shared_database, "update tollgate.orgs set plan_id = $1 where id = $2", plan, made.org_id)
        if nanos:
            granter = console(door, "tests")
            await credits.grant(granter, made.org_id, nanos, source="funding", reason="", reference=made.org_id)
        return made

    yield make
    await door.close()


@pytest.fixture(scope="module")
async def key(customer: Customer) -> str:
    """Of somebody who can pay."""
    return (await customer()).secret


@pytest.fixture
def tries(shared_database: str) -> Tries:
    """How often somebody's requests were admitted: a client that tries again makes a new one each time."""

    async def count(someone: Person) -> int:
        return int(
            await _ask(shared_database, "select count(*) from tollgate.requests where org_id = $1", someone.org_id)
        )

    return count


async def _ask(url: str, statement: str, *arguments: object) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()
