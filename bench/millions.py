"""What ten million requests do to Tollgate: makes them, and measures it over them.

    DATABASE_URL=… python bench/millions.py fill [--requests 10000000] [--orgs 10000] [--days 90] [--more]
    DATABASE_URL=… python bench/millions.py measure [--rounds 300]
    DATABASE_URL=… python bench/millions.py pages

`fill` migrates the database, refuses one that has requests already (unless told `--more`), makes people, and paid
calls over so many days up to now, as they are found in life: few orgs and models do most, some calls fail, some are
still running. Every charge has its transfer, so the books audit clean. It ends with the roll-up and that audit.

`measure` prints what is promised of such a database beside what it found, and ends with 1 where that is worse. It makes
a second database of the same people without a request, and drops it. `pages` measures what the web pages ask for.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from pathlib import Path

import asyncpg
from millions_measured import measure
from millions_pages import measure_pages

from tollgate.database import migrations

BATCH = 250_000
ROLLED_AT_ONCE = 200_000
STILL_RUNNING = 250
BYTES_A_REQUEST = 2000
"""Of the row, which leaves as much room beside it, its transfer, and the indexes of both."""
NANOS_A_REQUEST = 5_000_000
"""What one costs, about."""
AS_LIFE_FILLS_PAGES = 65
"""Percent. A row comes short and is settled longer, beside itself; here it comes long. At the table's own 50 %, every
page would have room for one short row more, and each admission would go to a page of its own."""
SCRATCH = ("set synchronous_commit = off", "set jit = off", "set work_mem = '256MB'", "select setseed(0.4)")

PEOPLE = """
with numbers as (
  select i, 'org_millions' || i as org_id, 'usr_millions' || i as user_id from generate_series(1, $1::integer) i
),
orgs as (
  insert into tollgate.orgs (id, name, plan_id)
  select n.org_id, 'Org ' || n.i, 'enterprise' from numbers n
  on conflict (id) do nothing returning id
),
users as (
  insert into tollgate.users (id, org_id, email)
  select n.user_id, n.org_id, n.i || '@millions.example' from numbers n
  on conflict (id) do nothing returning id
)
insert into tollgate.api_keys (
  id, org_id, user_id, name, digest, pepper, prefix, last_four, scopes, last_used_at
)
select 'key_millions' || n.i || 'k' || k, n.org_id, n.user_id, 'Key ' || k, sha256((n.i || '_' || k)::bytea),
  '00000000', 'tg_live_', 'abcd', '{chat,completions,embeddings,models,usage,keys}', now()
from numbers n, generate_series(1, 1 + n.i % 3) k
on conflict (id) do nothing
"""
"""The digest of a key of theirs is that of its number, under a pepper that nobody has. Those of Zipf's first rank are
first, so the first org has most requests."""

GRANTS = """
with shares as (
  select o.id, ceil(
    $2::numeric * ln((i + 1.0) / i) / ln($1::integer + 1.0) * case when i % 100 = 7 then 0.5 else 2 end
  )::bigint as nanos
  from generate_series(1, $1::integer) i
  join tollgate.orgs o on o.id = 'org_millions' || i
),
given as (
  update tollgate.orgs o set balance_nanos = o.balance_nanos + s.nanos from shares s where o.id = s.id
  returning o.id, s.nanos, o.balance_nanos
),
posted as (
  insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos, created_at)
  select g.id, 'funding', 'wallet', g.nanos, 'grant', g.id || $3, g.balance_nanos,
    now() - make_interval(days => $4::integer)
  from given g
  returning position, org_id, debit, amount_nanos
)
insert into tollgate.audit_events (actor_kind, actor_name, org_id, action, target_id, outcome, details)
select 'console', 'millions', p.org_id, 'credits.granted', tollgate.transfer_id(p.position), 'success',
  jsonb_build_object('amount_nanos', p.amount_nanos, 'source', p.debit)
