-- Security events: raise, list, acknowledge.

create function tollgate.severity_of(kind text) returns text
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

comment on function tollgate.severity_of(text) is 'The severity of a kind of security event: info, warning or critical.';


create function tollgate.raise_event(
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

comment on function tollgate.raise_event(text, text, text, text, text, bigint, timestamptz, timestamptz, jsonb) is
  'Raises a security event: opens one, or adds to the open one of this kind and subject. Answers its count within the hour. Locks the event: raise several in the order of kind and subject.';


create function tollgate.raise_event_of_change() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  is_of_org constant boolean := new.action in ('credits.overdrawn', 'org.paid_suspended');
begin
  perform tollgate.raise_event(
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

comment on function tollgate.raise_event_of_change() is
  'Trigger of the audit trail: raises a security event for new, rotated and revoked keys, charges above their hold and suspensions of paid calls, in the transaction of the change.';

create trigger audit_events_raised
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.action in (
  'key.created', 'key.rotated', 'key.revoked', 'credits.overdrawn', 'org.paid_suspended'
))
execute function tollgate.raise_event_of_change();


create function tollgate.security_event_shown(e tollgate.security_events) returns jsonb
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
    'first_seen_at', tollgate.utc(e.first_seen_at),
    'last_seen_at', tollgate.utc(e.last_seen_at),
    'count', e.count,
    'details', e.details,
    'acknowledged_at', tollgate.utc(e.acknowledged_at),
    'acknowledged_by', e.acknowledged_by,
    'note', e.note
  )
$$;

comment on function tollgate.security_event_shown(tollgate.security_events) is 'A security event as operators see it.';


create function public.tollgate_security_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.security_events',
    'tollgate.security_event_shown',
    $where$
      ($1 ->> 'kind' is null or e.kind = $1 ->> 'kind')
      and ($1 ->> 'severity' is null or e.severity = $1 ->> 'severity')
      and ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'key_id' is null or e.key_id = $1 ->> 'key_id')
      and ($1 ->> 'acknowledged' is null or (e.acknowledged_at is not null) = ($1 ->> 'acknowledged')::boolean)
      and ($1 ->> 'from' is null or e.last_seen_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.first_seen_at < ($1 ->> 'to')::timestamptz)
    $where$,
    jsonb_build_object(
      'last_seen_at', 'e.last_seen_at',
      'first_seen_at', 'e.first_seen_at',
      'count', 'e.count',
      'severity', $key$array_position('{info,warning,critical}', e.severity)$key$
    ),
    coalesce(filters ->> 'sort', 'last_seen_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_security_events(jsonb, jsonb, integer) is
  'Security events. `filters`: kind, severity, org_id, key_id, acknowledged, from (seen at or after), to (seen before), sort (last_seen, first_seen, count, severity), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_security_events(jsonb, jsonb, integer)');


create function public.tollgate_security_event(caller jsonb, event_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.security_events;
begin
  select e.* into found_one from tollgate.security_events e where e.id = tollgate_security_event.event_id;
  if not found then
    perform tollgate.refuse_missing('security_event', event_id);
  end if;
  return tollgate.security_event_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_security_event(jsonb, text) is
  'One security event. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_security_event(jsonb, text)');


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
      perform tollgate.refuse_missing('security_event', event_id);
    end if;
  end if;
  return tollgate.security_event_shown(event) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_acknowledge_security_event(jsonb, text, text) is
  'Acknowledges an event; when it happens again, a new one opens. The first acknowledgement stands: a repetition changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the event.';

select tollgate.expose('public.tollgate_acknowledge_security_event(jsonb, text, text)');
