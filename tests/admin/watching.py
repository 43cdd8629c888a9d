"""An operator at the monitor, and paid calls to be seen there."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from admin.operating import Desk
from completions.paid import an_item
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.process.clock import Monotonic, monotonic
from tollgate.settings import read

MANAGEMENT_KEY = "sk-or-v1-of-the-management-never-shown"


@contextlib.asynccontextmanager
async def house(
    door: Door, upstream_url: str, admin: Person, clock: Monotonic = monotonic, key: str = MANAGEMENT_KEY
) -> AsyncIterator[Desk]:
    """A Tollgate of the test's own, closed when that ends, and an operator at its desk."""
    given = {
        "KEY_PEPPER": PEPPER,
        "OPENROUTER_BASE_URL": upstream_url,
        "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
        "OPENROUTER_MANAGEMENT_KEY": key,
    }
    app = create_app(read(given), door=door, clock=clock, environ=given)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate", timeout=30) as client,
    ):
        yield Desk(client, admin)


async def seen(desk: Desk) -> Any:
    return await desk.ask("GET", "/admin/monitor")


async def paid(door: Door, someone: Person, **ending: Any) -> str:
    """A request of 10 tokens and 5 that cost 2,000 nanos and is charged 2,100, unless it ended otherwise."""
    item = an_item(someone)
    assert "granted" in (await door.call("tollgate_admit", items=[item]))[item["id"]]
    usual = {
        "outcome": "settled",
        "charge_nanos": 2100,
        "cost_nanos": 2000,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }
    served = {"upstream": "openrouter", "status": 200, "duration_ms": 400, "first_token_ms": 100}
    await door.call("tollgate_settle", items=[{"id": item["id"], **usual, **served, **ending}])
    return str(item["id"])
