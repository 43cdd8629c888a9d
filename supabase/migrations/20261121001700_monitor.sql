-- Why:  an operator must see at one look how the whole house is, and a key's owner how their part of it is.
-- What: leading (what each key used in 30 days, renewed by the hour), tollgate_monitor() for operators,
--       tollgate_own_monitor() and tollgate_key_usage() for a key's owner.
-- Care: reads only, but for what recognise() notes of a key's use. Builds on usage_by() and latency_between(), so what it
--       reads does not grow with the requests.

create function tollgate.used_since(since timestamptz, filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(sum(u.requests), 0),
    'errors', coalesce(sum(u.errors), 0),
    'prompt_tokens', coalesce(sum(u.prompt_tokens), 0),
    'completion_tokens', coalesce(sum(u.completion_tokens), 0),
    'charge_nanos', coalesce(sum(u.charge_nanos), 0),
    'cost_nanos', coalesce(sum(u.cost_nanos), 0),
    'most_used_model', (array_agg(u.model order by u.requests desc, u.model))[1],
    'last_request_at', tollgate.utc(max(u.last_at))
  )
  from tollgate.usage_by('{model}', since, null, filters) u
$$;

comment on function tollgate.used_since(timestamptz, jsonb) is
  'What was used from a moment on, null being the beginning; which model most requests were for, and when the last was made.';


create function tollgate.used_of_late(today timestamptz) returns jsonb
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

comment on function tollgate.used_of_late(timestamptz) is
  'What everybody used today, in 7 days and in 30: whole days, today among them, read together.';


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

comment on function tollgate.population(jsonb) is 'How many orgs, users and keys there are, how many of them may act, and how many did today.';


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

comment on function tollgate.last_day() is 'Requests, errors and latencies of the last 24 hours, and what went to each upstream; to null went what reached none.';


create table tollgate.leading (
  org_id text not null,
  key_id text not null,
  requests bigint not null,
  tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null
);

comment on table tollgate.leading is 'What each key used in the time that tollgate.led says: some 30 days, so that who leads is not reckoned each time from all days of all keys.';

create table tollgate.led (
  single boolean primary key default true check (single),
  since timestamptz,
  until timestamptz
);

comment on table tollgate.led is 'Of which time the rows of tollgate.leading are. One row, locked by whoever renews them.';

insert into tollgate.led default values;

alter table tollgate.leading enable row level security;
alter table tollgate.led enable row level security;


create function tollgate.led_since() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc('day', now(), 'UTC') - interval '29 days'
$$;

comment on function tollgate.led_since() is 'Where the 30 days begin in which one leads: today is one of them.';


create function public.tollgate_renew_leaders() returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
as $$
declare
  led tollgate.led;
  rolled_until timestamptz;
begin
  select l.* into led from tollgate.led l for no key update skip locked;
  select r.rolled_until into rolled_until from tollgate.rolled r;
  if led.single and isfinite(rolled_until)
    and (led.since, led.until) is distinct from (tollgate.led_since(), rolled_until) then
    delete from tollgate.leading;
    insert into tollgate.leading
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos
    from tollgate.usage_by('{org,key}', tollgate.led_since(), rolled_until) u
    where u.requests > 0;
    update tollgate.led set since = tollgate.led_since(), until = rolled_until;
  end if;
  return '{"more": false}';
end
$$;

comment on function public.tollgate_renew_leaders() is
  'Sums up what each key used in 30 days, as far as it is rolled up; does nothing when that is done already. What a request was charged that ended after its hour was rolled up comes in with the next hour. Refuses nothing. Locks the row of tollgate.led; when another has it, does nothing.';


