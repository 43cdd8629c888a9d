-- Why:  owners must see how many requests they may run at once and how many they do, and operators whose paid calls are
--       suspended.
-- What: concurrent in tollgate_own_limits() and tollgate_own_monitor(), max_concurrent_requests in tollgate_own_plan();
--       paid_suspended among the open matters; the kind org_paid_suspended of security events.
-- Care: replaces functions, and a check and a trigger of tables that requests do not write: a moment.

set lock_timeout = '1s';

alter table tollgate.security_events drop constraint security_events_kind_check;
alter table tollgate.security_events add constraint security_events_kind_check check (kind in (
  'key_created', 'key_rotated', 'key_revoked', 'authentication_failed', 'limit_exceeded', 'ip_refused',
  'org_overdrawn', 'org_paid_suspended', 'usage_quarantined', 'many_networks', 'usage_spike', 'many_failures'
));


create or replace function tollgate.severity_of(kind text) returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when kind in ('usage_quarantined', 'org_paid_suspended', 'many_failures') then 'critical'
    when kind in ('key_created', 'key_rotated', 'key_revoked', 'limit_exceeded') then 'info'
    else 'warning'
  end
$$;

comment on function tollgate.severity_of(text) is 'How grave a kind of security event is: info, warning or critical.';


create or replace function tollgate.sight_change() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  is_of_org constant boolean := new.action in ('credits.overdrawn', 'org.paid_suspended');
begin
  perform tollgate.sight(
    case new.action when 'credits.overdrawn' then 'org_overdrawn' else replace(new.action, '.', '_') end,
    case when is_of_org then 'org' else 'key' end,
    case when is_of_org then new.org_id else new.target_id end,
    new.org_id,
    case when not is_of_org then new.target_id end,
    1,
    new.occurred_at,
    new.occurred_at,
    jsonb_strip_nulls(jsonb_build_object('audit_event_id', new.id, 'user_id', new.actor_user_id, 'name', new.actor_name))
  );
  return null;
end
$$;

comment on function tollgate.sight_change() is
  'Trigger of the audit trail: what happens to keys, charges above their hold and the suspension of paid calls are security events in the transaction of the change.';


drop trigger audit_events_sighted on tollgate.audit_events;

create trigger audit_events_sighted
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.action in (
  'key.created', 'key.rotated', 'key.revoked', 'credits.overdrawn', 'org.paid_suspended'
))
execute function tollgate.sight_change();


create or replace function tollgate.open_matters(places integer) returns jsonb
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
    'balances', (
      select jsonb_build_object('nanos', coalesce(sum(o.balance_nanos), 0))
      from tollgate.orgs o
      where o.balance_nanos > 0
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
    ),
    'paid_suspended', (
      select jsonb_build_object(
        'count', count(*),
        'orgs', coalesce(jsonb_agg(
          jsonb_build_object(
            'org_id', s.id, 'name', s.name, 'since', tollgate.utc(s.paid_suspended_at), 'reason', s.paid_suspended_reason
          )
          order by s.paid_suspended_at, s.id
        ) filter (where s.place <= places), '[]')
      )
      from (
        select o.*, row_number() over (order by o.paid_suspended_at, o.id) as place
        from tollgate.orgs o
        where o.paid_suspended_at is not null
      ) s
    )
  )
$$;

comment on function tollgate.open_matters(integer) is
  'Holds that no settlement has ended yet, what all balances above zero come to, orgs whose balance is below it, the worst by name, and those whose paid calls are suspended, the first by name.';


create function tollgate.concurrent(bound bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'limit', bound,
    'in_flight', open_requests,
    'remaining', case when bound is not null then greatest(0, bound - open_requests) end
  )
$$;

comment on function tollgate.concurrent(bigint, bigint) is
  'How many requests may be open at once, how many are, and how many more may be; null where there is no bound.';


create function tollgate.bound_of(org tollgate.orgs) returns bigint
language sql
stable
set search_path = ''
as $$
  select coalesce(org.max_concurrent_requests, p.max_concurrent_requests)
  from tollgate.plans p where p.id = org.plan_id
$$;

comment on function tollgate.bound_of(tollgate.orgs) is
  'How many requests admission lets the org have open at once: its own bound, or its plan''s.';


create or replace function public.tollgate_own_plan(caller jsonb, markup_ppm integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'id', p.id,
      'name', p.name,
      'description', p.description,
      'org_id', o.id,
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm, tollgate_own_plan.markup_ppm),
      'own_limits', o.limits is distinct from null,
      'limits', to_jsonb(tollgate.limits_of(o)),
      'max_concurrent_requests', tollgate.bound_of(o)
    )
    from tollgate.orgs o
    join tollgate.plans p on p.id = o.plan_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_own_plan(jsonb, integer) is
  'The plan of the caller''s org, with the limits and the markup that its requests meet. `markup_ppm` is what the settings say where neither org nor plan do. Refuses: as recognise(). Locks nothing.';


create or replace function public.tollgate_own_limits(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  moment constant timestamptz := clock_timestamp();
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'at', tollgate.utc(moment),
      'org', tollgate.windows(o.counters, tollgate.limits_of(o), tollgate.ms_of(moment))
        || jsonb_build_object('concurrent', tollgate.concurrent(tollgate.bound_of(o), o.open_requests)),
      'key', case when k.counted or k.max_concurrent_requests is not null then
        tollgate.windows(k.counters, k.limits, tollgate.ms_of(moment))
        || jsonb_build_object('concurrent', case when k.max_concurrent_requests is not null then
          tollgate.concurrent(k.max_concurrent_requests, k.open_requests)
        end)
      end
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_own_limits(jsonb) is
  'The windows and open requests of the caller''s org, and of the key where it has limits, a bound, a budget or a quota of its own; requests of any other are counted for the org alone. Refuses: as recognise(). Locks nothing.';


create or replace function public.tollgate_own_monitor(caller jsonb) returns jsonb
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
      'org', tollgate.limited(tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment)))
        || jsonb_build_object('concurrent', case when tollgate.bound_of(org) is not null then
          tollgate.concurrent(tollgate.bound_of(org), org.open_requests)
        end),
      'key', tollgate.limited(tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment)))
        || jsonb_build_object('concurrent', case when key.max_concurrent_requests is not null then
          tollgate.concurrent(key.max_concurrent_requests, key.open_requests)
        end)
    ),
    'allowances', tollgate.allowances_of(key)
  );
end
$$;

comment on function public.tollgate_own_monitor(jsonb) is
  'What a key''s owner sees at one look: the org''s balance; its usage today, this month (UTC) and of all time; what is left of the limits of org and key, and of the key''s budget and quotas. Refuses: as recognise(). Locks nothing.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000150'
$$;

revoke execute on all functions in schema tollgate from public;
