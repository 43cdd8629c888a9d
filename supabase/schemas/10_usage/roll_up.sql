-- Rolls requests up into tallies and latencies, and transfers into flows.
--
-- The sweeper calls public.tollgate_roll_up_usage(page_size), which takes one bounded step, until it stops answering
-- "more". Requests that are still open are left out by id, and counted when they have ended.

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
    select coalesce(min(r.created_at), horizon) into state.rolled_until from tollgate.requests r;
    state.rolled_until := date_trunc('hour', least(state.rolled_until, horizon), 'UTC');
  end if;
  select r.created_at into upto
  from tollgate.requests r
  where r.created_at >= state.rolled_until and r.created_at < horizon
  order by r.created_at
  offset page_size
  limit 1;
  -- More than a page at one moment would never move on.
  upto := least(greatest(coalesce(upto, horizon), state.rolled_until + interval '1 microsecond'), horizon);
  upto := greatest(upto, state.rolled_until);

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
    returning r.id, r.org_id, r.user_id, r.key_id, r.model, r.upstream, r.created_at, r.settled_at, r.streamed, r.estimated,
      r.prompt_tokens, r.completion_tokens, r.charge_nanos, r.cost_nanos, r.first_token_ms, r.duration_ms,
      (r.error_code is not null or r.status >= 400) is true as failed
  ),
  fresh as (
    select r.id, r.org_id, r.user_id, r.key_id, r.model, r.upstream, r.created_at, r.settled_at, r.streamed, r.estimated,
      r.prompt_tokens, r.completion_tokens, r.charge_nanos, r.cost_nanos, r.first_token_ms, r.duration_ms,
      (r.error_code is not null or r.status >= 400) is true as failed
    from tollgate.requests r
    where r.created_at >= state.rolled_until and r.created_at < upto
  ),
  late as (
    insert into tollgate.late_requests (request_id, created_at)
    select f.id, f.created_at from fresh f where f.settled_at is null
  ),
  ended as materialized (
    select date_trunc('hour', e.created_at, 'UTC') as hour, e.org_id, e.user_id, e.key_id, e.model,
      coalesce(e.upstream, '') as upstream, e.created_at, e.streamed, e.estimated, e.prompt_tokens, e.completion_tokens,
      e.charge_nanos, e.cost_nanos, e.first_token_ms, e.duration_ms, e.failed
    from (select * from fresh f where f.settled_at is not null union all select * from ripe) e
  ),
  by_hour as materialized (
    select e.hour, e.org_id, e.user_id, e.key_id, e.model, e.upstream,
      count(*) as requests,
      count(*) filter (where e.failed) as errors,
      count(*) filter (where e.streamed) as streamed,
      count(*) filter (where e.estimated) as estimated,
      coalesce(sum(e.prompt_tokens), 0)::bigint as prompt_tokens,
      coalesce(sum(e.completion_tokens), 0)::bigint as completion_tokens,
      coalesce(sum(e.charge_nanos), 0)::bigint as charge_nanos,
      coalesce(sum(e.cost_nanos), 0)::bigint as cost_nanos,
      max(e.created_at) as last_at
    from ended e
    group by e.hour, e.org_id, e.user_id, e.key_id, e.model, e.upstream
  ),
  tallied as (
    insert into tollgate.tallies as t (
      cut, start, org_id, user_id, key_id, model, upstream,
      requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at
    )
    select c.cut, date_trunc(c.unit, h.hour, 'UTC') as start,
      case when c.people then h.org_id else '' end,
      case when c.people then h.user_id else '' end,
      case when c.people then h.key_id else '' end,
      case when c.models then h.model else '' end,
      case when c.models then h.upstream else '' end,
      sum(h.requests), sum(h.errors), sum(h.streamed), sum(h.estimated), sum(h.prompt_tokens),
      sum(h.completion_tokens), sum(h.charge_nanos), sum(h.cost_nanos), max(h.last_at)
    from by_hour h
    cross join (values
      ('hour', 'hour', true, true),
      ('hour_model', 'hour', false, true),
      ('day', 'day', true, true),
      ('day_model', 'day', false, true),
      ('day_key', 'day', true, false),
      ('month', 'month', true, true),
      ('month_model', 'month', false, true),
      ('month_key', 'month', true, false)
    ) c (cut, unit, people, models)
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
      last_at = greatest(t.last_at, excluded.last_at)
  ),
  durations as materialized (
    select e.hour, k.kind, e.model, e.upstream,
      floor(ln(greatest(k.ms, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      count(*) as requests, sum(k.ms) as total_ms
    from ended e
    cross join lateral (values ('whole', e.duration_ms), ('first_token', e.first_token_ms)) k (kind, ms)
    where k.ms is not null and not e.failed
    group by 1, 2, 3, 4, 5
  ),
  timed as (
    insert into tollgate.latencies as t (cut, start, kind, model, upstream, bucket, requests, total_ms)
    select c.cut, date_trunc(c.unit, d.hour, 'UTC'), d.kind,
      case when c.models then d.model else '' end, case when c.models then d.upstream else '' end,
      d.bucket, sum(d.requests), sum(d.total_ms)
    from durations d
    cross join (values ('hour', 'hour', false), ('day', 'day', false), ('day_model', 'day', true)) c (cut, unit, models)
    group by 1, 2, 3, 4, 5, 6
    order by 1, 2, 3, 4, 5, 6
    on conflict on constraint latencies_pkey do update set
      requests = t.requests + excluded.requests,
      total_ms = t.total_ms + excluded.total_ms
  )
  select count(*) into counted from ended;

  update tollgate.rolled set rolled_until = upto;
  return jsonb_build_object('requests', counted, 'more', upto < horizon or counted >= page_size);
end
$$;

comment on function tollgate.roll_up(timestamptz, integer) is
  'Counts at most about page_size requests made before the horizon, and as many late ones that have ended since: each exactly once, whoever else tries at the same time. `more` says whether to call again. Locks the row of tollgate.rolled; when another has it, does nothing.';


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
  'Sums up a page of transfers, each exactly once, in the order of the ledger; whether there may be more. Expects the row of tollgate.rolled to be locked.';


create function public.tollgate_roll_up_usage(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- Read before this transaction has an id of its own, and drawn by transactions that had theirs: they lock the org first.
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
  -- Admission draws its transaction id before it reads the clock, so requests made before a sighting belong to older
  -- transactions than the sighting's own. None takes an hour: one that stays longer is no admission.
  if state.sighted_xid <= pg_snapshot_xmin(pg_current_snapshot()) or state.sighted_at < now() - interval '1 hour' then
    state.complete_until := state.sighted_at;
    state.complete_position := state.sighted_position;
    state.sighted_xid := null;
  end if;
  if state.sighted_xid is null then
    state.sighted_at := now();
    state.sighted_position := newest;
    state.sighted_xid := pg_current_xact_id();
  end if;
  update tollgate.rolled set
    sighted_at = state.sighted_at, sighted_xid = state.sighted_xid, complete_until = state.complete_until,
    sighted_position = state.sighted_position, complete_position = state.complete_position;
  more_flows := tollgate.roll_up_flows(page_size);
  -- Of the running hour whole pages, so that whoever reads finds few requests that are not counted yet, however many
  -- come; and no less, since a page costs as much as the subjects in it.
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
  'One bounded step of rolling up: the hours that are over, and of the running one full pages, as far as every request is there to be seen, and the ledger likewise; a page of requests and one of transfers at a time. Answers {"requests", "more"}; called again while there is more. Refuses nothing. Locks the row of tollgate.rolled; when another has it, does nothing.';

select tollgate.expose('public.tollgate_roll_up_usage(integer)');
