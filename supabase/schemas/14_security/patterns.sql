-- Security events from patterns in the tables. The time is an argument, so that a test can move it.

create function tollgate.raise_pattern(
  kind text,
  subject_kind text,
  subject text,
  org_id text,
  key_id text,
  details jsonb,
  as_of timestamptz
) returns integer
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from tollgate.security_events e
    where e.kind = raise_pattern.kind and e.subject = raise_pattern.subject
      and (e.acknowledged_at > as_of - interval '24 hours'
        or e.acknowledged_at is null and e.last_seen_at > as_of - interval '1 hour')
  ) then
    return 0;
  end if;
  perform tollgate.raise_event(kind, subject_kind, subject, org_id, key_id, 1, as_of, as_of, details);
  return 1;
end
$$;

comment on function tollgate.raise_pattern(text, text, text, text, text, jsonb, timestamptz) is
  'Raises the event of a lasting pattern: at most once an hour, and not within a day of an acknowledgement. Answers how many it raised: 1 or 0. Locks the event.';


create function tollgate.find_many_networks(as_of timestamptz) returns bigint
language sql
set search_path = ''
as $$
  select coalesce(sum(tollgate.raise_pattern(
    'many_networks', 'key', s.key_id, k.org_id, s.key_id, jsonb_build_object('networks', s.networks), as_of
  )), 0)
  from (
    select n.key_id, count(*) as networks
    from tollgate.key_networks n
    where n.last_seen_at > as_of - interval '24 hours' and n.last_seen_at <= as_of
    group by n.key_id
    having count(*) >= 20
    order by n.key_id
    limit 500
  ) s
  join tollgate.api_keys k on k.id = s.key_id
$$;

comment on function tollgate.find_many_networks(timestamptz) is
  'Raises an event for each key that was used from 20 or more networks within the 24 hours before a moment.';


create function tollgate.find_quarantined(since timestamptz, until timestamptz) returns bigint
language sql
set search_path = ''
as $$
  select count(tollgate.raise_event(
    'usage_quarantined', 'org', q.org_id, q.org_id, null, q.requests, q.first_seen, q.last_seen,
    jsonb_build_object('request_id', q.request_id)
  ))
  from (
    select r.org_id, count(*) as requests, min(r.settled_at) as first_seen, max(r.settled_at) as last_seen, max(r.id) as request_id
    from tollgate.requests r
    where r.quarantined and r.created_at >= since - interval '7 days' and r.settled_at >= since and r.settled_at < until
    group by r.org_id
    order by r.org_id
  ) q
$$;

comment on function tollgate.find_quarantined(timestamptz, timestamptz) is
  'Raises an event for each org with requests that were settled as quarantined in this span of time.';


create function tollgate.find_spikes(as_of timestamptz) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  busy record;
  past record;
  spotted bigint := 0;
begin
  for busy in
    select u.key_id, k.org_id, u.requests
    from tollgate.usage_by('{key}', as_of - interval '24 hours', as_of, '{}') u
    join tollgate.api_keys k on k.id = u.key_id
    where u.requests >= 1000
    order by u.key_id
    limit 200
  loop
    select coalesce(sum(u.requests), 0) / 14 as mean, count(*) as days into past
    from tollgate.usage_by(
      '{day}', as_of - interval '15 days', as_of - interval '24 hours',
      jsonb_build_object('org_id', busy.org_id, 'key_id', busy.key_id)
    ) u
    where u.requests > 0;
    if past.days >= 3 and busy.requests >= 10 * past.mean then
      spotted := spotted + tollgate.raise_pattern('usage_spike', 'key', busy.key_id, busy.org_id, busy.key_id,
        jsonb_build_object('requests', busy.requests, 'usual_requests', round(past.mean)), as_of);
    end if;
  end loop;
  return spotted;
end
$$;

comment on function tollgate.find_spikes(timestamptz) is
  'Raises an event for each key with 1,000 requests or more within 24 hours, if that is ten times its daily mean of the 14 days before and it was used on at least three of them. Looks at 200 keys.';


create function tollgate.drop_old_events(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.security_events e where e.id in (
    select o.id from tollgate.security_events o
    where o.last_seen_at < as_of - interval '90 days'
      and (o.acknowledged_at is not null or o.severity = 'info' or o.subject_kind = 'address')
    limit 1000
    for update skip locked
  );
  delete from tollgate.key_networks n where (n.key_id, n.network) in (
    select o.key_id, o.network from tollgate.key_networks o
    where o.last_seen_at < as_of - interval '30 days'
    limit 1000
    for update skip locked
  );
$$;

comment on function tollgate.drop_old_events(timestamptz) is
  'Deletes up to 1,000 events that did not happen for 90 days, except unacknowledged warnings and critical ones of orgs and keys, and up to 1,000 networks that were not seen for 30 days.';


create function public.tollgate_detect_patterns(as_of text default null) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  moment constant timestamptz := coalesce(as_of::timestamptz, now());
  until constant timestamptz := moment - interval '30 seconds'; -- earlier settlements are committed
  scan tollgate.pattern_scan;
  spotted bigint := 0;
begin
  select s.* into scan from tollgate.pattern_scan s for update skip locked;
  if not found then
    return '{"spotted": 0}';
  end if;

  spotted := tollgate.find_quarantined(scan.quarantined_until, until);
  update tollgate.pattern_scan set quarantined_until = greatest(quarantined_until, until);
  if scan.scanned_at not between moment - interval '10 minutes' and moment then
    spotted := spotted + tollgate.find_many_networks(moment) + tollgate.find_spikes(moment);
    perform tollgate.drop_old_events(moment);
    perform tollgate.drop_old_spreads(moment);
    update tollgate.pattern_scan set scanned_at = moment;
  end if;
  return jsonb_build_object('spotted', spotted);
end
$$;

comment on function public.tollgate_detect_patterns(text) is
  'Looks for quarantined usage, and every ten minutes for keys on many networks and for spikes of usage; deletes old events and spreads. A second call at the same time does nothing. Refuses nothing. Locks the row of tollgate.pattern_scan and the events it writes.';

select tollgate.expose('public.tollgate_detect_patterns(text)');

-- For deployments whose servers do not sweep.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-detect', '* * * * *', 'select public.tollgate_detect_patterns()');
  end if;
end
$$;