from posted p
"""
"""Twice what an org will spend; a hundredth of them half of it, so that they end overdrawn."""

CALLS = """
with chance as (
  select
    i,
    now() - make_interval(days => $5::integer) * (1 - i / $3::float8) as created_at,
    least(floor(exp(random() * ln($4::integer + 1.0)::float8)), $4)::integer as org,
    least(floor(exp(random() * ln(61))), 60)::integer as model,
    floor(exp(random() * ln(8001)))::integer as prompt,
    floor(exp(random() * ln(2001)))::integer as completion,
    floor(100 - 2500 * ln(1 - random()))::integer as duration,
    random() as luck,
    random() as whim,
    i > $3::float8 - $6::integer as running
  from generate_series($1::bigint, $2::bigint) i
),
drawn as (
  select c.*,
    case when c.running then case when c.i % 5 = 0 then 'unsettled' else 'held' end
      when c.luck < 0.04 then 'released' else 'settled' end as state,
    (c.prompt * 500 + c.completion * 4000)::bigint * (1 + c.model % 7) as cost
  from chance c
),
calls as materialized (
  insert into tollgate.requests (
    id, org_id, key_id, user_id, state, endpoint, model, streamed, upstream, served_model, generation_id,
    hold_nanos, charge_nanos, cost_nanos, markup_ppm, output_bound, reserved_tokens, prompt_tokens, completion_tokens,
    usage, price, estimated, quarantined, status, error_code, first_token_ms, duration_ms, created_at, expires_at,
    settled_at
  )
  select
    'req_' || lpad(to_hex((extract(epoch from d.created_at) * 1000)::bigint), 12, '0')
      || right(replace(gen_random_uuid()::text, '-', ''), 16),
    'org_millions' || d.org,
    'key_millions' || d.org || 'k' || 1 + floor(d.whim * (1 + d.org % 3)),
    'usr_millions' || d.org,
    d.state,
    case when d.model % 20 = 19 then 'embeddings' else 'chat' end,
    'maker-' || d.model % 9 || '/model-' || d.model,
    d.whim < 0.7,
    case when d.model % 10 = 9 then 'ups_millions' else 'openrouter' end,
    'maker-' || d.model % 9 || '/model-' || d.model,
    'gen-' || d.i,
    d.cost * 3,
    case d.state when 'settled' then d.cost * 105 / 100 when 'released' then 0 end,
    case d.state when 'settled' then d.cost end,
    50000, 4096, d.prompt + 4096,
    case d.state when 'settled' then d.prompt end,
    case d.state when 'settled' then d.completion end,
    case d.state when 'settled' then jsonb_build_object(
      'prompt_tokens', d.prompt, 'completion_tokens', d.completion, 'total_tokens', d.prompt + d.completion,
      'cost', d.cost / 1e9, 'prompt_tokens_details', jsonb_build_object('cached_tokens', 0)
    ) end,
    jsonb_build_object('fixed_nanos', d.prompt * 500, 'output_nanos', '4000', 'prompt', '500', 'completion', '4000'),
    d.luck between 0.04 and 0.05, d.luck between 0.05 and 0.051,
    case d.state when 'settled' then 200 when 'released' then (array[502, 504, 503])[1 + d.i % 3] end,
    case d.state when 'released' then
      (array['upstream_unavailable', 'upstream_timeout', 'upstream_busy'])[1 + d.i % 3]
    end,
    case when d.whim < 0.7 and d.state = 'settled' then d.duration / 4 end,
    case when not d.running then d.duration end,
    d.created_at,
    greatest(d.created_at, now()) + interval '15 minutes',
    case when not d.running then d.created_at + make_interval(secs => d.duration / 1000.0) end
  from drawn d
  order by d.i
  returning id, org_id, state, hold_nanos, charge_nanos, created_at, expires_at, settled_at
),
holds as (
  insert into tollgate.holds (request_id, next_sweep_at)
  select c.id, c.expires_at from calls c where c.state in ('held', 'unsettled')
),
spent as (
  update tollgate.orgs o
  set balance_nanos = o.balance_nanos - s.charged, held_nanos = o.held_nanos + s.held,
    open_requests = o.open_requests + s.open
  from (
    select c.org_id, coalesce(sum(c.charge_nanos), 0)::bigint as charged,
      coalesce(sum(c.hold_nanos) filter (where c.state in ('held', 'unsettled')), 0)::bigint as held,
      count(*) filter (where c.state in ('held', 'unsettled')) as open
    from calls c group by c.org_id
  ) s
  where o.id = s.org_id
  returning o.id, o.balance_nanos + s.charged as before_nanos
)
insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos, created_at)
select c.org_id, 'wallet', 'revenue', c.charge_nanos, 'charge', c.id,
  s.before_nanos - sum(c.charge_nanos) over (partition by c.org_id order by c.settled_at, c.id), c.settled_at