create function tollgate.keys_of_late() returns table (
  org_id text, key_id text, requests numeric, tokens numeric, charge_nanos numeric, cost_nanos numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  led tollgate.led;
begin
  select l.* into led from tollgate.led l;
  -- Never renewed, or so long ago that there would be more to take away than to sum up.
  if (led.since between tollgate.led_since() - interval '7 days' and tollgate.led_since()) is not true then
    return query
    select u.org_id, u.key_id, u.requests::numeric, (u.prompt_tokens + u.completion_tokens)::numeric,
      u.charge_nanos::numeric, u.cost_nanos::numeric
    from tollgate.usage_by('{org,key}', tollgate.led_since()) u;
    return;
  end if;
  return query
  select p.org_id, p.key_id, sum(p.requests * p.sign), sum(p.tokens * p.sign), sum(p.charge_nanos * p.sign),
    sum(p.cost_nanos * p.sign)
  from (
    select l.org_id, l.key_id, l.requests, l.tokens, l.charge_nanos, l.cost_nanos, 1 as sign from tollgate.leading l
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, 1
    from tollgate.usage_by('{org,key}', led.until) u
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, -1
    from tollgate.usage_by('{org,key}', led.since, tollgate.led_since()) u
    where led.since < tollgate.led_since()
  ) p
  group by p.org_id, p.key_id
  having sum(p.requests * p.sign) > 0;
end
$$;

comment on function tollgate.keys_of_late() is
  'What each key used in 30 days: what was summed up of it, what came since, less the days that are 30 days old since.';


create function tollgate.leaders(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.keys_of_late() u
  ),
  orgs as (
    select u.org_id, sum(u.requests) as requests, sum(u.tokens) as tokens,
      sum(u.charge_nanos) as charge_nanos, sum(u.cost_nanos) as cost_nanos
    from used u
    group by u.org_id
    order by charge_nanos desc, requests desc, u.org_id
    limit places
  ),
  keys as (
    select u.* from used u
    order by u.charge_nanos desc, u.requests desc, u.key_id
    limit places
  ),
  models as (
    select u.model, u.requests, u.prompt_tokens + u.completion_tokens as tokens, u.charge_nanos, u.cost_nanos
    from tollgate.usage_by('{model}', tollgate.led_since()) u
    order by u.charge_nanos desc, u.requests desc, u.model
    limit places
  )
  select jsonb_build_object(
    'top_orgs', coalesce((
      select jsonb_agg(to_jsonb(t) || jsonb_build_object('name', o.name)
        order by t.charge_nanos desc, t.requests desc, t.org_id)
      from orgs t left join tollgate.orgs o on o.id = t.org_id
    ), '[]'),
    'top_keys', coalesce((
      select jsonb_agg(
        to_jsonb(t) || jsonb_build_object('name', k.name, 'prefix', k.prefix, 'last_four', k.last_four)
        order by t.charge_nanos desc, t.requests desc, t.key_id)
      from keys t left join tollgate.api_keys k on k.id = t.key_id
    ), '[]'),
    'top_models', coalesce((
      select jsonb_agg(to_jsonb(t) order by t.charge_nanos desc, t.requests desc, t.model) from models t
    ), '[]')
  )
$$;

comment on function tollgate.leaders(integer) is 'The orgs, keys and models that were charged most in 30 days.';


create function tollgate.newest_requests(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', r.id,
    'created_at', tollgate.utc(r.created_at),
    'org_id', r.org_id,
    'user_id', r.user_id,
    'key_id', r.key_id,
    'model', r.model,
    'upstream', r.upstream,
    'state', r.state,
    'status', r.status,
    'error_code', r.error_code,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'charge_nanos', r.charge_nanos,
    'cost_nanos', r.cost_nanos,
    'first_token_ms', r.first_token_ms,
    'duration_ms', r.duration_ms
  ) order by r.created_at desc, r.id desc), '[]')
  from (select n.* from tollgate.requests n order by n.created_at desc, n.id desc limit places) r
$$;

comment on function tollgate.newest_requests(integer) is 'The requests admitted last, of all orgs.';


create function tollgate.open_matters(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'open_holds', (
      select jsonb_build_object(
        'count', count(*),
        'nanos', coalesce(sum(r.hold_nanos), 0),
        'oldest_at', tollgate.utc(min(r.created_at)),
        'unsettled', count(*) filter (where r.state = 'unsettled')
      )
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
    ),
    'overdrawn', (
      select jsonb_build_object(
        'count', count(*),
        'nanos', coalesce(-sum(o.balance_nanos), 0),
        'orgs', coalesce((
          select jsonb_agg(
            jsonb_build_object('org_id', w.id, 'name', w.name, 'balance_nanos', w.balance_nanos)
            order by w.balance_nanos, w.id
          )
          from (
            select d.* from tollgate.orgs d where d.balance_nanos < 0 order by d.balance_nanos, d.id limit places
          ) w
        ), '[]')
      )
      from tollgate.orgs o
      where o.balance_nanos < 0
    )
  )
$$;

comment on function tollgate.open_matters(integer) is 'Holds that no settlement has ended yet, and orgs whose balance is below zero, the worst by name.';


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
    'usage', tollgate.used_of_late(today),
    'last_24_hours', tollgate.last_day(),
    'recent_requests', tollgate.newest_requests(20)
  )
    || tollgate.population(tollgate.usage_today())
    || tollgate.leaders(10)
    || tollgate.open_matters(10);
end
$$;

comment on function public.tollgate_monitor(jsonb) is
  'The whole house at one look: how many orgs, users and keys; what they used today, in 7 and in 30 days (UTC days, today among them); errors and latencies of 24 hours; who and what leads; the newest requests; open holds and overdrawn orgs. For admins. Refuses: as recognise(). Locks nothing.';


