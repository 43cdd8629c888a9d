-- Readings of this moment, taken in each round: from a bounded number of rows.

create function tollgate.request_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  with recent as materialized (
    select r.upstream, r.first_token_ms, r.duration_ms,
      (r.status >= 500 or r.error_code in ('failed_upstream', 'upstream_cut', 'upstream_garbled')) is true as failed
    from tollgate.requests r
    where r.created_at > as_of - interval '5 minutes' and r.created_at <= as_of and r.settled_at is not null
      and r.upstream is distinct from 'sandbox'
    order by r.created_at desc
    limit 5000
  ),
  seen as (
    select coalesce(r.upstream, 'installation') as subject, count(*) as requests, count(*) filter (where r.failed) as failed,
      count(r.duration_ms) filter (where not r.failed) as timed,
      count(r.first_token_ms) filter (where not r.failed) as timed_tokens,
      percentile_disc(0.95) within group (order by r.duration_ms) filter (where not r.failed) as p95_ms,
      percentile_disc(0.95) within group (order by r.first_token_ms) filter (where not r.failed) as first_token_ms
    from recent r
    group by grouping sets ((), (r.upstream))
    having grouping(r.upstream) = 1 or r.upstream is not null
  )
  select k.signal, s.subject, k.value
  from seen s
  cross join lateral (values
    ('error_rate_percent', round(100.0 * s.failed / greatest(s.requests, 1), 2), s.requests),
    ('latency_p95_ms', s.p95_ms::numeric, s.timed),
    ('first_token_p95_ms', s.first_token_ms::numeric, s.timed_tokens)
  ) k (signal, value, requests)
  where k.requests >= 20
$$;

comment on function tollgate.request_readings(timestamptz) is
  'Error rate and latencies of the installation and of each upstream: of the newest 5,000 requests of the last five minutes, where at least 20 say something of it. Calls of test keys do not count.';


create function tollgate.hold_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select k.signal, 'installation', k.value
  from (
    select count(*) filter (where r.state = 'unsettled' and r.created_at < as_of - interval '10 minutes') as unsettled,
      count(*) filter (where r.state = 'held' and r.expires_at < as_of - interval '10 minutes') as expired
    from tollgate.holds h
    join tollgate.requests r on r.id = h.request_id
  ) o
  cross join lateral (values ('unsettled_requests', o.unsettled), ('expired_holds', o.expired)) k (signal, value)
  union all
  select 'quarantined_requests', 'installation', count(*)
  from tollgate.requests r
  where r.quarantined and r.created_at > as_of - interval '24 hours' and r.created_at <= as_of
$$;

comment on function tollgate.hold_readings(timestamptz) is
  'Requests whose cost is unknown for 10 minutes, holds that should have ended 10 minutes ago, and requests of a day that were quarantined.';


create function tollgate.upstream_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'upstream_down', u.id::text, (p.failed = 2)::integer::numeric
  from tollgate.upstreams u
  cross join lateral (
    select count(*) filter (where l.status = 'down') as failed
    from (
      select o.status from tollgate.past_probes o
      where o.upstream_id = u.id and o.probed_at > as_of - interval '1 day'
      order by o.probed_at desc
      limit 2
    ) l
    having count(*) > 0
  ) p
  where u.state = 'active'
  union all
  select 'host_silent_seconds', h.id::text, greatest(0, round(extract(epoch from as_of - h.last_seen_at)))
  from tollgate.hosts h
  where h.state = 'active' and h.last_seen_at is not null
$$;

comment on function tollgate.upstream_readings(timestamptz) is
  'Our own upstreams whose last two health checks, of a day, failed, and for how many seconds the agents of hosts are silent.';


create function tollgate.security_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  with seen as materialized (
    select e.kind, e.severity, e.subject, e.acknowledged_at, e.last_seen_at,
      case when e.hour = date_trunc('hour', as_of, 'UTC') then e.count_in_hour else 0 end as in_hour
    from tollgate.security_events e
    where e.last_seen_at > as_of - interval '1 hour'
    order by e.last_seen_at desc
    limit 5000
  )
  select case s.kind when 'limit_exceeded' then 'limits_hit_in_hour' else 'refusals_in_hour' end, s.subject, sum(s.in_hour)
  from seen s
  where s.kind in ('limit_exceeded', 'authentication_failed', 'ip_refused')
  group by 1, 2
  union all
  select 'security_events', s.kind, count(*)
  from seen s
  where s.acknowledged_at is null and s.severity <> 'info'
    and s.kind not in ('authentication_failed', 'ip_refused', 'many_networks', 'usage_spike')
  group by s.kind
$$;

comment on function tollgate.security_readings(timestamptz) is
  'Refusals and exceeded limits of keys and addresses in the current hour (UTC), and open security events of the last hour by kind; not of kinds that have a signal of their own.';


create function tollgate.database_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'database_connections_percent', 'installation', round(
    100.0 * (select sum(d.numbackends) from pg_catalog.pg_stat_database d)
      / (current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer), 1
  )
  union all
  select 'database_transaction_seconds', 'installation', coalesce(max(round(extract(epoch from as_of - a.xact_start))), 0)
  from pg_catalog.pg_stat_activity a
  where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
$$;

comment on function tollgate.database_readings(timestamptz) is
  'The share of the connections that is in use, and the age of the oldest transaction besides this one.';


create function tollgate.channel_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'channel_failures', c.id, c.failures::numeric
  from tollgate.channels c
  where c.org_id is null and c.state = 'active' and c.created_at <= as_of
$$;

comment on function tollgate.channel_readings(timestamptz) is
  'How often each channel of operators has failed since it last worked.';


create function tollgate.observed_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select o.signal, o.subject, max(o.value)
  from tollgate.readings o
  where o.at > as_of - case o.process when 'database' then interval '15 minutes' else interval '2 minutes' end
  group by o.signal, o.subject
$$;

comment on function tollgate.observed_readings(timestamptz) is
  'What processes observed in the last two minutes, the highest of each subject, and the last slow readings.';


create function tollgate.alert_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select * from tollgate.request_readings(as_of)
  union all
  select * from tollgate.hold_readings(as_of)
  union all
  select * from tollgate.upstream_readings(as_of)
  union all
  select * from tollgate.security_readings(as_of)
  union all
  select * from tollgate.spread_readings(as_of)
  union all
  select * from tollgate.database_readings(as_of)
  union all
  select * from tollgate.channel_readings(as_of)
  union all
  select * from tollgate.reconciliation_readings(as_of)
  union all
  select * from tollgate.backup_readings(as_of)
  union all
  select * from tollgate.process_readings(as_of)
  union all
  select * from tollgate.observed_readings(as_of)
$$;

comment on function tollgate.alert_readings(timestamptz) is 'All readings of a moment. A room that has some adds its function here.';
