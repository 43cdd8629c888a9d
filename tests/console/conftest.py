"""A server with its pages, people who paid, and a browser."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from playwright.async_api import Browser

from completions.stage import before
from console.browser import Visit, chromium, visiting
from gateway import Gateway, Upstream
from people import Person
from sandbox.serving import serving
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

Visiting = Callable[..., AbstractAsyncContextManager[Visit]]


@pytest.fixture(scope="session")
def site(shared_database: str) -> Iterator[Gateway]:
    sandbox = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    more = {"PRIVATE_UPSTREAMS": "true", "VAULT_KEY": "5a" * 32, "AGENT_KEY": "a6" * 20}
    with serving(sandbox) as address, before(Upstream(sandbox, address), shared_database, **more) as made:
        yield made


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as made:
        yield made


@pytest.fixture
def visit(browser: Browser, site: Gateway) -> Visiting:
    """Opens a window: `async with visit(width=360) as made`."""
    return partial(visiting, browser, site.address)


@pytest.fixture
def payer(postgres_door: Door) -> Callable[..., Awaitable[Person]]:
    """Makes people with credits: `await payer(nanos)`."""

    async def make(nanos: int = 10**9) -> Person:
        made = Person(postgres_door)
        await made.seed()
        await credits.grant(
            console(postgres_door, "tests"), made.org_id, nanos, source="funding", reason="", reference=made.org_id
        )
        return made

    return make


@pytest.fixture
async def operator(postgres_door: Door) -> Person:
    made = Person(postgres_door, "admin")
    await made.seed()
    return made