create function tollgate.limited(windows jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_object_agg(m.key, (
    select jsonb_object_agg(w.key, case when w.value -> 'limit' <> 'null' then w.value end) from jsonb_each(m.value) w
  ))
  from jsonb_each(windows) m
$$;

comment on function tollgate.limited(jsonb) is 'What windows() tells, null in the place of each that has no limit.';


create function tollgate.allowances_of(key tollgate.api_keys) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'budget', case when key.budget_nanos is not null then jsonb_build_object(
      'limit_nanos', key.budget_nanos,
      'spent_nanos', key.budget_spent_nanos,
      'remaining_nanos', greatest(0, key.budget_nanos - key.budget_spent_nanos),
      'resets_at', tollgate.utc((key.budget_period + case key.budget_reset
        when 'daily' then interval '1 day' when 'weekly' then interval '1 week' when 'monthly' then interval '1 month'
      end) at time zone 'utc')
    ) end,
    'tokens_in_month', case when key.tokens_per_month is not null then jsonb_build_object(
      'limit', key.tokens_per_month,
      'used', key.tokens_used_in_month,
      'remaining', greatest(0, key.tokens_per_month - key.tokens_used_in_month),
      'resets_at', tollgate.utc((key.month_of_tokens + interval '1 month') at time zone 'utc')
    ) end,
    'tokens_in_all', case when key.tokens_in_all is not null then jsonb_build_object(
      'limit', key.tokens_in_all,
      'used', key.tokens_used_in_all,
      'remaining', greatest(0, key.tokens_in_all - key.tokens_used_in_all),
      'resets_at', null
    ) end
  );
end
$$;

comment on function tollgate.allowances_of(tollgate.api_keys) is
  'What is left of a key''s own budget and quotas, and when they begin anew; null where it has none. The key as in_this_period() gives it.';


create function public.tollgate_own_monitor(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  own jsonb := jsonb_build_object('org_id', actor.org_id);
  org tollgate.orgs;
  key tollgate.api_keys;
begin
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(moment),
    'org_id', org.id,
    'user_id', key.user_id,
    'prefix', key.prefix,
    'last_four', key.last_four,
    'plan', org.plan_id,
    'balance_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos,
    'usage', jsonb_build_object(
      'today', tollgate.used_since(date_trunc('day', moment, 'UTC'), own),
      'this_month', tollgate.used_since(date_trunc('month', moment, 'UTC'), own),
      'all_time', tollgate.used_since(null, own)
    ),
    'limits', jsonb_build_object(
      'org', tollgate.limited(tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment))),
      'key', tollgate.limited(tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment)))
    ),
    'allowances', tollgate.allowances_of(key)
  );
end
$$;

comment on function public.tollgate_own_monitor(jsonb) is
  'What a key''s owner sees at one look: the org''s balance; its usage today, this month (UTC) and of all time; what is left of the limits of org and key, and of the key''s budget and quotas. Refuses: as recognise(). Locks nothing.';


create function tollgate.first_request_of(key tollgate.api_keys) returns timestamptz
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select r.created_at from tollgate.requests r
    where r.org_id = key.org_id and r.created_at >= d.day and r.created_at < d.day + interval '1 day' and r.key_id = key.id
    order by r.created_at
    limit 1
  ), d.day)
  from (
    select min(u.start) as day
    from tollgate.usage_by('{day}', null, null, jsonb_build_object('org_id', key.org_id, 'key_id', key.id)) u
  ) d
$$;

comment on function tollgate.first_request_of(tollgate.api_keys) is
  'When a key made its first request; the day, where the request itself is no longer kept.';


create function public.tollgate_key_usage(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  month timestamptz := date_trunc('month', moment, 'UTC');
  own jsonb := jsonb_build_object('org_id', actor.org_id, 'key_id', actor.key_id);
  in_month jsonb;
  org tollgate.orgs;
  key tollgate.api_keys;
  minute jsonb;
begin
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  in_month := tollgate.used_since(month, own);
  select w.minute into minute
  from (values
    (tollgate.limited(tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment))) -> 'requests' -> 'minute'),
    (tollgate.limited(tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment))) -> 'requests' -> 'minute')
  ) w (minute)
  where w.minute <> 'null'
  order by (w.minute -> 'remaining')::bigint, (w.minute -> 'limit')::bigint
  limit 1;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'org_id', org.id,
    'user_id', key.user_id,
    'name', key.name,
    'quota_used', case when key.tokens_per_month is not null then key.tokens_used_in_month
      else (in_month ->> 'prompt_tokens')::bigint + (in_month ->> 'completion_tokens')::bigint
    end,
    'quota_monthly', key.tokens_per_month,
    'quota_reset_at', tollgate.utc((month at time zone 'utc' + interval '1 month') at time zone 'utc'),
    'rpm_limit', minute -> 'limit',
    'rpm_remaining', minute -> 'remaining',
    'total', tollgate.used_since(null, own),
    'first_request_at', tollgate.utc(tollgate.first_request_of(key))
  );
end
$$;

comment on function public.tollgate_key_usage(jsonb) is
  'What the calling key itself has used: its monthly quota, its requests a minute (of its own limit or its org''s, whichever leaves less), and all that it ever used. Refuses: as recognise(). Locks nothing.';


select tollgate.expose('public.tollgate_monitor(jsonb)');
select tollgate.expose('public.tollgate_renew_leaders()');
select tollgate.expose('public.tollgate_own_monitor(jsonb)');
select tollgate.expose('public.tollgate_key_usage(jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001700'
$$;

revoke execute on all functions in schema tollgate from public;
