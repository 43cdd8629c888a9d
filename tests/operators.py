"""What tests of the admin API share: an operator's client, and a paid request without an upstream."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx

from completions.paid import an_item
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.settings import read

CREDIT = 1_000_000_000
SIX = [f"{measure}_per_{window}" for measure in ("requests", "tokens") for window in ("minute", "hour", "day")]
NO_LIMITS = dict.fromkeys(SIX)

EVENTS = """
select coalesce(jsonb_agg(
  jsonb_build_object('action', action, 'org', org_id, 'details', details) order by occurred_at, id
), '[]')
from tollgate.audit_events where target_id = $1
"""


@contextlib.asynccontextmanager
async def operating(door: Door, admin: Person) -> AsyncIterator[httpx.AsyncClient]:
    """The whole app, asked with an admin's key unless a call brings another."""
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://tollgate", headers=bearing(admin)) as made:
        yield made


def bearing(someone: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {someone.secret}"}


def word() -> str:
    """One that no other test knows."""
    return secrets.token_hex(6)


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every page of a list, from the first to the last."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        if found[-1]["next_cursor"] is None:
            return found
        query["cursor"] = found[-1]["next_cursor"]


async def admitted(door: Door, someone: Person, **more: Any) -> dict[str, Any]:
    """What the database says to one request: granted, or a refusal. It is charged at its cost unless told otherwise."""
    item = an_item(someone, **{"markup_ppm": 0, **more})
    answers = await door.call("tollgate_admit", items=[item])
    answer: dict[str, Any] = answers[item["id"]]
    return answer


async def settled(door: Door, granted: dict[str, Any], charge_nanos: int) -> None:
    """Ends a request that was granted, at this charge."""
    item = {
        "id": granted["granted"]["id"],
        "outcome": "settled",
        "charge_nanos": charge_nanos,
        "cost_nanos": charge_nanos,
        "prompt_tokens": 10,
        "completion_tokens": 20,
    }
    answers = await door.call("tollgate_settle", items=[item])
    assert answers[item["id"]]["settled"]["state"] == "settled"
