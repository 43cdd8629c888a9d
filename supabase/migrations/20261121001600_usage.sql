-- Why:  what was used must be known at once, over a day or over all time, however many requests there were.
-- What: tallies (requests counted by hour and by day), latencies (their durations in buckets), the function that rolls
--       requests up into both, and the functions that read them; lists and series of requests; retention.
-- Care: makes an index on tollgate.requests, during which admissions wait: about a second for each million rows.
--
-- How usage is read, for migrations that build on this one:
--
--   tollgate.usage_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns setof tollgate.usage
--     by       any of minute, hour, day, month, org, user, key, model, upstream; '{}' is one row of everything, or none
--     since    counted from here; null is from the beginning
--     until    to before here; null is until now
--     filters  org_id, user_id, key_id, model, upstream, each optional
--   A row: start (of the minute, hour, day or month, UTC), org_id, user_id, key_id, model, upstream (null unless asked
--   for), requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at.
--
--   tollgate.latency_between(kind text, since timestamptz, until timestamptz, filters jsonb) returns tollgate.latency
--     kind     whole | first_token
--     filters  org_id, user_id, key_id, model, upstream
--   A row: requests, average_ms, p50_ms, p90_ms, p95_ms, p99_ms, within 5 %.
--
-- Both are stable and so see one moment: rolled rows and those not rolled yet add up exactly. A request counts at the
-- time it was made, from the moment it is admitted, with what is known of it. All time and 30 days are cheap without
-- filters or by org; minutes are read from the requests themselves, as is whatever no whole hour covers.
--
-- Rolling up rides on the sweeper: public.tollgate_roll_up_usage(page_size) takes one bounded step, and is called again
-- while it answers "more". Requests still open are left out by id and counted when they have ended.

-- For lists of all orgs, newest first, for the hours not rolled up yet, and for retention. Settling does not change
-- created_at, so it writes no index for this one either.
create index requests_age on tollgate.requests (created_at);


create table tollgate.tallies (
  cut text not null check (cut in ('hour', 'hour_model', 'day', 'day_model', 'day_key')),
  start timestamptz not null,
  org_id text not null default '',
  user_id text not null default '',
  key_id text not null default '',
  model text not null default '',
  upstream text not null default '',
  requests bigint not null,
  errors bigint not null,
  streamed bigint not null,
  estimated bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null,
  last_at timestamptz not null,
  primary key (cut, start, org_id, user_id, key_id, model, upstream)
);

create index tallies_org on tollgate.tallies (org_id, cut, start) where org_id <> '';

comment on table tollgate.tallies is 'Ended requests counted by the hour or day (UTC) they were made in. Each is in all five cuts: hour and day tell org, user, key, model and upstream apart, hour_model and day_model only the last two, day_key only the first three; what a cut does not tell apart is empty.';


create table tollgate.latencies (
  cut text not null check (cut in ('hour', 'day', 'day_model')),
  start timestamptz not null,
  kind text not null check (kind in ('whole', 'first_token')),
  model text not null default '',
  upstream text not null default '',
  bucket integer not null,
  requests bigint not null,
  total_ms bigint not null,
  primary key (cut, start, kind, model, upstream, bucket)
);

comment on table tollgate.latencies is 'How long requests without an error took, in buckets that are 5 % wide. Each is in all three cuts; only day_model tells model and upstream apart.';


create table tollgate.late_requests (
  request_id text primary key,
  created_at timestamptz not null
);

comment on table tollgate.late_requests is 'Requests that were still open when their time was rolled up; counted, and gone from here, when they have ended.';


create table tollgate.rolled (
  single boolean primary key default true check (single),
  rolled_until timestamptz not null default '-infinity',
  sighted_at timestamptz,
  sighted_xid xid8,
  complete_until timestamptz not null default '-infinity',
  dropped_until timestamptz not null default '-infinity'
);

comment on table tollgate.rolled is 'How far the requests are rolled up: one row, locked by whoever does it.';
comment on column tollgate.rolled.rolled_until is 'Requests made before are in the tallies, or late.';
comment on column tollgate.rolled.sighted_xid is 'A transaction that began at sighted_at or after. When none before it runs any more, no request made before sighted_at can still appear.';
comment on column tollgate.rolled.complete_until is 'Every request made before is there to be seen.';
comment on column tollgate.rolled.dropped_until is 'Requests made before may have been dropped: hours are no longer divided there.';

insert into tollgate.rolled default values;

alter table tollgate.tallies enable row level security;
alter table tollgate.latencies enable row level security;
alter table tollgate.late_requests enable row level security;
alter table tollgate.rolled enable row level security;


create function tollgate.hour_from(moment timestamptz) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select date_trunc('hour', moment + interval '1 hour' - interval '1 microsecond', 'UTC')
$$;

comment on function tollgate.hour_from(timestamptz) is 'The first full hour that does not begin before a moment.';


