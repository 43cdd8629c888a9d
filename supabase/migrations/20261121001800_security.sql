-- Why:  operators must see what looks like an attack or a fault, what was done and by whom, and how the database fares.
-- What: security_events and the functions that write, list and acknowledge them; key_networks; the compliance report;
--       the page about the database; audit events in the form of the other lists.
-- Care: makes indexes on requests and transfers, during which admissions wait: a moment, as both leave most rows out.
--       Events of keys that are in the audit trail already are taken over once.
--
-- A refused request writes nothing: a call that refuses rolls back, and a row for each would let an attacker fill the
-- database. The server counts refusals in memory and hands over sums, a few seconds apart. What is lost when a host
-- freezes is lost. All tables here are bounded: what one address may not do, ten thousand may not do either.

create table tollgate.security_events (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind text not null check (kind in (
    'key_created', 'key_rotated', 'key_revoked', 'authentication_failed', 'limit_exceeded', 'ip_refused',
    'org_overdrawn', 'usage_quarantined', 'many_networks', 'usage_spike', 'many_failures'
  )),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  subject_kind text not null check (subject_kind in ('org', 'key', 'address')),
  subject text not null check (length(subject) between 1 and 140),
  org_id text,
  key_id text,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  count bigint not null check (count > 0),
  hour timestamptz not null,
  count_in_hour bigint not null,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
  acknowledged_at timestamptz,
  acknowledged_by text,
  note text check (length(note) <= 1000),
  check ((acknowledged_at is null) = (acknowledged_by is null))
);

create unique index security_events_open on tollgate.security_events (kind, subject_kind, subject)
  where acknowledged_at is null;
create index security_events_subject on tollgate.security_events (subject, kind);

comment on table tollgate.security_events is 'What an operator should look at: one row for a kind and a subject until it is acknowledged, counting how often and when it was seen.';
comment on column tollgate.security_events.subject is 'An org''s or key''s id, or an address: `unknown` where nothing names one, `others` for those beyond the ten thousandth.';
comment on column tollgate.security_events.count_in_hour is 'How often within the hour (UTC) in which it was last seen.';


create table tollgate.key_networks (
  key_id text not null,
  network cidr not null,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  primary key (key_id, network)
);

comment on table tollgate.key_networks is 'From where keys were used: at most 200 networks of a key, /24 or /48, for 30 days. last_seen_at moves once an hour.';


create table tollgate.lookout (
  one boolean primary key default true check (one),
  looked_at timestamptz not null default '-infinity',
  quarantined_until timestamptz not null default now() - interval '30 days'
);

comment on table tollgate.lookout is 'How far patterns were looked for: one row, locked by whoever looks.';
comment on column tollgate.lookout.quarantined_until is 'Requests that were quarantined before have their event.';

insert into tollgate.lookout default values;

alter table tollgate.security_events enable row level security;
alter table tollgate.key_networks enable row level security;
alter table tollgate.lookout enable row level security;

-- Settling changes neither created_at nor, but for the few that it quarantines, whether a row is in this one.
create index requests_quarantined on tollgate.requests (created_at) where quarantined;
create index transfers_but_charges on tollgate.transfers (created_at) where kind <> 'charge';


create function tollgate.severity_of(kind text) returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when kind in ('usage_quarantined', 'many_failures') then 'critical'
    when kind in ('key_created', 'key_rotated', 'key_revoked', 'limit_exceeded') then 'info'
    else 'warning'
  end
$$;

comment on function tollgate.severity_of(text) is 'How grave a kind of security event is: info, warning or critical.';


