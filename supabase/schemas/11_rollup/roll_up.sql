-- Rolls requests up into tallies and latencies, and transfers into flows.
--
-- The sweeper calls public.tollgate_roll_up_usage(page_size), which takes one bounded step, until it stops answering
-- "more". Requests that are still open are left out by id, and counted when they have ended.

create function tollgate.ended_requests(since timestamptz, until timestamptz, page_size integer)
returns setof tollgate.requests
language sql
set search_path = ''
as $$
  with ripe as (
    delete from tollgate.late_requests l
    using tollgate.requests r
    where r.id = l.request_id and r.settled_at is not null
      and l.request_id in (
        select o.request_id
        from tollgate.late_requests o
        join tollgate.requests q on q.id = o.request_id
        where q.settled_at is not null
        limit page_size
      )
    returning r.*
  ),
  fresh as (
    select r.* from tollgate.requests r where r.created_at >= since and r.created_at < until
  ),
  late as (
    insert into tollgate.late_requests (request_id, created_at)
    select f.id, f.created_at from fresh f where f.settled_at is null
  )
  select f.* from fresh f where f.settled_at is not null
  union all
  select r.* from ripe r
$$;

comment on function tollgate.ended_requests(timestamptz, timestamptz, integer) is
  'The requests made in a time that have ended, and a page of late ones that have ended since. Those of the time that are still open become late ones. Expects the row of tollgate.rolled to be locked.';


create function tollgate.rolled_until(state tollgate.rolled, horizon timestamptz, page_size integer) returns timestamptz
language sql
stable
set search_path = ''
as $$
  -- More than a page at one moment would never move on.
  select greatest(state.rolled_until, least(horizon, greatest(
    state.rolled_until + interval '1 microsecond',
    coalesce((
      select r.created_at
      from tollgate.requests r
      where r.created_at >= state.rolled_until and r.created_at < horizon
      order by r.created_at
      offset page_size
      limit 1
    ), horizon)
  )))
$$;

comment on function tollgate.rolled_until(tollgate.rolled, timestamptz, integer) is
  'Where the next step of rolling up ends: after about page_size requests, or at the horizon.';


create function tollgate.cuts() returns table (cut text, unit text, people boolean, models boolean)
language sql
immutable
rows 8
set search_path = ''
as $$
  values
    ('hour', 'hour', true, true),
    ('hour_model', 'hour', false, true),
    ('day', 'day', true, true),
    ('day_model', 'day', false, true),
    ('day_key', 'day', true, false),
    ('month', 'month', true, true),
    ('month_model', 'month', false, true),
    ('month_key', 'month', true, false)
$$;

comment on function tollgate.cuts() is
  'The cuts of tollgate.tallies: the length of each, and whether it tells people (org, user, key) and models (and upstreams) apart.';


