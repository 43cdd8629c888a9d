-- The operator's figures of this moment.

create function tollgate.last_day() returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.usage_by('{upstream}', now() - interval '24 hours') u
  )
  select jsonb_build_object(
    'requests', coalesce(sum(u.requests), 0),
    'errors', coalesce(sum(u.errors), 0),
    'latency', (select to_jsonb(l) from tollgate.latency_between('whole', now() - interval '24 hours', null, '{}') l),
    'first_token', (
      select to_jsonb(l) from tollgate.latency_between('first_token', now() - interval '24 hours', null, '{}') l
    ),
    'upstreams', coalesce(jsonb_agg(jsonb_build_object(
      'upstream', nullif(u.upstream, ''), 'requests', u.requests, 'errors', u.errors, 'cost_nanos', u.cost_nanos
    ) order by u.requests desc, u.upstream), '[]')
  )
  from used u
$$;

comment on function tollgate.last_day() is 'Requests, errors and latencies of the last 24 hours, in all and by upstream; null is no upstream.';


create function tollgate.usage_today() returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'orgs', count(distinct u.org_id), 'users', count(distinct u.user_id), 'keys', count(distinct u.key_id)
  )
  from tollgate.usage_by('{org,user,key}', date_trunc('day', now(), 'UTC')) u
$$;

comment on function tollgate.usage_today() is 'How many orgs, users and keys have made a request today (UTC).';


create function tollgate.recent_usage(today timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.usage_by('{day}', today - interval '29 days') u
  )
  select jsonb_object_agg(s.name, (
    select jsonb_build_object(
      'requests', coalesce(sum(u.requests), 0),
      'errors', coalesce(sum(u.errors), 0),
      'prompt_tokens', coalesce(sum(u.prompt_tokens), 0),
      'completion_tokens', coalesce(sum(u.completion_tokens), 0),
      'charge_nanos', coalesce(sum(u.charge_nanos), 0),
      'cost_nanos', coalesce(sum(u.cost_nanos), 0)
    )
    from used u
    where u.start > today - make_interval(days => s.days)
  ))
  from (values ('today', 1), ('last_7_days', 7), ('last_30_days', 30)) s (name, days)
$$;

comment on function tollgate.recent_usage(timestamptz) is
  'What all orgs used today, in 7 days and in 30: whole days (UTC) including today.';


create function tollgate.models_today(today timestamptz, places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  with ranked as (
    select u.*, row_number() over (order by u.charge_nanos desc, u.requests desc, u.model) as place
    from tollgate.usage_by('{model}', today) u
  ),
  shown as (
    select case when r.place <= places then r.model else 'other' end as model,
      sum(r.requests) as requests,
      sum(r.prompt_tokens) as prompt_tokens,
      sum(r.completion_tokens) as completion_tokens,
      sum(r.charge_nanos) as charge_nanos
    from ranked r
    group by 1
  )
  select coalesce(jsonb_agg(to_jsonb(s) order by s.charge_nanos desc, s.requests desc, s.model), '[]') from shown s
$$;

comment on function tollgate.models_today(timestamptz, integer) is
  'What was used of each model today (UTC): of those that were charged most, and of all others together as `other`.';


create function tollgate.newest_requests(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(tollgate.request_shown(r::tollgate.requests) order by r.created_at desc, r.id desc), '[]')
  from (select n.* from tollgate.requests n order by n.created_at desc, n.id desc limit places) r
$$;

comment on function tollgate.newest_requests(integer) is 'The requests admitted last, of all orgs.';


create function tollgate.population(active jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'orgs', (
      select jsonb_build_object(
        'total', count(*), 'usable', count(*) filter (where o.status = 'active'), 'active_today', active -> 'orgs'
      ) from tollgate.orgs o
    ),
    'users', (
      select jsonb_build_object(
        'total', count(*), 'usable', count(*) filter (where u.status = 'active'), 'active_today', active -> 'users'
      ) from tollgate.users u
    ),
    'keys', (
      select jsonb_build_object(
        'total', count(*),
        'usable', count(*) filter (
          where k.revoked_at is null and k.disabled_at is null and coalesce(k.expires_at > now(), true)
        ),
        'active_today', active -> 'keys'
      ) from tollgate.api_keys k
    )
  )
$$;

comment on function tollgate.population(jsonb) is 'How many orgs, users and keys there are, how many of them may make calls, and how many did today.';


create function tollgate.needs_attention(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  with orgs as materialized ( -- which is read once, since each row has all counters of its org
    select o.id, o.name, o.balance_nanos, o.paid_suspended_at, o.paid_suspended_reason from tollgate.orgs o
  )
  select jsonb_build_object(
    'open_holds', (
      select jsonb_build_object(
        'count', count(*),
        'held_nanos', coalesce(sum(r.hold_nanos), 0),
        'oldest_at', tollgate.utc(min(r.created_at)),
        'unsettled', count(*) filter (where r.state = 'unsettled')
      )
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
    ),
    'balances', (
      select jsonb_build_object('credits_nanos', coalesce(sum(o.balance_nanos), 0))
      from orgs o
      where o.balance_nanos > 0
    ),
    'overdrawn', (
      select jsonb_build_object(
        'count', count(*),
        'overdrawn_nanos', coalesce(-sum(o.balance_nanos), 0),
        'orgs', coalesce((
          select jsonb_agg(
            jsonb_build_object('org_id', w.id, 'name', w.name, 'credits_nanos', w.balance_nanos)
            order by w.balance_nanos, w.id
          )
          from (
            select d.* from orgs d where d.balance_nanos < 0 order by d.balance_nanos, d.id limit places
          ) w
        ), '[]')
      )
      from orgs o
      where o.balance_nanos < 0
    ),
    'paid_suspended', (
      select jsonb_build_object(
        'count', count(*),
        'orgs', coalesce(jsonb_agg(
          jsonb_build_object(
            'org_id', s.id, 'name', s.name, 'suspended_at', tollgate.utc(s.paid_suspended_at), 'reason', s.paid_suspended_reason
          )
          order by s.paid_suspended_at, s.id
        ) filter (where s.place <= places), '[]')
      )
      from (
        select o.*, row_number() over (order by o.paid_suspended_at, o.id) as place
        from orgs o
        where o.paid_suspended_at is not null
      ) s
    )
  )
$$;

comment on function tollgate.needs_attention(integer) is
  'Open holds, the sum of all balances above zero, orgs with a negative balance (the lowest are listed), and orgs whose paid calls are suspended (the earliest are listed).';


create function public.tollgate_monitor(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB' -- so that the month's keys are summed up in memory
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  today timestamptz := date_trunc('day', now(), 'UTC');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(now()),
    'usage', tollgate.recent_usage(today),
    'models_today', tollgate.models_today(today, 50),
    'last_24_hours', tollgate.last_day(),
    'recent_requests', tollgate.newest_requests(20),
    'cache', tollgate.cache_shown((today at time zone 'utc')::date),
    'database', tollgate.database_load()
  )
    || tollgate.population(tollgate.usage_today())
    || tollgate.top_lists(10, tollgate.top_since())
    || tollgate.needs_attention(10);
end
$$;

comment on function public.tollgate_monitor(jsonb) is
  'The operator''s overview: how many orgs, users and keys; what they used today, in 7 and in 30 days (UTC days including today); errors and latencies of 24 hours; the top orgs, keys and models; the newest requests; open holds and overdrawn orgs. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_monitor(jsonb)');