create function tollgate.sight(
  kind text,
  subject_kind text,
  subject text,
  org_id text,
  key_id text,
  times bigint,
  first_seen timestamptz,
  last_seen timestamptz,
  details jsonb
) returns bigint
language sql
set search_path = ''
as $$
  insert into tollgate.security_events as e (
    kind, severity, subject_kind, subject, org_id, key_id,
    first_seen_at, last_seen_at, count, hour, count_in_hour, details
  ) values (
    kind, tollgate.severity_of(kind), subject_kind, subject, org_id, key_id,
    least(first_seen, last_seen), last_seen, times, date_trunc('hour', last_seen, 'UTC'), times, details
  )
  on conflict (kind, subject_kind, subject) where acknowledged_at is null do update set
    first_seen_at = least(e.first_seen_at, excluded.first_seen_at),
    last_seen_at = greatest(e.last_seen_at, excluded.last_seen_at),
    count = e.count + excluded.count,
    hour = greatest(e.hour, excluded.hour),
    count_in_hour = excluded.count_in_hour * (excluded.hour >= e.hour)::integer
      + e.count_in_hour * (excluded.hour <= e.hour)::integer,
    details = e.details || excluded.details
  returning e.count_in_hour
$$;

comment on function tollgate.sight(text, text, text, text, text, bigint, timestamptz, timestamptz, jsonb) is
  'Counts something seen: opens an event, or moves the one that is open on. Answers how often it was seen within the hour. Locks the event: whoever sights many does so in the order of kind and subject.';


create function tollgate.sight_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.sight(
    case new.action when 'credits.overdrawn' then 'org_overdrawn' else replace(new.action, '.', '_') end,
    case new.action when 'credits.overdrawn' then 'org' else 'key' end,
    case new.action when 'credits.overdrawn' then new.org_id else new.target_id end,
    new.org_id,
    case when new.action <> 'credits.overdrawn' then new.target_id end,
    1,
    new.occurred_at,
    new.occurred_at,
    jsonb_strip_nulls(jsonb_build_object('audit_event_id', new.id, 'user_id', new.actor_user_id, 'name', new.actor_name))
  );
  return null;
end
$$;

comment on function tollgate.sight_change() is
  'Trigger of the audit trail: what happens to keys, and charges above their hold, are security events in the transaction of the change.';

create trigger audit_events_sighted
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.action in ('key.created', 'key.rotated', 'key.revoked', 'credits.overdrawn'))
execute function tollgate.sight_change();

insert into tollgate.security_events (
  kind, severity, subject_kind, subject, org_id, key_id, first_seen_at, last_seen_at, count, hour, count_in_hour
)
select
  replace(a.action, '.', '_'), tollgate.severity_of(replace(a.action, '.', '_')), 'key', a.target_id, max(a.org_id), a.target_id,
  min(a.occurred_at), max(a.occurred_at), count(*), date_trunc('hour', max(a.occurred_at), 'UTC'), 1
from tollgate.audit_events a
where a.outcome = 'success' and a.action in ('key.created', 'key.rotated', 'key.revoked')
  and a.occurred_at > now() - interval '90 days'
group by a.action, a.target_id;


create function tollgate.note_refused(refusals jsonb) returns void
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
    in_hour := tollgate.sight(
      seen.kind, seen.subject_kind, seen.subject, seen.org_id, seen.key_id,
      seen.times, seen.first_seen, seen.last_seen, seen.details
    );
    if seen.kind = 'authentication_failed' and seen.subject_kind = 'address' and in_hour > 100 then
      perform tollgate.sight(
        'many_failures', 'address', seen.subject, null, null,
        least(seen.times, in_hour - 100), seen.last_seen, seen.last_seen, jsonb_build_object('in_hour', in_hour)
      );
    end if;
  end loop;
end
$$;

comment on function tollgate.note_refused(jsonb) is
  'Counts refusals: kind, code, key_id or digest, address, times, first_seen, last_seen. The subject is the key where there is one, otherwise the address. An address with more than a hundred failures in an hour is a pattern of its own, which counts those beyond. Locks the events.';


create function tollgate.note_trespasses(trespasses jsonb) returns void
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

comment on function tollgate.note_trespasses(jsonb) is
  'Writes into the audit trail who asked for what only operators may: key_id, target (method and route), times, ip, user_agent, request_id. Once an hour for a key and a target, so nobody can fill the trail. Locks nothing.';


create function tollgate.note_uses(uses jsonb) returns void
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

comment on function tollgate.note_uses(jsonb) is 'Remembers from which networks keys were used: key_id, network, seen. Locks the rows, in order.';


