"""What tests of the admin API share: an operator's client, and a paid request without an upstream."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx

from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.runtime.database import Door
from tollgate.runtime.settings import read

CREDIT = 1_000_000_000

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


def asked(someone: Person, **more: Any) -> dict[str, Any]:
    """A request as the server asks for it: 10 tokens in, at most 100 out at 1,000 nanos each."""
    return {
        "id": f"req_{secrets.token_hex(12)}",
        "caller": {"digests": [someone.key["digest"]], "pepper": someone.key["pepper"], "ip": "192.0.2.1"},
        "scope": "chat",
        "endpoint": "chat",
        "model": "maker/model",
        "models": ["maker/model"],
        "streamed": False,
        "fixed_nanos": "5000",
        "output_nanos": "1000",
        "output_bound": 100,
        "least_output": 16,
        "most_output": 100,
        "choices": 1,
        "prompt_tokens": 10,
        "markup_ppm": 0,
        "ttl_seconds": 600,
        "price": {"prompt": "500", "completion": "1000"},
        **more,
    }


async def admitted(door: Door, someone: Person, **more: Any) -> dict[str, Any]:
    """What the database says to one request: granted, or a refusal."""
    item = asked(someone, **more)
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
