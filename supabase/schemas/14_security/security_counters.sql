-- Writes the security counters of servers.
--
-- A refused call rolls back and so writes nothing, and a row for each refusal would let an attacker fill the database. The
-- server counts refusals in memory and writes sums, a few seconds apart; a frozen host loses those that it holds. The
-- tables of security are bounded, so that many addresses cannot fill them either.

create function tollgate.count_refusals(refusals jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  moment timestamptz := clock_timestamp();
  crowded boolean := (
    select count(*) >= 10000
    from (select from tollgate.security_events e where e.acknowledged_at is null and e.subject_kind = 'address' limit 10000) e
  );
  seen record;
  in_hour bigint;
begin
  for seen in
    select
      g.kind,
      case when k.id is null then 'address' else 'key' end as subject_kind,
      case
        when k.id is not null then k.id
        when crowded and not exists (
          select from tollgate.security_events e
          where e.kind = g.kind and e.subject_kind = 'address' and e.subject = g.address and e.acknowledged_at is null
        ) then 'others'
        else coalesce(g.address, 'unknown')
      end as subject,
      k.org_id,
      k.id as key_id,
      greatest(g.times, 1) as times,
      least(g.first_seen, moment) as first_seen,
      least(g.last_seen, moment) as last_seen,
      jsonb_strip_nulls(jsonb_build_object('code', g.code, 'address', g.address)) as details
    from jsonb_to_recordset(refusals) g (
      kind text, code text, key_id text, digest text, address text, times bigint,
      first_seen timestamptz, last_seen timestamptz
    )
    left join lateral (
      select k.id, k.org_id from tollgate.api_keys k
      where k.id = g.key_id or (g.key_id is null and k.digest = decode(g.digest, 'hex'))
    ) k on true
    where g.kind in ('authentication_failed', 'limit_exceeded', 'ip_refused')
    order by 1, 2, 3
  loop
    in_hour := tollgate.raise_event(
      seen.kind, seen.subject_kind, seen.subject, seen.org_id, seen.key_id,
      seen.times, seen.first_seen, seen.last_seen, seen.details
    );
    if seen.kind = 'authentication_failed' and seen.subject_kind = 'address' and in_hour > 100 then
      perform tollgate.raise_event(
        'many_failures', 'address', seen.subject, null, null,
        least(seen.times, in_hour - 100), seen.last_seen, seen.last_seen, jsonb_build_object('in_hour', in_hour)
      );
    end if;
  end loop;
end
$$;

comment on function tollgate.count_refusals(jsonb) is
  'Raises events for refusals: kind, code, key_id or digest, address, times, first_seen, last_seen. The subject is the key where there is one, otherwise the address. An address with more than a hundred failures in an hour raises many_failures as well, which counts those beyond. Locks the events.';


create function tollgate.record_refused_access(trespasses jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.audit_events (
    actor_kind, actor_key_id, actor_user_id, org_id, action, target_id, outcome, ip, user_agent, request_id, details
  )
  select
    'key', k.id, k.user_id, k.org_id, 'access.refused', t.target, 'refused', t.ip, t.user_agent, t.request_id,
    jsonb_build_object('count', t.times)
  from jsonb_to_recordset(trespasses) t (
    key_id text, target text, times bigint, ip inet, user_agent text, request_id text
  )
  join tollgate.api_keys k on k.id = t.key_id
  where not exists (
    select from tollgate.audit_events a
    where a.target_id = t.target and a.action = 'access.refused' and a.actor_key_id = k.id
      and a.occurred_at > clock_timestamp() - interval '1 hour'
  )
$$;

comment on function tollgate.record_refused_access(jsonb) is
  'Records calls of operators'' routes by other keys in the audit trail: key_id, target (method and route), times, ip, user_agent, request_id. Once an hour for a key and a target, so that nobody can fill the trail. Locks nothing.';


create function tollgate.count_networks(uses jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.key_networks as n (key_id, network, first_seen_at, last_seen_at)
  select u.key_id, u.network, least(u.seen, clock_timestamp()), least(u.seen, clock_timestamp())
  from (
    select u.key_id, u.network, max(u.seen) as seen, row_number() over (partition by u.key_id order by u.network) as place
    from jsonb_to_recordset(uses) u (key_id text, network cidr, seen timestamptz)
    group by u.key_id, u.network
  ) u
  join tollgate.api_keys k on k.id = u.key_id
  where u.place + (select count(*) from tollgate.key_networks o where o.key_id = u.key_id) <= 200
    or exists (select from tollgate.key_networks o where o.key_id = u.key_id and o.network = u.network)
  order by u.key_id, u.network
  on conflict (key_id, network) do update set last_seen_at = greatest(n.last_seen_at, excluded.last_seen_at)
$$;

comment on function tollgate.count_networks(jsonb) is 'Stores the networks from which keys were used: key_id, network, seen. Locks the rows, in order.';


create function public.tollgate_write_security_counts(
  refusals jsonb,
  trespasses jsonb,
  uses jsonb,
  refused_calls jsonb default '[]',
  spreads jsonb default '[]'
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform tollgate.count_networks(uses);
  perform tollgate.record_refused_access(trespasses);
  perform tollgate.count_refusals(refusals);
  perform tollgate.count_refused_calls(refused_calls);
  perform tollgate.count_spreads(spreads);
  return '{"noted": true}';
end
$$;

comment on function public.tollgate_write_security_counts(jsonb, jsonb, jsonb, jsonb, jsonb) is
  'Writes the security counters of a server: refusals, calls of operators'' routes by other keys, networks from which keys were used, refused paid calls, and spreads. Refuses nothing. Locks the security events, networks and spreads it writes, in order, and as count_refused_calls().';

select tollgate.expose('public.tollgate_write_security_counts(jsonb, jsonb, jsonb, jsonb, jsonb)');