create function public.tollgate_note_sightings(refusals jsonb, trespasses jsonb, uses jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform tollgate.note_uses(uses);
  perform tollgate.note_trespasses(trespasses);
  perform tollgate.note_refused(refusals);
  return '{"noted": true}';
end
$$;

comment on function public.tollgate_note_sightings(jsonb, jsonb, jsonb) is
  'Takes over what a server has counted since it last did: refusals, keys that asked for what only operators may, and networks from which keys were used. Refuses nothing. Locks the security events and networks it writes, in order.';


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


create function tollgate.of_security_event(e tollgate.security_events) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', e.id,
    'kind', e.kind,
    'severity', e.severity,
    'subject', jsonb_build_object('kind', e.subject_kind, 'id', e.subject),
    'org_id', e.org_id,
    'key_id', e.key_id,
    'first_seen', tollgate.utc(e.first_seen_at),
    'last_seen', tollgate.utc(e.last_seen_at),
    'count', e.count,
    'details', e.details,
    'acknowledged_at', tollgate.utc(e.acknowledged_at),
    'acknowledged_by', e.acknowledged_by,
    'note', e.note
  )
$$;

comment on function tollgate.of_security_event(tollgate.security_events) is 'A security event as it is shown.';


create function tollgate.rank_of(e tollgate.security_events, sort text) returns numeric
language sql
immutable
set search_path = ''
as $$
  select case split_part(sort, ':', 1)
    when 'first_seen' then extract(epoch from e.first_seen_at)
    when 'count' then e.count
    when 'severity' then array_position('{info,warning,critical}'::text[], e.severity)
    else extract(epoch from e.last_seen_at)
  end * case when sort like '%:desc' then 1 else -1 end
$$;

comment on function tollgate.rank_of(tollgate.security_events, text) is 'What a list of security events is sorted by, greatest first. `sort` is a word and its direction, as last_seen:desc.';


create function public.tollgate_security_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  sort text := coalesce(filters ->> 'sort', 'last_seen:desc');
  last tollgate.security_events;
  fitting bigint;
  page jsonb[];
begin
  if filters ->> 'cursor' is not null then
    select e.* into last from tollgate.security_events e where e.id = filters ->> 'cursor';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  with fitting as materialized (
    select e.id, tollgate.rank_of(e, sort) as rank
    from tollgate.security_events e
    where (filters ->> 'kind' is null or e.kind = filters ->> 'kind')
      and (filters ->> 'severity' is null or e.severity = filters ->> 'severity')
      and (filters ->> 'org_id' is null or e.org_id = filters ->> 'org_id')
      and (filters ->> 'key_id' is null or e.key_id = filters ->> 'key_id')
      and (filters ->> 'acknowledged' is null or (e.acknowledged_at is not null) = (filters ->> 'acknowledged')::boolean)
      and (filters ->> 'from' is null or e.last_seen_at >= (filters ->> 'from')::timestamptz)
      and (filters ->> 'to' is null or e.first_seen_at < (filters ->> 'to')::timestamptz)
  )
  select
    (select count(*) from fitting),
    array(
      select tollgate.of_security_event(e)
      from (
        select f.id, f.rank from fitting f
        where last.id is null or (f.rank, f.id) < (tollgate.rank_of(last, sort), last.id)
        order by f.rank desc, f.id desc
        limit page_size + 1
      ) f
      join tollgate.security_events e on e.id = f.id
      order by f.rank desc, f.id desc
    )
  into fitting, page;

  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', to_jsonb(page[:page_size]),
    'next_cursor', case when cardinality(page) > page_size then page[page_size] -> 'id' end,
    'total', fitting
  );
end
$$;

comment on function public.tollgate_security_events(jsonb, jsonb, integer) is
  'Security events. `filters`: kind, severity, org_id, key_id, acknowledged, from (seen at or after), to (seen before), sort (last_seen, first_seen, count or severity, :asc or :desc), cursor (the last id of the page before). For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_acknowledge_security_event(caller jsonb, event_id text, note text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  event tollgate.security_events;