create function tollgate.day_from(moment timestamptz) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select date_trunc('day', moment + interval '1 day' - interval '1 microsecond', 'UTC')
$$;

comment on function tollgate.day_from(timestamptz) is 'The first midnight, in UTC, that is not before a moment.';


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
      ('day_key', 'day', true, false)
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


create function public.tollgate_roll_up_usage(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  state tollgate.rolled;
begin
  select r.* into state from tollgate.rolled r for no key update skip locked;
  if not found then
    return '{"requests": 0, "more": false}';
  end if;
  -- Admission draws its transaction id before it reads the clock, so requests made before a sighting belong to older
  -- transactions than the sighting's own. None takes an hour: one that stays longer is no admission.
  if state.sighted_xid <= pg_snapshot_xmin(pg_current_snapshot()) or state.sighted_at < now() - interval '1 hour' then
    state.complete_until := state.sighted_at;
    state.sighted_xid := null;
  end if;
  if state.sighted_xid is null then
    state.sighted_at := now();
    state.sighted_xid := pg_current_xact_id();
  end if;
  update tollgate.rolled set
    sighted_at = state.sighted_at, sighted_xid = state.sighted_xid, complete_until = state.complete_until;
  return tollgate.roll_up(date_trunc('hour', state.complete_until, 'UTC'), page_size);
end
$$;

comment on function public.tollgate_roll_up_usage(integer) is
  'One bounded step of rolling up usage: the hours that are over and of which every request is there to be seen, a page of requests at a time. Answers {"requests", "more"}; called again while there is more. Refuses nothing. Locks the row of tollgate.rolled; when another has it, does nothing.';


create function tollgate.roll_up_again(since timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  state tollgate.rolled;
  beginning timestamptz;
begin
  select r.* into state from tollgate.rolled r for no key update;
  beginning := date_trunc('day', since, 'UTC');
  if beginning < state.dropped_until then
    beginning := tollgate.day_from(state.dropped_until);
  end if;
  delete from tollgate.tallies t where t.start >= beginning;
  delete from tollgate.latencies t where t.start >= beginning;
  delete from tollgate.late_requests l where l.created_at >= beginning;
  update tollgate.rolled set rolled_until = least(rolled_until, beginning);
end
$$;

comment on function tollgate.roll_up_again(timestamptz) is
  'Forgets what was rolled up from the day of a moment on, so that it is counted anew: after requests were brought in from elsewhere. Days of which requests were dropped stay as they are. Locks the row of tollgate.rolled.';


create type tollgate.usage as (
  start timestamptz,
  org_id text,
  user_id text,
  key_id text,
  model text,
  upstream text,
  requests bigint,
  errors bigint,
  streamed bigint,
  estimated bigint,
  prompt_tokens bigint,
  completion_tokens bigint,
  charge_nanos bigint,
  cost_nanos bigint,
  last_at timestamptz
);

comment on type tollgate.usage is 'What was used, by whatever was asked for; the rest of start … upstream is null.';


create function tollgate.with_org(filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select filters || jsonb_strip_nulls(jsonb_build_object('org_id', coalesce(
    filters ->> 'org_id',
    (select k.org_id from tollgate.api_keys k where k.id = filters ->> 'key_id'),
    (select u.org_id from tollgate.users u where u.id = filters ->> 'user_id')
  )))
$$;

comment on function tollgate.with_org(jsonb) is
  'The filters and the org that they lead to, by whose index its requests are found.';


create type tollgate.spans as (
  beginning timestamptz,
  first_hour timestamptz,
  first_day timestamptz,
  last_day timestamptz,
  last_hour timestamptz,
  ending timestamptz
);

comment on type tollgate.spans is 'A time, divided: whole hours from first_hour to last_hour, whole days among them; requests themselves before and after.';


create function tollgate.spans_of(
  since timestamptz,
  until timestamptz,
  smallest text,
  only_days boolean default false
) returns tollgate.spans
language plpgsql
stable
set search_path = ''
as $$
declare
  state tollgate.rolled;
  spans tollgate.spans;
begin
  select r.* into state from tollgate.rolled r;
  spans.beginning := coalesce(since, '-infinity');
  spans.ending := coalesce(until, 'infinity');
  if spans.beginning < state.dropped_until then
    spans.beginning := tollgate.hour_from(spans.beginning);
  end if;
  if spans.ending < state.dropped_until then
    spans.ending := tollgate.hour_from(spans.ending);
  end if;

  spans.first_hour := tollgate.hour_from(spans.beginning);
  spans.last_hour := date_trunc('hour', least(spans.ending, state.rolled_until), 'UTC');
  if smallest = 'minute' or spans.last_hour < spans.first_hour then
    spans.first_hour := spans.beginning;
    spans.last_hour := spans.beginning;
  end if;
  spans.first_day := tollgate.day_from(spans.first_hour);
  spans.last_day := date_trunc('day', spans.last_hour, 'UTC');
  if smallest = 'hour' or spans.last_day < spans.first_day then
    spans.first_day := spans.first_hour;
    spans.last_day := spans.first_hour;
  end if;
  if only_days then
    spans.first_hour := spans.first_day;
    spans.last_hour := spans.last_day;
  end if;
  return spans;
end
$$;

comment on function tollgate.spans_of(timestamptz, timestamptz, text, boolean) is
  'What of a time is rolled up by whole hours and days, where nothing smaller than the smallest must be told apart; or by whole days only. Where requests were dropped, both ends move on to the next full hour, so that times side by side never share one.';


create function tollgate.wanted(filters jsonb, columns text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(string_agg(format(' and t.%I = %L', f.key, f.value), '' order by f.key), '')
  from jsonb_each_text(filters) f
  where f.key = any (columns)
$$;

comment on function tollgate.wanted(jsonb, text[]) is 'The filters on these columns as a condition on `t`.';


create function tollgate.usage_by(
  by text[],
  since timestamptz default null,
  until timestamptz default null,
  filters jsonb default '{}'
) returns setof tollgate.usage
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  unit constant text := (select u from unnest(array['minute', 'hour', 'day', 'month']) u where u = any (by) limit 1);
  people constant boolean := by && '{org,user,key}' or filters ?| '{org_id,user_id,key_id}';
  models constant boolean := by && '{model,upstream}' or filters ?| '{model,upstream}';
  spans constant tollgate.spans := tollgate.spans_of(since, until, unit);
  wanted constant text := tollgate.wanted(
    tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream']
  );
  raw constant text := $raw$
    select t.created_at as start, t.org_id, t.user_id, t.key_id, t.model, coalesce(t.upstream, '') as upstream,
      1 as requests, ((t.error_code is not null or t.status >= 400) is true)::integer as errors,
      t.streamed::integer as streamed, t.estimated::integer as estimated,
      t.prompt_tokens::bigint, t.completion_tokens::bigint, t.charge_nanos::bigint, t.cost_nanos::bigint, t.created_at as last_at
    from tollgate.requests t $raw$;
  tallied constant text := $tallied$
    select t.start, t.org_id, t.user_id, t.key_id, t.model, t.upstream, t.requests, t.errors, t.streamed, t.estimated,
      t.prompt_tokens, t.completion_tokens, t.charge_nanos, t.cost_nanos, t.last_at
    from tollgate.tallies t $tallied$;
  selected constant text := concat_ws(', ',
    case when unit is null then 'null::timestamptz' else format('date_trunc(%L, t.start, ''UTC'')', unit) end,
    case when 'org' = any (by) then 't.org_id' else 'null::text' end,
    case when 'user' = any (by) then 't.user_id' else 'null::text' end,
    case when 'key' = any (by) then 't.key_id' else 'null::text' end,
    case when 'model' = any (by) then 't.model' else 'null::text' end,
    case when 'upstream' = any (by) then 'nullif(t.upstream, '''')' else 'null::text' end
  );
begin
  return query execute format(
    $query$
      select %1$s,
        coalesce(sum(t.requests), 0)::bigint, coalesce(sum(t.errors), 0)::bigint,
        coalesce(sum(t.streamed), 0)::bigint, coalesce(sum(t.estimated), 0)::bigint,
        coalesce(sum(t.prompt_tokens), 0)::bigint, coalesce(sum(t.completion_tokens), 0)::bigint,
        coalesce(sum(t.charge_nanos), 0)::bigint, coalesce(sum(t.cost_nanos), 0)::bigint, max(t.last_at)
      from (
        %2$s where t.created_at >= $1 and t.created_at < $2 %6$s
        union all
        %2$s where t.created_at >= $5 and t.created_at < $6 %6$s
        union all
        %2$s where t.id = any (array(
          select l.request_id from tollgate.late_requests l where l.created_at >= $2 and l.created_at < $5
        )) %6$s
        union all
        %3$s where t.cut = %4$L and t.start >= $2 and t.start < $3 %6$s
        union all
        %3$s where t.cut = %5$L and t.start >= $3 and t.start < $4 %6$s
        union all
        %3$s where t.cut = %4$L and t.start >= $4 and t.start < $5 %6$s
      ) t
      group by %7$s
    $query$,
    selected,
    raw,
    tallied,
    case when people then 'hour' else 'hour_model' end,
    case when not people then 'day_model' when models then 'day' else 'day_key' end,
    wanted,
    case when by = '{}' then '()' else '1, 2, 3, 4, 5, 6' end
  ) using spans.beginning, spans.first_hour, spans.first_day, spans.last_day, spans.last_hour, spans.ending;
end
$$;

comment on function tollgate.usage_by(text[], timestamptz, timestamptz, jsonb) is
  'What was used from a time until before another, by any of minute, hour, day, month, org, user, key, model, upstream. Rolled hours and days where whole ones lie between, requests themselves at the edges, after what was rolled up, and where they are late: every request is counted exactly once. Where requests were dropped, an hour counts when it begins in the time asked for.';


create type tollgate.latency as (
  requests bigint,
  average_ms numeric,
  p50_ms bigint,
  p90_ms bigint,
  p95_ms bigint,
  p99_ms bigint
);

comment on type tollgate.latency is 'How long requests took; nulls where there were none.';


create function tollgate.latency_between(
  kind text,
  since timestamptz default null,
  until timestamptz default null,
  filters jsonb default '{}'
) returns tollgate.latency
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  people constant boolean := filters ?| '{org_id,user_id,key_id}';
  models constant boolean := filters ?| '{model,upstream}';
  spans constant tollgate.spans := tollgate.spans_of(since, until, case when people then 'minute' end, models);
  measured constant text := case kind when 'whole' then 'duration_ms' else 'first_token_ms' end;
  raw constant text := format($raw$
    select floor(ln(greatest(t.%1$I, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      1 as requests, t.%1$I::bigint as total_ms
    from tollgate.requests t
    where t.%1$I is not null and t.settled_at is not null 
      and (t.error_code is not null or t.status >= 400) is not true %2$s $raw$,
    measured,
    tollgate.wanted(tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream'])
  );
  rolled constant text := format(
    'select t.bucket, t.requests, t.total_ms from tollgate.latencies t where t.kind = %L %s',
    kind,
    tollgate.wanted(filters, array['model', 'upstream'])
  );
  found_latency tollgate.latency;
begin
  execute format(
    $query$
      with buckets as (
        select t.bucket, sum(t.requests) as requests, sum(t.total_ms) as total_ms
        from (
          %1$s and t.created_at >= $1 and t.created_at < $2
          union all
          %1$s and t.created_at >= $5 and t.created_at < $6
          union all
          %1$s and t.id = any (array(
            select l.request_id from tollgate.late_requests l where l.created_at >= $2 and l.created_at < $5
          ))
          union all
          %2$s and t.cut = 'hour' and t.start >= $2 and t.start < $3
          union all
          %2$s and t.cut = %3$L and t.start >= $3 and t.start < $4
          union all
          %2$s and t.cut = 'hour' and t.start >= $4 and t.start < $5
        ) t
        group by t.bucket
      ),
      ranked as (
        select b.*, sum(b.requests) over (order by b.bucket) as up_to, sum(b.requests) over () as of_all,
          round(b.total_ms / b.requests) as ms
        from buckets b
      )
      select
        coalesce(max(r.of_all), 0), round(sum(r.total_ms) / max(r.of_all), 1),
        min(r.ms) filter (where r.up_to >= 0.50 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.90 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.95 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.99 * r.of_all)
      from ranked r
    $query$,
    raw,
    rolled,
    case when models then 'day_model' else 'day' end
  ) into found_latency
  using spans.beginning, spans.first_hour, spans.first_day, spans.last_day, spans.last_hour, spans.ending;
  return found_latency;
end
$$;

comment on function tollgate.latency_between(text, timestamptz, timestamptz, jsonb) is
  'How long requests without an error took, whole or until their first token, within 5 %: a percentile is the mean of the bucket it lies in. From rolled hours and days, by model or upstream from whole days only; of an org, user or key from its requests themselves, for which the caller bounds the span.';


create function tollgate.credits_of(nanos bigint) returns numeric
language sql
immutable
set search_path = ''
as $$
  select trim_scale(nanos / 1000000000.0)
$$;

comment on function tollgate.credits_of(bigint) is 'Nanos as credits, for people to read.';


create function tollgate.own_or_all(actor tollgate.caller, filters jsonb, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when everyone then filters else filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')) end
$$;

comment on function tollgate.own_or_all(tollgate.caller, jsonb, boolean) is
  'The filters, over the caller''s own org unless it asks for everyone''s.';


create function tollgate.requests_wanted(filters jsonb) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.wanted(
      filters,
      array['org_id', 'user_id', 'key_id', 'model', 'upstream', 'endpoint', 'state', 'streamed', 'estimated']
    )
    || case
      when filters ->> 'status' like '_xx' then format(' and t.status / 100 = %L', left(filters ->> 'status', 1))
      when filters ? 'status' then format(' and t.status = %L', filters ->> 'status')
      else ''
    end
    || case when filters ? 'cached' then format(' and (tollgate.cached_tokens(t.usage) > 0) = %L', filters ->> 'cached')
      else ''
    end
$$;

comment on function tollgate.requests_wanted(jsonb) is
  'The filters of a list of requests as a condition on `t`. status is a code, or 4xx for all of its hundred.';


create function tollgate.cached_tokens(usage jsonb) returns numeric
language sql
immutable
set search_path = ''
as $$
  select coalesce(sum(c.value::text::numeric), 0)
  from (values
    (usage #> '{prompt_tokens_details,cached_tokens}'),
    (usage #> '{input_tokens_details,cached_tokens}'),
    (usage #> '{cache_read_input_tokens}')
  ) c (value)
  where jsonb_typeof(c.value) = 'number'
$$;

comment on function tollgate.cached_tokens(jsonb) is
  'How many tokens of the prompt the upstream found in its cache, in whichever of three places it says so.';


create function tollgate.request_rows(filters jsonb, page_size integer, everyone boolean) returns json
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  upwards constant boolean := filters ->> 'sort' is not distinct from 'created_at';
  past tollgate.requests;
  dropped timestamptz := (select r.dropped_until from tollgate.rolled r);
  rows json;
begin
  if filters ? 'cursor' then
    select r.* into past from tollgate.requests r
    where r.id = filters ->> 'cursor' and (everyone or r.org_id = filters ->> 'org_id');
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;
  execute format(
    $query$
      select json_agg(p) from (
        select t.id, tollgate.utc(t.created_at) as created_at, t.org_id, t.user_id, t.key_id, t.endpoint, t.model,
          t.served_model, t.upstream, t.state, t.status, t.error_code, t.streamed, t.estimated, t.quarantined,
          t.prompt_tokens, t.completion_tokens, tollgate.cached_tokens(t.usage) as cached_tokens,
          t.charge_nanos, tollgate.credits_of(t.charge_nanos) as charge_credits, %1$s
          t.duration_ms, t.first_token_ms, tollgate.utc(t.settled_at) as settled_at
        from tollgate.requests t
        where t.created_at >= $1 and t.created_at < $2 %2$s %3$s
        order by t.created_at %4$s, t.id %4$s
        limit $5
      ) p
    $query$,
    case when everyone then 't.cost_nanos, tollgate.credits_of(t.cost_nanos) as cost_credits, t.generation_id,' end,
    tollgate.requests_wanted(tollgate.with_org(filters)),
    case when past.id is null then '' when upwards then 'and (t.created_at, t.id) > ($3, $4)'
      else 'and (t.created_at, t.id) < ($3, $4)' end,
    case when upwards then 'asc' else 'desc' end
  ) into rows using
    greatest(coalesce((filters ->> 'from')::timestamptz, '-infinity'), dropped),
    coalesce((filters ->> 'to')::timestamptz, 'infinity'),
    past.created_at, past.id, page_size;
  return coalesce(rows, '[]');
end
$$;

comment on function tollgate.request_rows(jsonb, integer, boolean) is
  'A page of requests, newest first unless sorted by created_at; with cost and generation where they are everyone''s. Refuses an unknown cursor.';


create function tollgate.how_many(filters jsonb) returns bigint
language sql
stable
set search_path = ''
as $$
  select (tollgate.usage_by(
    '{}',
    greatest((filters ->> 'from')::timestamptz, r.dropped_until),
    (filters ->> 'to')::timestamptz,
    filters
  )).requests
  from tollgate.rolled r
  where filters - '{from,to,sort,cursor,org_id,user_id,key_id,model,upstream}'::text[] = '{}'
$$;

comment on function tollgate.how_many(jsonb) is
  'How many requests a list has, where the tallies know it; null where counting would mean reading them all.';


create function public.tollgate_requests(
  caller jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean,
  counted boolean
) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  wanted jsonb := tollgate.own_or_all(actor, filters, everyone);
  found_rows json := tollgate.request_rows(wanted, page_size + 1, everyone);
  more boolean := json_array_length(found_rows) > page_size;
begin
  return json_build_object(
    'caller', tollgate.identity(actor),
    'data', case when more then (
      select json_agg(r.value order by r.place) from json_array_elements(found_rows) with ordinality r (value, place)
      where r.place <= page_size
    ) else found_rows end,
    'next_cursor', case when more then found_rows -> (page_size - 1) ->> 'id' end,
    'total', case when counted then tollgate.how_many(wanted) end
  );
end
$$;

comment on function public.tollgate_requests(jsonb, jsonb, integer, boolean, boolean) is
  'A page of requests: everyone''s for admins, or those of the caller''s org without what they cost us. `filters`: model, key_id, user_id, org_id, upstream, endpoint, status (a code, or 4xx), state, streamed, estimated, cached, from, to, cursor, sort (-created_at or created_at). `total` is null unless wanted and cheap. Refuses: as recognise(), invalid_request. Locks nothing.';


create function tollgate.measures(used tollgate.usage, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', used.requests,
    'errors', used.errors,
    'streamed', used.streamed,
    'estimated', used.estimated,
    'prompt_tokens', used.prompt_tokens,
    'completion_tokens', used.completion_tokens,
    'charge_nanos', used.charge_nanos,
    'charge_credits', tollgate.credits_of(used.charge_nanos)
  ) || case when everyone then jsonb_build_object(
    'cost_nanos', used.cost_nanos,
    'cost_credits', tollgate.credits_of(used.cost_nanos),
    'margin_nanos', used.charge_nanos - used.cost_nanos,
    'margin_credits', tollgate.credits_of(used.charge_nanos - used.cost_nanos)
  ) else '{}' end
$$;

comment on function tollgate.measures(tollgate.usage, boolean) is
  'What was used, as answers tell it; cost and margin only where it is everyone''s.';


create function tollgate.group_id(used tollgate.usage) returns text
language sql
immutable
set search_path = ''
as $$
  select md5(jsonb_build_array(
    used.start, used.org_id, used.user_id, used.key_id, used.model, used.upstream
  )::text)
$$;

comment on function tollgate.group_id(tollgate.usage) is 'By what a cursor finds its place among groups.';


create function public.tollgate_usage_aggregate(
  caller jsonb,
  by jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean
) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  groups text[] := array(select jsonb_array_elements_text(by));
  answer jsonb;
begin
  with used as materialized (
    select u.*, tollgate.group_id(u) as id
    from tollgate.usage_by(
      groups, (filters ->> 'from')::timestamptz, (filters ->> 'to')::timestamptz,
      tollgate.own_or_all(actor, filters, everyone)
    ) u
    where u.requests > 0
  ),
  placed as materialized (
    select u.*, row_number() over (order by
      case when filters ->> 'sort' = 'start' then u.start end,
      case filters ->> 'sort'
        when 'requests' then u.requests
        when 'errors' then u.errors
        when 'tokens' then u.prompt_tokens + u.completion_tokens
        when 'charge' then u.charge_nanos
        when 'cost' then u.cost_nanos
        when 'margin' then u.charge_nanos - u.cost_nanos
      end desc,
      u.id
    ) as place
    from used u
  ),
  past as (
    select case when filters ? 'cursor' then (select p.place from placed p where p.id = filters ->> 'cursor') else 0 end
      as place
  ),
  page as (
    select p.* from placed p, past where p.place > past.place order by p.place limit page_size
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(
        (
          select jsonb_object_agg(d.name, d.value)
          from (values
            ('day', 'start', tollgate.utc(p.start)),
            ('month', 'start', tollgate.utc(p.start)),
            ('org', 'org_id', p.org_id),
            ('org', 'org_name', (select o.name from tollgate.orgs o where o.id = p.org_id)),
            ('user', 'user_id', p.user_id),
            ('user', 'user_email', (select u.email from tollgate.users u where u.id = p.user_id)),
            ('key', 'key_id', p.key_id),
            ('key', 'key_name', (select k.name from tollgate.api_keys k where k.id = p.key_id)),
            ('model', 'model', p.model),
            ('upstream', 'upstream', p.upstream)
          ) d (of_group, name, value)
          where d.of_group = any (groups)
        )
        || tollgate.measures(
          row(null, null, null, null, null, null, p.requests, p.errors, p.streamed, p.estimated, p.prompt_tokens,
            p.completion_tokens, p.charge_nanos, p.cost_nanos, p.last_at)::tollgate.usage,
          everyone
        )
        || jsonb_build_object('last_request_at', tollgate.utc(p.last_at))
        order by p.place
      )
      from page p
    ), '[]'),
    'next_cursor', (
      select p.id from page p
      where p.place = (select max(l.place) from page l) and p.place < (select count(*) from placed)
    ),
    'total', (select count(*) from placed),
    'totals', (
      select tollgate.measures(
        row(null, null, null, null, null, null, coalesce(sum(u.requests), 0), coalesce(sum(u.errors), 0),
          coalesce(sum(u.streamed), 0), coalesce(sum(u.estimated), 0), coalesce(sum(u.prompt_tokens), 0),
          coalesce(sum(u.completion_tokens), 0), coalesce(sum(u.charge_nanos), 0), coalesce(sum(u.cost_nanos), 0),
          max(u.last_at))::tollgate.usage,
        everyone
      )
      from used u
    ),
    'unknown', past.place is null
  ) into answer
  from past;
  if (answer -> 'unknown')::boolean then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
  end if;
  return answer - 'unknown';
end
$$;

comment on function public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean) is
  'Usage by any of day, month, model, key, user, org, upstream, a page of groups and the totals of all: everyone''s for admins, or of the caller''s org without what it cost us. `filters`: org_id, user_id, key_id, model, upstream, from, to, cursor, sort (start, or the most requests, errors, tokens, charge, cost, margin first). Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_usage_series(caller jsonb, bucket text, filters jsonb, everyone boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  beginning timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(
          row(null, null, null, null, null, null, coalesce(u.requests, 0), coalesce(u.errors, 0),
            coalesce(u.streamed, 0), coalesce(u.estimated, 0), coalesce(u.prompt_tokens, 0),
            coalesce(u.completion_tokens, 0), coalesce(u.charge_nanos, 0), coalesce(u.cost_nanos, 0),
            null)::tollgate.usage,
          everyone
        )
        order by s.start
      ), '[]')
    )
    from generate_series(beginning, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
    left join tollgate.usage_by(
      array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
    ) u on u.start = s.start
  );
end
$$;

comment on function public.tollgate_usage_series(jsonb, text, jsonb, boolean) is
  'Usage in every minute, hour or day from a time, moved back to where its bucket begins, until before another, empty ones included; the caller bounds how many. Everyone''s for admins, or the caller''s org''s without what it cost us. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';


create function public.tollgate_latency(caller jsonb, kind text, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return to_jsonb(tollgate.latency_between(
    kind, (filters ->> 'from')::timestamptz, (filters ->> 'to')::timestamptz, filters
  )) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_latency(jsonb, text, jsonb) is
  'How long requests took, whole or until their first token (`kind`: whole, first_token). For admins. `filters`: from, to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';


create function tollgate.used(used tollgate.usage) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'tokens', coalesce(used.prompt_tokens + used.completion_tokens, 0),
    'charge_nanos', coalesce(used.charge_nanos, 0),
    'charge_credits', tollgate.credits_of(coalesce(used.charge_nanos, 0))
  )
$$;

comment on function tollgate.used(tollgate.usage) is 'What was used, in short.';


create function public.tollgate_keys_usage(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  past tollgate.api_keys;
  own constant jsonb := jsonb_build_object('org_id', actor.org_id);
begin
  if filters ? 'cursor' then
    select k.* into past from tollgate.api_keys k where k.id = filters ->> 'cursor' and k.org_id = actor.org_id;
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;
  return (
    with page as (
      select k.*, row_number() over (order by k.created_at desc, k.id desc) as place
      from tollgate.api_keys k
      where k.org_id = actor.org_id and (past.id is null or (k.created_at, k.id) < (past.created_at, past.id))
      order by k.created_at desc, k.id desc
      limit page_size + 1
    )
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object(
          'id', p.id,
          'name', p.name,
          'key', p.prefix || '…' || p.last_four,
          'user_id', p.user_id,
          'environment', p.environment,
          'status', case when p.revoked_at is not null then 'revoked' when p.disabled_at is not null then 'disabled'
            when p.expires_at <= now() then 'expired' else 'active' end,
          'created_at', tollgate.utc(p.created_at),
          'last_used_at', tollgate.utc(p.last_used_at),
          'today', tollgate.used(today),
          'last_30_days', tollgate.used(month),
          'all_time', tollgate.used(always)
        )
        order by p.place
      ) filter (where p.place <= page_size), '[]'),
      'next_cursor', case when count(*) > page_size then min(p.id) filter (where p.place = page_size) end,
      'total', (select count(*) from tollgate.api_keys k where k.org_id = actor.org_id)
    )
    from page p
    left join tollgate.usage_by('{key}', date_trunc('day', now(), 'UTC'), null, own) today on today.key_id = p.id
    left join tollgate.usage_by('{key}', date_trunc('hour', now()) - interval '30 days', null, own) month
      on month.key_id = p.id
    left join tollgate.usage_by('{key}', null, null, own) always on always.key_id = p.id
  );
end
$$;

comment on function public.tollgate_keys_usage(jsonb, jsonb, integer) is
  'The keys of the caller''s org, newest first, with what each used today (UTC), in 30 days and ever. `filters`: cursor. Refuses: as recognise(), invalid_request. Locks nothing.';


create table tollgate.dropped (
  org_id text primary key,
  requests bigint not null default 0,
  charges bigint not null default 0,
  charge_nanos bigint not null default 0
);

comment on table tollgate.dropped is 'What the requests that retention dropped had been charged, so that the charges that lost their request can still be proved.';

alter table tollgate.dropped enable row level security;


create function public.tollgate_drop_old_requests(older_than_days integer, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  boundary timestamptz;
  gone text[];
begin
  -- Whole hours that are rolled up, so that what they counted stays known.
  select date_trunc('hour', least(r.rolled_until, now() - make_interval(days => greatest(older_than_days, 1))), 'UTC')
  into boundary
  from tollgate.rolled r;
  update tollgate.rolled set dropped_until = boundary where dropped_until < boundary;

  with old as (
    delete from tollgate.requests r
    where r.id = any (array(
      select o.id from tollgate.requests o
      where o.created_at < boundary and o.settled_at is not null
        and not exists (select from tollgate.late_requests l where l.request_id = o.id)
      order by o.created_at
      limit page_size
      for update skip locked
    ))
    returning r.id, r.org_id, r.charge_nanos
  ),
  noted as (
    insert into tollgate.dropped as d (org_id, requests, charges, charge_nanos)
    select o.org_id, count(*), count(*) filter (where o.charge_nanos > 0), coalesce(sum(o.charge_nanos), 0)
    from old o
    group by o.org_id
    order by o.org_id
    on conflict (org_id) do update set
      requests = d.requests + excluded.requests,
      charges = d.charges + excluded.charges,
      charge_nanos = d.charge_nanos + excluded.charge_nanos
  )
  select array_agg(o.id) into gone from old o;
  delete from tollgate.answers a where a.request_id = any (gone);
  return jsonb_build_object(
    'requests', coalesce(cardinality(gone), 0), 'more', coalesce(cardinality(gone), 0) >= page_size
  );
end
$$;

comment on function public.tollgate_drop_old_requests(integer, integer) is
  'Drops a batch of the oldest ended requests made so many days ago or more (at least one), and their answers, once they are rolled up; called again while it answers "more". What they used stays in the tallies, what they were charged in the ledger and, by org, in tollgate.dropped. Refuses nothing. Locks the dropped rows, skipping locked ones, never an org; the row of tollgate.rolled when the hour has moved on.';


-- As before, but that it knows what retention dropped: the arms stray_charge and dropped_charges.
create or replace function public.tollgate_audit_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with wallets as (
    select o.id, o.balance_nanos, o.held_nanos,
      coalesce((
        select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end)
        from tollgate.transfers t where t.org_id = o.id
      ), 0) as transferred,
      coalesce((
        select sum(r.hold_nanos) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ), 0) as held
    from tollgate.orgs o
  ),
  faults as (
    select 'balance' as fault, w.id, jsonb_build_object('balance_nanos', w.balance_nanos, 'transfers', w.transferred) as facts
    from wallets w where w.balance_nanos <> w.transferred
    union all
    select 'held', w.id, jsonb_build_object('held_nanos', w.held_nanos, 'open_holds', w.held)
    from wallets w where w.held_nanos <> w.held
    union all
    select 'hold', coalesce(r.id, h.request_id), jsonb_build_object('state', r.state, 'open', h.request_id is not null)
    from tollgate.requests r
    full join tollgate.holds h on h.request_id = r.id
    where coalesce(r.state in ('held', 'unsettled'), false) <> (h.request_id is not null)
    union all
    select 'charge', r.id, jsonb_build_object('charge_nanos', r.charge_nanos, 'transfers', count(t.position), 'amount_nanos', sum(t.amount_nanos))
    from tollgate.requests r
    left join tollgate.transfers t on t.kind = 'charge' and t.reference = r.id
    where r.state = 'settled'
    group by r.id
    having count(t.position) <> (case when r.charge_nanos > 0 then 1 else 0 end)
      or coalesce(sum(t.amount_nanos), 0) <> r.charge_nanos
    union all
    select 'stray_charge', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'state', r.state)
    from tollgate.transfers t
    left join tollgate.requests r on r.id = t.reference
    left join tollgate.dropped d on d.org_id = t.org_id and d.charges > 0
    where t.kind = 'charge' and r.state is distinct from 'settled' and (r.id is not null or d.org_id is null)
    union all
    select 'dropped_charges', d.org_id, jsonb_build_object(
      'dropped', d.charges, 'dropped_nanos', d.charge_nanos, 'transfers', c.charges, 'amount_nanos', c.nanos
    )
    from tollgate.dropped d
    cross join lateral (
      select count(*) as charges, coalesce(sum(t.amount_nanos), 0) as nanos
      from tollgate.transfers t
      left join tollgate.requests r on r.id = t.reference
      where t.org_id = d.org_id and t.kind = 'charge' and r.id is null
    ) c
    where d.charges <> c.charges or d.charge_nanos <> c.nanos
    union all
    select 'running_balance', 'trf_' || s.position, jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
    from (
      select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
        case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
      from tollgate.transfers t
    ) s
    where s.before + s.change <> s.balance_after_nanos
  )
  select jsonb_build_object(
    'orgs', (select count(*) from tollgate.orgs),
    'transfers', (select count(*) from tollgate.transfers),
    'requests', (select count(*) from tollgate.requests),
    'open_holds', (select count(*) from tollgate.holds),
    'accounts_nanos', coalesce((
      select jsonb_object_agg(a.account, a.nanos) from (
        select e.account, sum(e.nanos) as nanos from (
          select t.debit as account, -t.amount_nanos as nanos from tollgate.transfers t
          union all
          select t.credit, t.amount_nanos from tollgate.transfers t
        ) e group by e.account
      ) a
    ), '{}'::jsonb),
    'faults', coalesce((
      select jsonb_agg(jsonb_build_object('fault', f.fault, 'id', f.id, 'facts', f.facts)) from faults f
    ), '[]'::jsonb)
  )
$$;

comment on function public.tollgate_audit_books() is
  'Proves the books from the tables alone: every balance is its transfers, every held sum its open holds, every open request one hold, every settled charge one transfer, every running balance the one before and its change; charges of an org whose requests retention dropped are, in number and sum, what it noted then. Names each row that does not fit. Refuses nothing, locks nothing.';


select tollgate.expose('public.tollgate_roll_up_usage(integer)');
select tollgate.expose('public.tollgate_requests(jsonb, jsonb, integer, boolean, boolean)');
select tollgate.expose('public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean)');
select tollgate.expose('public.tollgate_usage_series(jsonb, text, jsonb, boolean)');
select tollgate.expose('public.tollgate_latency(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_keys_usage(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_drop_old_requests(integer, integer)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001600'
$$;

revoke execute on all functions in schema tollgate from public;
