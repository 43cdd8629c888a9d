-- The operator's overview of a period, beside the period before it.

create function tollgate.refunded_between(since timestamptz, until timestamptz) returns numeric
language sql
stable
set search_path = ''
as $$
  select coalesce(sum(t.amount_nanos), 0)
  from tollgate.transfers t
  where t.kind <> 'charge' and t.kind = 'refund' -- the index is that of the first
    and t.created_at >= since and t.created_at < until
    and t.reference not like '%:late'
$$;

comment on function tollgate.refunded_between(timestamptz, timestamptz) is
  'What operators refunded in a span of time. Corrections by a late settlement are part of the charges.';


create function tollgate.period_shown(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  select tollgate.measures(u, true) || jsonb_build_object(
    'from', tollgate.utc(since),
    'to', tollgate.utc(until),
    'refunded_nanos', tollgate.refunded_between(since, until),
    'latency', (select to_jsonb(l) from tollgate.latency_between('whole', since, until, '{}') l),
    'first_token', (select to_jsonb(l) from tollgate.latency_between('first_token', since, until, '{}') l)
  )
  from tollgate.usage_by('{}', since, until) u
$$;

comment on function tollgate.period_shown(timestamptz, timestamptz) is
  'What all orgs used in a span of time, what was refunded in it, and how long requests took.';


create function tollgate.attention_item(kind text, severity text, count bigint, facts jsonb default '{}') returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('kind', kind, 'severity', severity, 'count', count, 'facts', facts) where count > 0
$$;

comment on function tollgate.attention_item(text, text, bigint, jsonb) is
  'Something that an operator should look at; null where there is none of it.';


create function tollgate.holds_to_look_at() returns table (unsettled bigint, expired bigint)
language sql
stable
set search_path = ''
as $$
  select count(*) filter (where r.state = 'unsettled' and r.created_at < now() - interval '10 minutes'),
    count(*) filter (where r.state = 'held' and r.expires_at < now() - interval '10 minutes')
  from tollgate.holds h
  join tollgate.requests r on r.id = h.request_id
$$;

comment on function tollgate.holds_to_look_at() is
  'Requests whose cost is unknown for more than 10 minutes, and those that the sweeper should have ended 10 minutes ago.';


create function tollgate.attention() returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(a.item order by a.place) filter (where a.item is not null), '[]')
  from (
    select 1, tollgate.attention_item('audit_failed', 'critical', tollgate.faults_of_last_audit())
    union all
    select 2, tollgate.attention_item('quarantined', 'critical', count(*))
    from tollgate.requests r where r.quarantined and r.created_at >= now() - interval '7 days'
    union all
    select 3, tollgate.attention_item('expired_holds', 'critical', h.expired) from tollgate.holds_to_look_at() h
    union all
    select 4, tollgate.attention_item('unsettled', 'warning', h.unsettled) from tollgate.holds_to_look_at() h
    union all
    select 5, tollgate.attention_item('upstream_down', 'critical', count(*), jsonb_build_object('names', jsonb_agg(u.name)))
    from tollgate.upstreams u
    join tollgate.probes p on p.upstream_id = u.id
    where u.state = 'active' and p.status = 'down'
    union all
    select 6, tollgate.attention_item('alerts_firing', case
      when bool_or(f.severity = 'critical') then 'critical' when bool_or(f.severity = 'warning') then 'warning' else 'info'
    end, count(*))
    from tollgate.alerts f where f.state = 'firing'
    union all
    select 7, tollgate.attention_item('security_event', s.severity, s.count)
    from (
      select e.severity, count(*) as count
      from tollgate.security_events e
      where e.acknowledged_at is null and e.severity <> 'info'
      group by e.severity
      order by e.severity
    ) s
  ) a (place, item)
$$;

comment on function tollgate.attention() is
  'What an operator should look at: a failed audit, quarantined requests of 7 days, holds that do not end, upstreams that are down, alerts that fire with the worst severity, and open security events by severity.';


create function public.tollgate_overview(caller jsonb, since text, until text, bucket text) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  beginning constant timestamptz := since;
  ending constant timestamptz := coalesce(until::timestamptz, clock_timestamp());
  first_bucket constant timestamptz := date_trunc(bucket, beginning);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(now()),
    'period', tollgate.period_shown(beginning, ending),
    'before', tollgate.period_shown(beginning - (ending - beginning), beginning),
    'series', (
      select coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(u, true) order by s.start
      ), '[]')
      from generate_series(first_bucket, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
      left join tollgate.usage_by(array[bucket], first_bucket, ending) u on u.start = s.start
    ),
    'openrouter_day_nanos', (
      select coalesce(sum(u.cost_nanos), 0)
      from tollgate.usage_by('{}', now() - interval '24 hours', null, '{"upstream": "openrouter"}') u
    ),
    'attention', tollgate.attention()
  )
    || tollgate.top_lists(10, beginning, until::timestamptz)
    || tollgate.needs_attention(10);
end
$$;

comment on function public.tollgate_overview(jsonb, text, text, text) is
  'The operator''s overview of a span of time (`until` null is now) and of the one before it, of the same length: usage, refunds, latencies; a series by hour or day; the top orgs, keys and models; open holds; what to look at. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_overview(jsonb, text, text, text)');