begin
  update tollgate.security_events e
  set acknowledged_at = now(), acknowledged_by = coalesce(actor.user_id, actor.name), note = tollgate_acknowledge_security_event.note
  where e.id = event_id and e.acknowledged_at is null
  returning e.* into event;
  if found then
    perform tollgate.record(actor, 'security_event.acknowledged', event.org_id, event.id, jsonb_strip_nulls(jsonb_build_object(
      'kind', event.kind, 'subject', event.subject, 'count', event.count, 'note', event.note
    )));
  else
    select e.* into event from tollgate.security_events e where e.id = event_id;
    if not found then
      perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'security_event', 'id', event_id));
    end if;
  end if;
  return tollgate.of_security_event(event) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_acknowledge_security_event(jsonb, text, text) is
  'Says that somebody has seen to an event; when it is seen again, a new one opens. The first acknowledgement stands: repeating changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the event.';


create function tollgate.of_audit_event(e tollgate.audit_events) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', e.id,
    'occurred_at', tollgate.utc(e.occurred_at),
    'actor', jsonb_strip_nulls(jsonb_build_object(
      'kind', e.actor_kind, 'key_id', e.actor_key_id, 'user_id', e.actor_user_id, 'name', e.actor_name
    )),
    'org_id', e.org_id,
    'action', e.action,
    'target_id', e.target_id,
    'outcome', e.outcome,
    'ip', host(e.ip),
    'user_agent', e.user_agent,
    'request_id', e.request_id,
    'details', e.details
  )
$$;

comment on function tollgate.of_audit_event(tollgate.audit_events) is 'An audit event as it is shown.';


create or replace function public.tollgate_audit_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  cursor_id text := coalesce(filters ->> 'cursor', filters ->> 'before_id'); -- as servers before this migration say it
  last tollgate.audit_events;
  -- Said once and planned for each call, so that the filters that are there find their index.
  fits constant text := $fits$
    ($1 ->> 'org_id' is null or a.org_id = $1 ->> 'org_id')
    and ($1 ->> 'action' is null or a.action = $1 ->> 'action')
    and ($1 ->> 'outcome' is null or a.outcome = $1 ->> 'outcome')
    and ($1 ->> 'target_id' is null or a.target_id = $1 ->> 'target_id')
    and ($1 ->> 'actor_id' is null or $1 ->> 'actor_id' in (a.actor_key_id, a.actor_user_id, a.actor_name))
    and ($1 ->> 'from' is null or a.occurred_at >= ($1 ->> 'from')::timestamptz)
    and ($1 ->> 'to' is null or a.occurred_at < ($1 ->> 'to')::timestamptz)
  $fits$;
  most_counted constant integer := 10000;
  total bigint;
  page jsonb[];
begin
  if cursor_id is not null then
    select a.* into last from tollgate.audit_events a where a.id = cursor_id;
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  execute 'select count(*) from (select from tollgate.audit_events a where ' || fits || ' limit $2) a'
  into total using filters, most_counted + 1;
  execute format(
    $page$
      select array(
        select tollgate.of_audit_event(a) from tollgate.audit_events a
        where %s and ($2 is null or (a.occurred_at, a.id) %s ($3, $2))
        order by a.occurred_at %s, a.id %3$s
        limit $4
      )
    $page$,
    fits,
    case filters ->> 'sort' when 'occurred_at:asc' then '>' else '<' end,
    case filters ->> 'sort' when 'occurred_at:asc' then 'asc' else 'desc' end
  )
  into page using filters, last.id, last.occurred_at, page_size + 1;

  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', to_jsonb(page[:page_size]),
    'next_cursor', case when cardinality(page) > page_size then page[page_size] -> 'id' end,
    'total', case when total <= most_counted then total end
  );
end
$$;

comment on function public.tollgate_audit_events(jsonb, jsonb, integer) is
  'Audit events. `filters`: org_id, action, outcome, target_id, actor_id (of a key or user, or a console''s name), from, to, sort (occurred_at:desc, or occurred_at:asc for the oldest first), cursor (the last id of the page before). The total is counted up to 10,000. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


