-- Which orgs and keys used most.

create function tollgate.led_since() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc('day', now(), 'UTC') - interval '29 days'
$$;

comment on function tollgate.led_since() is 'Where the 30 days begin in which one leads: today is one of them.';


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

select tollgate.expose('public.tollgate_renew_leaders()');
