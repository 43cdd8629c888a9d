"""Writes rows of past requests, which would take hours to make."""

import json
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from people import Person

Row = dict[str, Any]
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=4)

LINK_ANEW = """
do $$
declare
  t tollgate.transfers;
begin
  alter table tollgate.transfers disable trigger user;
  update tollgate.orgs set chain_head = null;
  for t in select l.* from tollgate.transfers l order by l.org_id, l.position loop
    update tollgate.orgs set chain_head = tollgate.chain_after(chain_head, t) where id = t.org_id;
    update tollgate.transfers l set chain = o.chain_head
    from tollgate.orgs o where l.position = t.position and o.id = t.org_id;
  end loop;
  alter table tollgate.transfers enable trigger user;
end $$;
"""
"""After transfers were moved to another time. Nobody but a superuser can."""

INSERT = "insert into tollgate.requests select * from jsonb_populate_recordset(null::tollgate.requests, $1)"
OPEN_HOLDS = """
insert into tollgate.holds (request_id, next_sweep_at)
select r.id, r.expires_at from tollgate.requests r where r.id = any ($1) and r.settled_at is null
"""

POST = """
insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)
select
  o.id, 'wallet', 'revenue', r.charge_nanos, 'charge', r.id,
  o.balance_nanos - sum(r.charge_nanos) over (partition by o.id order by r.id)
from tollgate.requests r
join tollgate.orgs o on o.id = r.org_id
where r.id = any ($1) and r.charge_nanos > 0
order by o.id, r.id
"""
SUM_UP = """
update tollgate.orgs o set balance_nanos = o.balance_nanos - s.charged, held_nanos = o.held_nanos + s.held,
  open_requests = o.open_requests + s.open
from (
  select r.org_id, coalesce(sum(r.charge_nanos), 0) as charged,
    coalesce(sum(r.hold_nanos) filter (where r.settled_at is null), 0) as held,
    count(*) filter (where r.settled_at is null) as open
  from tollgate.requests r
  where r.id = any ($1)
  group by r.org_id
) s
where o.id = s.org_id
"""


def a_request(created_at: datetime = NOON, **more: Any) -> Row:
    """A settled request by default."""
    ended = more.get("state", "settled") in ("settled", "released")
    return {
        "id": f"req_{secrets.token_hex(12)}",
        "org_id": "org_past",
        "key_id": "key_past",
        "user_id": "usr_past",
        "state": "settled",
        "endpoint": "chat",
        "model": "maker/model",
        "streamed": False,
        "upstream": "openrouter",
        "served_model": "maker/model-2",
        "hold_nanos": 5000,
        "charge_nanos": 1050 if ended else None,
        "cost_nanos": 1000 if ended else None,
        "markup_ppm": 50000,
        "output_bound": 100,
        "reserved_tokens": 100,
        "prompt_tokens": 10 if ended else None,
        "completion_tokens": 5 if ended else None,
        "usage": {"prompt_tokens_details": {"cached_tokens": 0}},
        "estimated": False,
        "quarantined": False,
        "is_byok": False,
        "status": 200 if ended else None,
        "first_token_ms": 50 if ended else None,
        "duration_ms": 500 if ended else None,
        "created_at": created_at.isoformat(),
        "expires_at": (created_at + timedelta(minutes=10)).isoformat(),
        "settled_at": (created_at + timedelta(seconds=1)).isoformat() if ended else None,
        **more,
    }


def of(person: Person, created_at: datetime = NOON, **more: Any) -> Row:
    whose = {"org_id": person.org_id, "user_id": person.user_id, "key_id": person.key_id}
    return a_request(created_at, **(whose | more))


def failed(**more: Any) -> Row:
    error = {"state": "released", "status": 502, "error_code": "upstream_unavailable", "charge_nanos": 0}
    return error | {"cost_nanos": None, "prompt_tokens": None, "completion_tokens": None} | more


def still_open() -> Row:
    empty = ("charge_nanos", "cost_nanos", "prompt_tokens", "completion_tokens", "status", "duration_ms", "settled_at")
    return {"state": "held", "first_token_ms": None, **dict.fromkeys(empty)}


def many(person: Person, count: int, *, hours: float = 50, seed: int = 7) -> Iterator[Row]:
    """Various requests, evenly over this many hours from NOON on."""
    chance = random.Random(seed)  # noqa: S311
    for number in range(count):
        kind = chance.random()
        more = failed() if kind < 0.1 else still_open() if kind < 0.15 else {}
        if not more:
            cost = chance.randrange(10**7)
            more = {
                "cost_nanos": cost,
                "charge_nanos": cost * 105 // 100,
                "prompt_tokens": chance.randrange(5000),
                "completion_tokens": chance.randrange(500),
                "duration_ms": int(chance.lognormvariate(7, 1)),
                "first_token_ms": int(chance.lognormvariate(5, 1)),
            }
        more |= {
            "model": f"maker/model-{chance.randrange(4)}",
            "upstream": chance.choice(["openrouter", "ups_1", None]),
        }
        more |= {"streamed": chance.random() < 0.5, "estimated": chance.random() < 0.1}
        yield of(person, NOON + timedelta(hours=hours) * (number / count), **more)


async def keep(url: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Stores the requests with matching books, and resets the roll-up so that it counts them."""
    ids = [row["id"] for row in rows]
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(INSERT, json.dumps(rows))
            for statement in (OPEN_HOLDS, POST, SUM_UP):
                await connection.execute(statement, ids)
            first = min(datetime.fromisoformat(row["created_at"]) for row in rows)
            await connection.execute("select tollgate.roll_up_again($1)", first)
    finally:
        await connection.close()


async def roll_up(url: str, horizon: datetime = NOON + timedelta(days=30), page_size: int = 1000) -> None:
    """Rolls up all requests before a time."""
    connection = await asyncpg.connect(url)
    try:
        step = "select tollgate.roll_up($1, $2)"
        while json.loads(await connection.fetchval(step, horizon, page_size))["more"]:
            pass
    finally:
        await connection.close()