create function tollgate.report_on_keys(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with usable as (
    select k.*, k.last_used_at is null as never_used
    from tollgate.api_keys k
    where k.revoked_at is null and k.disabled_at is null and (k.expires_at is null or k.expires_at > now())
  ),
  unused as (
    select u.* from usable u where u.never_used or u.last_used_at < now() - interval '90 days'
  )
  select (
    select jsonb_build_object(
      'issued', count(*) filter (where a.action = 'key.created'),
      'rotated', count(*) filter (where a.action = 'key.rotated'),
      'disabled', count(*) filter (where a.action = 'key.disabled'),
      'revoked', count(*) filter (where a.action = 'key.revoked')
    )
    from tollgate.audit_events a
    where a.occurred_at >= since and a.occurred_at < until and a.outcome = 'success' and a.action like 'key.%'
  ) || jsonb_build_object(
    'usable', (select count(*) from usable),
    'never_used', (select count(*) from unused u where u.never_used),
    'unused_90_days', (select count(*) from unused u where not u.never_used),
    'unused', coalesce((
      select jsonb_agg(jsonb_build_object(
        'key_id', u.id,
        'key', u.prefix || '…' || u.last_four,
        'name', u.name,
        'org_id', u.org_id,
        'user_id', u.user_id,
        'created_at', tollgate.utc(u.created_at),
        'last_used_at', tollgate.utc(u.last_used_at)
      ) order by u.created_at, u.id)
      from (select * from unused u order by u.created_at, u.id limit 1000) u
    ), '[]')
  )
$$;

comment on function tollgate.report_on_keys(timestamptz, timestamptz) is
  'What happened to keys in a time, and which of those that may be used today are not: the 1,000 oldest of them by name.';


create function tollgate.report_on_people(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with done as (
    select a.actor_kind, coalesce(a.actor_user_id, a.actor_name, a.actor_key_id) as actor_id, a.action, a.outcome, count(*) as times
    from tollgate.audit_events a
    where a.occurred_at >= since and a.occurred_at < until
    group by 1, 2, 3, 4
  ),
  actors as (
    select
      d.actor_kind, d.actor_id,
      sum(d.times) as times,
      coalesce(sum(d.times) filter (where d.outcome = 'refused'), 0) as refused,
      jsonb_object_agg(d.action, d.times) filter (where d.outcome = 'success') as actions
    from done d
    group by 1, 2
  ),
  people as (
    select
      coalesce(d.actor_kind, 'key') as kind, coalesce(d.actor_id, u.id) as id, u.email, u.role, u.status, u.org_id,
      coalesce(d.actions, '{}') as actions, coalesce(d.refused, 0) as refused, coalesce(d.times, 0) as times
    from actors d
    full join (select u.* from tollgate.users u) u on u.id = d.actor_id and d.actor_kind = 'key'
    where d.actor_id is not null or u.role = 'admin'
  )
  select jsonb_build_object(
    'admins', (select count(*) from tollgate.users u where u.role = 'admin' and u.status = 'active'),
    'actors', (select count(*) from people),
    'done', coalesce((
      select jsonb_agg(jsonb_build_object(
        'kind', case p.kind when 'key' then 'user' else p.kind end,
        'id', p.id,
        'email', p.email,
        'role', p.role,
        'status', p.status,
        'org_id', p.org_id,
        'actions', p.actions,
        'refused', p.refused
      ) order by p.role = 'admin' desc nulls last, p.times desc, p.id)
      from (select * from people p order by p.role = 'admin' desc nulls last, p.times desc, p.id limit 1000) p
    ), '[]')
  )
$$;

comment on function tollgate.report_on_people(timestamptz, timestamptz) is
  'Who changed what how often: admins, idle ones too, then whoever else acted; the 1,000 busiest.';


create function tollgate.report_on_access(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    with used as (
      select u.* from tollgate.usage_by('{key}', since, until, '{}') u where u.requests > 0
    )
    select jsonb_build_object(
      'keys', count(*),
      'requests', coalesce(sum(u.requests), 0),
      'used', coalesce((
        select jsonb_agg(jsonb_build_object(
          'key_id', b.key_id,
          'key', k.prefix || '…' || k.last_four,
          'name', k.name,
          'org_id', k.org_id,
          'user_id', k.user_id,
          'requests', b.requests,
          'charge_nanos', b.charge_nanos,
          'last_request_at', tollgate.utc(b.last_at),
          'last_used_at', tollgate.utc(k.last_used_at)
        ) order by b.requests desc, b.key_id)
        from (select * from used b order by b.requests desc, b.key_id limit 1000) b
        left join tollgate.api_keys k on k.id = b.key_id
      ), '[]')
    )
    from used u
  );
end
$$;

comment on function tollgate.report_on_access(timestamptz, timestamptz) is
  'Which keys made paid requests in a time: the 1,000 busiest.';


create function tollgate.report_on_money(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  used record;
  moved record;
begin
  select u.charge_nanos, u.cost_nanos into used from tollgate.usage_by('{}', since, until, '{}') u;
  select
    coalesce(sum(s.nanos) filter (where s.account = 'funding'), 0) as funded,
    coalesce(sum(s.nanos) filter (where s.account = 'promotion'), 0) as promoted,
    coalesce(sum(s.nanos) filter (where s.account = 'revenue'), 0) as refunded,
    coalesce(sum(s.nanos) filter (where s.account = 'writeoff'), 0) as written_off
  into moved
  from (
    select
      case t.credit when 'wallet' then t.debit else t.credit end as account,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as nanos
    from tollgate.transfers t
    where t.created_at >= since and t.created_at < until and t.kind <> 'charge'
  ) s;
  return jsonb_build_object(
    'in_nanos', moved.funded,
    'promotions_nanos', moved.promoted,
    'written_off_nanos', moved.written_off,
    'charged_nanos', coalesce(used.charge_nanos, 0),
    'refunded_nanos', moved.refunded,
    'out_nanos', coalesce(used.cost_nanos, 0),
    'margin_nanos', coalesce(used.charge_nanos, 0) - moved.refunded - coalesce(used.cost_nanos, 0)
  );
end
$$;

comment on function tollgate.report_on_money(timestamptz, timestamptz) is
  'Money in (what was funded, less what was taken back), out (what upstreams cost) and the margin: charges less refunds and cost. A charge counts at the time of its request, everything else when it was moved.';


create function tollgate.report_on_books(wanted boolean) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  rows bigint := (
    select sum(greatest(c.reltuples, 0)) from pg_catalog.pg_class c
    where c.oid in ('tollgate.requests'::regclass, 'tollgate.transfers'::regclass)
  );
  books jsonb;
begin
  if not coalesce(wanted, rows <= 500000) then
    return jsonb_build_object('audited', false, 'agree', null, 'faults', '[]'::jsonb, 'fault_count', null, 'reason', case
      when wanted is null then format('The books have about %s rows, too many to read in one call. Run `python -m tollgate audit`.', rows)
      else 'The audit was left out.'
    end);
  end if;
  books := public.tollgate_audit_books();
  return jsonb_build_object(
    'audited', true,
    'agree', books -> 'faults' = '[]',
    'fault_count', jsonb_array_length(books -> 'faults'),
    'faults', jsonb_path_query_array(books, '$.faults[0 to 99]'),
    'orgs', books -> 'orgs',
    'transfers', books -> 'transfers',
    'requests', books -> 'requests',
    'open_holds', books -> 'open_holds',
    'reason', null
  );
end
$$;

comment on function tollgate.report_on_books(boolean) is
  'The audit of the books at this moment, with the first hundred faults. Unless it is asked for, books that a call''s deadline may be too short for are not read, and the answer says so.';


create function public.tollgate_compliance_report(caller jsonb, since text, until text, books boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  beginning constant timestamptz := since;
  ending constant timestamptz := until;
begin
  if ending <= beginning or ending > beginning + interval '366 days' then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'to', 'most_days', 366));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'from', tollgate.utc(beginning),
    'to', tollgate.utc(ending),
    'made_at', tollgate.utc(now()),
    'keys', tollgate.report_on_keys(beginning, ending),
    'people', tollgate.report_on_people(beginning, ending),
    'access', tollgate.report_on_access(beginning, ending),
    'money', tollgate.report_on_money(beginning, ending),
    'books', tollgate.report_on_books(books)
  );
end
$$;

comment on function public.tollgate_compliance_report(jsonb, text, text, boolean) is
  'What an auditor asks of a time, of at most 366 days: keys, people, access, money, and the books at this moment. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


create function tollgate.slowest_functions() returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  home text := (
    select n.nspname from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'
  );
  slowest jsonb;
  reason text := 'pg_stat_statements is not installed in this database and track_functions is none, so Postgres does not time functions.';
begin
  if home is not null then
    begin
      execute format(
        $query$
          select coalesce(jsonb_agg(to_jsonb(f) order by f.total_ms desc), '[]')
          from (
            select substring(s.query from 'tollgate_[a-z_]+') as function, sum(s.calls)::bigint as calls,
              round(sum(s.total_exec_time)::numeric, 3) as total_ms,
              round((sum(s.total_exec_time) / greatest(sum(s.calls), 1))::numeric, 3) as mean_ms,
              round(max(s.max_exec_time)::numeric, 3) as most_ms
            from %I.pg_stat_statements s
            join pg_catalog.pg_database d on d.oid = s.dbid and d.datname = current_database()
            where s.query ~ 'public"?\."?tollgate_[a-z_]+'
            group by 1
            order by 3 desc
            limit 20
          ) f
        $query$,
        home
      ) into slowest;
      return jsonb_build_object('source', 'pg_stat_statements', 'functions', slowest, 'reason', null);
    exception when object_not_in_prerequisite_state or insufficient_privilege or undefined_column then
      reason := 'pg_stat_statements is installed but not to be read here: ' || sqlerrm || '.';
    end;
  end if;

  if current_setting('track_functions') = 'none' then
    return jsonb_build_object('source', null, 'functions', null, 'reason', reason);
  end if;
  select coalesce(jsonb_agg(to_jsonb(f) order by f.total_ms desc), '[]') into slowest
  from (
    select s.funcname as function, s.calls, round(s.total_time::numeric, 3) as total_ms,
      round((s.total_time / greatest(s.calls, 1))::numeric, 3) as mean_ms, null as most_ms
    from pg_catalog.pg_stat_user_functions s
    where s.schemaname = 'public' and s.funcname like 'tollgate\_%'
    order by s.total_time desc
    limit 20
  ) f;
  return jsonb_build_object('source', 'pg_stat_user_functions', 'functions', slowest, 'reason', null);
end
$$;

comment on function tollgate.slowest_functions() is
  'The functions that took most time, by what this database keeps of it: pg_stat_statements, else pg_stat_user_functions, else nothing and the reason.';


create function tollgate.sizes() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'database_bytes', pg_database_size(current_database()),
    'tables_bytes', coalesce(sum(t.table_bytes), 0),
    'indexes_bytes', coalesce(sum(t.index_bytes), 0),
    'tables', coalesce(jsonb_agg(jsonb_build_object(
      'table', t.relname,
      'rows', t.n_live_tup,
      'dead_rows', t.n_dead_tup,
      'table_bytes', t.table_bytes,
      'index_bytes', t.index_bytes,
      'last_vacuum', tollgate.utc(greatest(t.last_vacuum, t.last_autovacuum)),
      'last_analyze', tollgate.utc(greatest(t.last_analyze, t.last_autoanalyze))
    ) order by t.table_bytes + t.index_bytes desc, t.relname), '[]')
  )
  from (
    select s.*, pg_table_size(s.relid) as table_bytes, pg_indexes_size(s.relid) as index_bytes
    from pg_catalog.pg_stat_user_tables s
    where s.schemaname = 'tollgate'
  ) t