create function tollgate.add_tallies(hours tollgate.usage[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.tallies as t (
    cut, start, org_id, user_id, key_id, model, upstream,
    requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at,
    cached_tokens, reasoning_tokens
  )
  select c.cut, date_trunc(c.unit, h.start, 'UTC'),
    case when c.people then h.org_id else '' end,
    case when c.people then h.user_id else '' end,
    case when c.people then h.key_id else '' end,
    case when c.models then h.model else '' end,
    case when c.models then h.upstream else '' end,
    sum(h.requests), sum(h.errors), sum(h.streamed), sum(h.estimated), sum(h.prompt_tokens),
    sum(h.completion_tokens), sum(h.charge_nanos), sum(h.cost_nanos), max(h.last_at),
    sum(h.cached_tokens), sum(h.reasoning_tokens)
  from unnest(hours) h
  cross join tollgate.cuts() c
  group by 1, 2, 3, 4, 5, 6, 7
  order by 1, 2, 3, 4, 5, 6, 7
  on conflict on constraint tallies_pkey do update set
    requests = t.requests + excluded.requests,
    errors = t.errors + excluded.errors,
    streamed = t.streamed + excluded.streamed,
    estimated = t.estimated + excluded.estimated,
    prompt_tokens = t.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = t.completion_tokens + excluded.completion_tokens,
    charge_nanos = t.charge_nanos + excluded.charge_nanos,
    cost_nanos = t.cost_nanos + excluded.cost_nanos,
    last_at = greatest(t.last_at, excluded.last_at),
    cached_tokens = t.cached_tokens + excluded.cached_tokens,
    reasoning_tokens = t.reasoning_tokens + excluded.reasoning_tokens
$$;

comment on function tollgate.add_tallies(tollgate.usage[]) is
  'Adds what was used in hours, by org, user, key, model and upstream, to the tallies of all cuts.';


create function tollgate.roll_up(horizon timestamptz, page_size integer) returns jsonb
language plpgsql
set search_path = ''
set jit = off
set work_mem = '32MB'
as $$
declare
  state tollgate.rolled;
  upto timestamptz;
  counted bigint;
begin
  select r.* into state from tollgate.rolled r for no key update skip locked;
  if not found then
    return '{"requests": 0, "more": false}';
  end if;
  if state.rolled_until = '-infinity' then
    select date_trunc('hour', least(min(r.created_at), horizon), 'UTC') into state.rolled_until from tollgate.requests r;
  end if;
  upto := tollgate.rolled_until(state, horizon, page_size);

  with ended as materialized (
    select date_trunc('hour', e.created_at, 'UTC') as hour, e.org_id, e.user_id, e.key_id, e.model,
      coalesce(e.upstream, '') as upstream, e.created_at, e.streamed, e.estimated, e.prompt_tokens, e.completion_tokens,
      e.charge_nanos, e.cost_nanos, e.first_token_ms, e.duration_ms,
      tollgate.cached_tokens(e.usage, e.prompt_tokens) as cached_tokens,
      tollgate.reasoning_tokens(e.usage, e.completion_tokens) as reasoning_tokens,
      (e.error_code is not null or e.status >= 400) is true as failed
    from tollgate.ended_requests(state.rolled_until, upto, page_size) e
  ),
  tallied as (
    select tollgate.add_tallies(array_agg(h::tollgate.usage)) from (
      select e.hour as start, e.org_id, e.user_id, e.key_id, e.model, e.upstream,
        count(*) as requests,
        count(*) filter (where e.failed) as errors,
        count(*) filter (where e.streamed) as streamed,
        count(*) filter (where e.estimated) as estimated,
        coalesce(sum(e.prompt_tokens), 0)::bigint as prompt_tokens,
        coalesce(sum(e.completion_tokens), 0)::bigint as completion_tokens,
        coalesce(sum(e.charge_nanos), 0)::bigint as charge_nanos,
        coalesce(sum(e.cost_nanos), 0)::bigint as cost_nanos,
        max(e.created_at) as last_at,
        sum(e.cached_tokens)::bigint as cached_tokens,
        sum(e.reasoning_tokens)::bigint as reasoning_tokens
      from ended e
      group by e.hour, e.org_id, e.user_id, e.key_id, e.model, e.upstream
    ) h
  ),
  timed as (
    select tollgate.add_latencies(array_agg(row(
      e.hour, e.org_id, e.key_id, e.user_id, e.model, e.upstream, k.kind, k.ms,
      floor(ln(greatest(k.ms, 1)::double precision) / ln(1.05::double precision))
    )::tollgate.duration))
    from ended e
    cross join lateral (values ('whole', e.duration_ms), ('first_token', e.first_token_ms)) k (kind, ms)
    where k.ms is not null and not e.failed
  )
  select (select count(*) from ended) into counted from tallied, timed; -- which are read, since only then they are run

  update tollgate.rolled set rolled_until = upto;
  return jsonb_build_object('requests', counted, 'more', upto < horizon or counted >= page_size);
end
$$;

comment on function tollgate.roll_up(timestamptz, integer) is
  'Counts at most about page_size requests made before the horizon, and as many late ones that have ended since: each exactly once, even when two try at the same time. `more` says whether to call again. Locks the row of tollgate.rolled; when another transaction has it, does nothing.';


create function tollgate.roll_up_flows(page_size integer) returns boolean
language plpgsql
set search_path = ''
as $$
declare
  upto bigint;
  counted bigint;
begin
  with page as materialized (
    select t.position, t.created_at, t.kind, t.debit, t.credit, t.amount_nanos
    from tollgate.rolled r, tollgate.transfers t
    where t.position > r.flowed_until and t.position <= r.complete_position
    order by t.position
    limit page_size
  ),
  summed as (
    insert into tollgate.flows as f (hour, kind, debit, credit, transfers, amount_nanos)
    select date_trunc('hour', p.created_at, 'UTC'), p.kind, p.debit, p.credit, count(*), sum(p.amount_nanos)
    from page p
    group by 1, 2, 3, 4
    on conflict (hour, kind, debit, credit) do update set
      transfers = f.transfers + excluded.transfers,
      amount_nanos = f.amount_nanos + excluded.amount_nanos
  )
  select max(p.position), count(*) into upto, counted from page p;
  update tollgate.rolled set flowed_until = upto where upto is not null;
  return counted >= page_size;
end
$$;

comment on function tollgate.roll_up_flows(integer) is
  'Adds a page of transfers to the flows, each exactly once, in the order of the ledger. Tells whether there may be more. Expects the row of tollgate.rolled to be locked.';


create function public.tollgate_roll_up_usage(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- Read before this transaction gets an id. The transactions that drew these positions had theirs before: they lock the org first.
  newest constant bigint := (
    select case when s.is_called then s.last_value else 0 end from tollgate.transfers_position_seq s
  );
  state tollgate.rolled;
  more_flows boolean;
  counted jsonb;
  horizon timestamptz;
begin
  select r.* into state from tollgate.rolled r for no key update skip locked;
  if not found then
    return '{"requests": 0, "more": false}';
  end if;
  -- Admission gets its transaction id before it reads the clock, so requests made before a mark belong to transactions older
  -- than that of the mark. No admission takes an hour: an older transaction that still runs is something else.
  if state.marked_xid <= pg_snapshot_xmin(pg_current_snapshot()) or state.marked_at < now() - interval '1 hour' then
    state.complete_until := state.marked_at;
    state.complete_position := state.marked_position;
    state.marked_xid := null;
  end if;
  if state.marked_xid is null then
    state.marked_at := now();
    state.marked_position := newest;
    state.marked_xid := pg_current_xact_id();
  end if;
  update tollgate.rolled set
    marked_at = state.marked_at, marked_xid = state.marked_xid, complete_until = state.complete_until,
    marked_position = state.marked_position, complete_position = state.complete_position;
  more_flows := tollgate.roll_up_flows(page_size);
  -- The current hour is rolled up in whole pages, so that readers find few requests that are not counted yet. Less than a
  -- page would not be worth it: the cost is that of the orgs, keys and models in it.
  horizon := case when exists (
    select from tollgate.requests r
    where r.created_at >= state.rolled_until and r.created_at < state.complete_until
    order by r.created_at
    offset page_size
  ) then state.complete_until else date_trunc('hour', state.complete_until, 'UTC') end;
  counted := tollgate.roll_up(horizon, page_size);
  return counted || jsonb_build_object('more', more_flows or (counted -> 'more')::boolean);
end
$$;

comment on function public.tollgate_roll_up_usage(integer) is
  'One bounded step of rolling up, a page of requests and a page of transfers: hours that are over, and full pages of the current hour, up to where all rows are known to be committed. Answers {"requests", "more"}; to be called again while there is more. Refuses nothing. Locks the row of tollgate.rolled; when another transaction has it, does nothing.';

select tollgate.expose('public.tollgate_roll_up_usage(integer)');