from calls c
join spent s on s.id = c.org_id
where c.charge_nanos > 0
order by c.settled_at, c.id
"""
"""One batch: calls, holds of those still running, what that does to the orgs, and the charges in their order."""


async def fill(url: str, requests: int, orgs: int, days: int, more: bool) -> int:
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    if not more and await connection.fetchval("select exists (select from tollgate.requests)"):
        print("this database has requests already; --more adds to them", file=sys.stderr)
        return 1
    if not fits(await connection.fetchval("show data_directory"), requests * BYTES_A_REQUEST):
        return 1
    for setting in SCRATCH:
        await connection.execute(setting)
    await people(connection, requests, orgs, days)
    await connection.execute(f"alter table tollgate.requests set (fillfactor = {AS_LIFE_FILLS_PAGES})")
    await calls(connection, requests, orgs, days)
    await connection.execute("alter table tollgate.requests set (fillfactor = 50)")
    await connection.execute("select tollgate.roll_up_again(now() - make_interval(days => $1::integer))", days + 1)
    await roll_up(connection)
    for table in (
        "orgs",
        "users",
        "api_keys",
        "requests",
        "transfers",
        "holds",
        "tallies",
        "latencies",
        "key_latencies",
        "flows",
        "top_keys",
    ):
        await connection.execute(f"vacuum (analyze) tollgate.{table}")
    faults = json.loads(await connection.fetchval("select public.tollgate_audit_books()"))["faults"]
    print(f"audited: {faults or 'the books are clean'}")
    await connection.close()
    return 1 if faults else 0


def fits(folder: str, wanted: int) -> bool:
    """True too where the database is on another machine."""
    if not Path(folder).exists() or shutil.disk_usage(folder).free > wanted:
        return True
    print(f"{wanted / 1e9:.0f} GB are needed in {folder}", file=sys.stderr)
    return False


async def people(connection: asyncpg.Connection, requests: int, orgs: int, days: int) -> None:
    await connection.execute(PEOPLE, orgs)
    await connection.execute(GRANTS, orgs, requests * NANOS_A_REQUEST, f" {time.time()}", days)


async def calls(connection: asyncpg.Connection, requests: int, orgs: int, days: int) -> None:
    began = time.monotonic()
    for first in range(1, requests + 1, BATCH):
        last = min(first + BATCH - 1, requests)
        await connection.execute(CALLS, first, last, requests, orgs, days, STILL_RUNNING)
        print(f"{last} requests, {time.monotonic() - began:.0f} s", flush=True)


async def roll_up(connection: asyncpg.Connection) -> None:
    """To the end of the last hour, as the sweeper would by and by, who waits for what may still be written. Nobody
    writes here."""
    began = time.monotonic()
    await connection.execute(
        "update tollgate.rolled set complete_position = (select max(position) from tollgate.transfers)"
    )
    while await connection.fetchval("select tollgate.roll_up_flows($1)", ROLLED_AT_ONCE):
        pass
    statement = "select tollgate.roll_up(date_trunc('hour', now(), 'UTC'), $1)"
    rolled, more = 0, True
    while more:
        step = json.loads(await connection.fetchval(statement, ROLLED_AT_ONCE))
        rolled, more = rolled + step["requests"], step["more"]
        print(f"{rolled} rolled up, {time.monotonic() - began:.0f} s", flush=True)
    await connection.fetchval("select public.tollgate_renew_leaders()")


async def measured(url: str, rounds: int) -> int:
    async def same_people(connection: asyncpg.Connection, orgs: int) -> None:
        await people(connection, orgs * 1000, orgs, 1)

    return 0 if await measure(url, rounds, same_people) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_subparsers(dest="does", required=True)
    filling = does.add_parser("fill")
    filling.add_argument("--requests", type=int, default=10_000_000)
    filling.add_argument("--orgs", type=int, default=10_000)
    filling.add_argument("--days", type=int, default=90)
    filling.add_argument("--more", action="store_true")
    does.add_parser("measure").add_argument("--rounds", type=int, default=300)
    does.add_parser("pages").add_argument("--looks", type=int, default=10)
    options = parser.parse_args()
    url = os.environ["DATABASE_URL"]
    if options.does == "pages":
        return 0 if asyncio.run(measure_pages(url, options.looks)) else 1
    if options.does == "measure":
        return asyncio.run(measured(url, options.rounds))
    return asyncio.run(fill(url, options.requests, options.orgs, options.days, options.more))


if __name__ == "__main__":
    sys.exit(main())