$$;

comment on function tollgate.sizes() is 'How large the database and our tables are, and how they are kept. Rows are Postgres''s estimate.';


create function tollgate.index_advice() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'counted_since', (
      select tollgate.utc(d.stats_reset) from pg_catalog.pg_stat_database d where d.datname = current_database()
    ),
    'unused', coalesce((
      select jsonb_agg(jsonb_build_object('index', s.indexrelname, 'table', s.relname, 'bytes', pg_relation_size(s.indexrelid))
        order by pg_relation_size(s.indexrelid) desc, s.indexrelname)
      from pg_catalog.pg_stat_user_indexes s
      join pg_catalog.pg_index i on i.indexrelid = s.indexrelid
      where s.schemaname = 'tollgate' and s.idx_scan = 0 and not i.indisunique
    ), '[]'),
    'missing', coalesce((
      select jsonb_agg(jsonb_build_object('table', m.relname, 'reason', m.reason) order by m.relname, m.reason)
      from (
        select s.relname, format(
          '%s reads of the whole table, of %s rows each, against %s by an index', s.seq_scan, s.seq_tup_read / s.seq_scan, s.idx_scan
        ) as reason
        from pg_catalog.pg_stat_user_tables s
        where s.schemaname = 'tollgate' and s.n_live_tup > 10000
          and s.seq_scan > 100 and s.seq_tup_read / s.seq_scan > 10000 and s.seq_scan > coalesce(s.idx_scan, 0)
        union all
        select c.conrelid::regclass::text, format('foreign key %s has no index', c.conname)
        from pg_catalog.pg_constraint c
        where c.contype = 'f' and c.connamespace = 'tollgate'::regnamespace and not exists (
          select from pg_catalog.pg_index i
          where i.indrelid = c.conrelid and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
        )
      ) m
    ), '[]')
  )
