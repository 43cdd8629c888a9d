-- The orgs, keys and models that used most in a period.

create function tollgate.top_since() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc('day', now(), 'UTC') - interval '29 days'
$$;

comment on function tollgate.top_since() is 'The beginning of the 30 days of the top lists, which include today.';


create function tollgate.top_lists(places integer, since timestamptz, until timestamptz default null) returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.keys_used(since, until) u
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
    from tollgate.usage_by('{model}', since, until) u
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

comment on function tollgate.top_lists(integer, timestamptz, timestamptz) is
  'The orgs, keys and models that were charged most in a span of time; until null is now.';


create function tollgate.keys_used(since timestamptz, until timestamptz) returns table (
  org_id text, key_id text, requests numeric, tokens numeric, charge_nanos numeric, cost_nanos numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  period tollgate.top_keys_period;
begin
  select l.* into period from tollgate.top_keys_period l;
  -- Not of the span that is renewed, or so far from it that correcting it would cost more than summing up again.
  if keys_used.until is not null
    or (period.since between keys_used.since - interval '7 days' and keys_used.since + interval '7 days') is not true then
    return query
    select u.org_id, u.key_id, u.requests::numeric, (u.prompt_tokens + u.completion_tokens)::numeric,
      u.charge_nanos::numeric, u.cost_nanos::numeric
    from tollgate.usage_by('{org,key}', keys_used.since, keys_used.until) u;
    return;
  end if;
  return query
  select p.org_id, p.key_id, sum(p.requests * p.sign), sum(p.tokens * p.sign), sum(p.charge_nanos * p.sign),
    sum(p.cost_nanos * p.sign)
  from (
    select l.org_id, l.key_id, l.requests, l.tokens, l.charge_nanos, l.cost_nanos, 1 as sign from tollgate.top_keys l
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, 1
    from tollgate.usage_by('{org,key}', period.until) u
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, -1
    from tollgate.usage_by('{org,key}', period.since, keys_used.since) u
    where period.since < keys_used.since
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, 1
    from tollgate.usage_by('{org,key}', keys_used.since, period.since) u
    where keys_used.since < period.since
  ) p
  group by p.org_id, p.key_id
  having sum(p.requests * p.sign) > 0;
end
$$;

comment on function tollgate.keys_used(timestamptz, timestamptz) is
  'What each key used in a span of time. For one that begins about 30 days ago and ends now: the sums in tollgate.top_keys, plus what came since, with the difference at their beginning.';


create function public.tollgate_renew_leaders() returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
as $$
declare
  period tollgate.top_keys_period;
  rolled_until timestamptz;
begin
  select l.* into period from tollgate.top_keys_period l for no key update skip locked;
  select r.rolled_until into rolled_until from tollgate.rolled r;
  if period.single and isfinite(rolled_until)
    and (period.since, period.until) is distinct from (tollgate.top_since(), rolled_until) then
    delete from tollgate.top_keys;
    insert into tollgate.top_keys
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos
    from tollgate.usage_by('{org,key}', tollgate.top_since(), rolled_until) u
    where u.requests > 0;
    update tollgate.top_keys_period set since = tollgate.top_since(), until = rolled_until;
  end if;
  return '{"more": false}';
end
$$;

comment on function public.tollgate_renew_leaders() is
  'Sums up what each key used in 30 days, as far as it is rolled up; does nothing when that is done already. A request that ended after its hour was rolled up is added with the next hour. Refuses nothing. Locks the row of tollgate.top_keys_period; when another transaction has it, does nothing.';

select tollgate.expose('public.tollgate_renew_leaders()');
