"""An installation with a client of its monitor, and paid calls for it to show."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from admin.api_client import ApiClient
from completions.paid import an_item
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.process.clock import Monotonic, monotonic
from tollgate.settings import read

MANAGEMENT_KEY = "sk-or-v1-of-the-management-never-shown"


@contextlib.asynccontextmanager
async def installation(
    door: Door, upstream_url: str, admin: Person, clock: Monotonic = monotonic, key: str = MANAGEMENT_KEY
) -> AsyncIterator[ApiClient]:
    """A Tollgate for one test, and an operator's client of it."""
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
        yield ApiClient(client, admin)


async def seen(api: ApiClient) -> Any:
    return await api.ask("GET", "/admin/monitor")


async def paid(door: Door, someone: Person, **ending: Any) -> str:
    """A request of 10 and 5 tokens with a cost of 2,000 nanos and a charge of 2,100, by default."""
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