$$;

comment on function tollgate.index_advice() is
  'Indexes that were not read since Postgres counts, and tables that are read whole more often than by an index: a hint, no more. Indexes that keep things unique are never unused.';


create function tollgate.sessions() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'connections', jsonb_build_object(
      'used', (select sum(d.numbackends) from pg_catalog.pg_stat_database d),
      'used_here', (select d.numbackends from pg_catalog.pg_stat_database d where d.datname = current_database()),
      'most', current_setting('max_connections')::integer,
      'reserved', current_setting('superuser_reserved_connections')::integer
    ),
    'oldest_transaction', (
      select jsonb_build_object(
        'began_at', tollgate.utc(a.xact_start),
        'seconds', extract(epoch from clock_timestamp() - a.xact_start)::bigint,
        'pid', a.pid,
        'state', a.state
      )
      from pg_catalog.pg_stat_activity a
      where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
        and a.backend_type = 'client backend'
      order by a.xact_start
      limit 1
    ),
    'sees_all_sessions', pg_has_role('pg_read_all_stats', 'member')
  )
$$;

comment on function tollgate.sessions() is
  'Connections and the oldest transaction besides this one: of all roles where our owner may see them, otherwise of its own.';


create function tollgate.last_backup() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'archived_at', tollgate.utc(a.last_archived_time),
    'failed_at', tollgate.utc(a.last_failed_time),
    'reason', case when a.last_archived_time is null then
      'Postgres archives no write-ahead log here, and knows of no other backup. Ask whoever hosts it.'
    end
  )
  from pg_catalog.pg_stat_archiver a
