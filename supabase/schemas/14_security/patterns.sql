-- Security events from patterns in the tables.

create function tollgate.spot(
  kind text,
  subject_kind text,
  subject text,
  org_id text,
  key_id text,
  details jsonb
) returns integer
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from tollgate.security_events e
    where e.kind = spot.kind and e.subject = spot.subject
      and (e.acknowledged_at > now() - interval '24 hours'
        or e.acknowledged_at is null and e.last_seen_at > now() - interval '1 hour')
  ) then
    return 0;
  end if;
  perform tollgate.sight(kind, subject_kind, subject, org_id, key_id, 1, now(), now(), details);
  return 1;
end
$$;

comment on function tollgate.spot(text, text, text, text, text, jsonb) is
  'Sights a pattern that lasts: at most once an hour, and not within a day of somebody saying it is known. Answers how often: 1 or 0. Locks the event.';


create function tollgate.spot_networks() returns bigint
language sql
set search_path = ''
as $$
  select coalesce(sum(tollgate.spot('many_networks', 'key', s.key_id, k.org_id, s.key_id, jsonb_build_object('networks', s.networks))), 0)
  from (
    select n.key_id, count(*) as networks
    from tollgate.key_networks n
    where n.last_seen_at > now() - interval '24 hours'
    group by n.key_id
    having count(*) >= 20
    order by n.key_id
    limit 500
  ) s
  join tollgate.api_keys k on k.id = s.key_id
$$;

comment on function tollgate.spot_networks() is 'Keys used from 20 or more networks within 24 hours.';


create function tollgate.spot_quarantined(since timestamptz, until timestamptz) returns bigint
language sql
set search_path = ''
as $$
  select count(tollgate.sight(
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

comment on function tollgate.spot_quarantined(timestamptz, timestamptz) is
  'Orgs whose usage was charged at the hold because what the upstream said of it was nonsense, and settled in this time.';


create function tollgate.spot_spikes() returns bigint
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
    from tollgate.usage_by('{key}', now() - interval '24 hours', now(), '{}') u
    join tollgate.api_keys k on k.id = u.key_id
    where u.requests >= 1000
    order by u.key_id
    limit 200
  loop
    select coalesce(sum(u.requests), 0) / 14 as mean, count(*) as days into past
    from tollgate.usage_by(
      '{day}', now() - interval '15 days', now() - interval '24 hours',
      jsonb_build_object('org_id', busy.org_id, 'key_id', busy.key_id)
    ) u
    where u.requests > 0;
    if past.days >= 3 and busy.requests >= 10 * past.mean then
      spotted := spotted + tollgate.spot('usage_spike', 'key', busy.key_id, busy.org_id, busy.key_id,
        jsonb_build_object('requests', busy.requests, 'usual_requests', round(past.mean)));
    end if;
  end loop;
  return spotted;
end
$$;

comment on function tollgate.spot_spikes() is
  'Keys that made 1,000 requests or more within 24 hours, ten times their mean of the 14 days before, on three of which at least they were used. Looks at 200 keys.';


create function tollgate.forget_sightings() returns void
language sql
set search_path = ''
as $$
  delete from tollgate.security_events e where e.id in (
    select o.id from tollgate.security_events o
    where o.last_seen_at < now() - interval '90 days'
      and (o.acknowledged_at is not null or o.severity = 'info' or o.subject_kind = 'address')
    limit 1000
    for update skip locked
  );
  delete from tollgate.key_networks n where (n.key_id, n.network) in (
    select o.key_id, o.network from tollgate.key_networks o
    where o.last_seen_at < now() - interval '30 days'
    limit 1000
    for update skip locked
  );
$$;

comment on function tollgate.forget_sightings() is
  'Drops up to 1,000 events not seen for 90 days, unless they are grave and nobody acknowledged them, and as many networks not seen for 30.';


create function public.tollgate_detect_patterns() returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  lookout tollgate.lookout;
  until timestamptz := now() - interval '30 seconds'; -- what was settled before is committed
  spotted bigint := 0;
begin
  select l.* into lookout from tollgate.lookout l for update skip locked;
  if not found then
    return '{"spotted": 0}';
  end if;

  spotted := tollgate.spot_quarantined(lookout.quarantined_until, until);
  update tollgate.lookout set quarantined_until = greatest(quarantined_until, until);
  if lookout.looked_at < now() - interval '10 minutes' then
    spotted := spotted + tollgate.spot_networks() + tollgate.spot_spikes();
    perform tollgate.forget_sightings();
    update tollgate.lookout set looked_at = now();
  end if;
  return jsonb_build_object('spotted', spotted);
end
$$;

comment on function public.tollgate_detect_patterns() is
  'Looks for quarantined usage, and every ten minutes for keys on many networks and for spikes; drops what is old. One at a time: whoever comes second has nothing to do. Refuses nothing. Locks the lookout and the events it writes.';

select tollgate.expose('public.tollgate_detect_patterns()');

-- The net under servers that do not sweep.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-detect', '* * * * *', 'select public.tollgate_detect_patterns()');
  end if;
end
$$;