$$;

comment on function tollgate.last_backup() is
  'What Postgres knows of backups: when it last handed a piece of its log to the archive, or that it does not.';


create function public.tollgate_database(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'schema_version', tollgate.schema_version(),
    'server_version', current_setting('server_version'),
    'sizes', tollgate.sizes(),
    'slowest', tollgate.slowest_functions(),
    'indexes', tollgate.index_advice(),
    'last_backup', tollgate.last_backup()
  ) || tollgate.sessions();
end
$$;

comment on function public.tollgate_database(jsonb) is
  'How the database fares, by Postgres''s own statistics; nothing that only a superuser may ask. For admins. Refuses: as recognise(). Locks nothing.';


select tollgate.expose('public.tollgate_note_sightings(jsonb, jsonb, jsonb)');
select tollgate.expose('public.tollgate_detect_patterns()');
select tollgate.expose('public.tollgate_security_events(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_acknowledge_security_event(jsonb, text, text)');
select tollgate.expose('public.tollgate_audit_events(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_compliance_report(jsonb, text, text, boolean)');
select tollgate.expose('public.tollgate_database(jsonb)');

-- The net under servers that do not sweep.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-detect', '* * * * *', 'select public.tollgate_detect_patterns()');
  end if;
end
$$;


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001800'
$$;

revoke execute on all functions in schema tollgate from public;
