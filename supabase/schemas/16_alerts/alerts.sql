-- Alerts as operators see them.

create function tollgate.name_of_subject(subject text) returns text
language sql
stable
set search_path = ''
as $$
  select coalesce(
    (select o.name from tollgate.orgs o where o.id = subject),
    (select k.name from tollgate.api_keys k where k.id = subject),
    (select u.name from tollgate.upstreams u where u.id = subject),
    (select h.name from tollgate.hosts h where h.id = subject),
    (select c.name from tollgate.channels c where c.id = subject)
  )
$$;

comment on function tollgate.name_of_subject(text) is
  'The name of the org, key, upstream, host or channel that an alert is about; null for other subjects, and for those that are gone.';


create function tollgate.alert_shown(a tollgate.alerts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', a.id,
    'rule_id', a.rule_id,
    'signal', r.signal,
    'comparison', r.comparison,
    'threshold', r.threshold,
    'subject', a.subject,
    'subject_name', tollgate.name_of_subject(a.subject),
    'org_id', a.org_id,
    'severity', a.severity,
    'state', a.state,
    'value', a.value,
    'pending_at', tollgate.utc(a.pending_at),
    'firing_at', tollgate.utc(a.firing_at),
    'resolved_at', tollgate.utc(a.resolved_at),
    'told_at', tollgate.utc(a.told_at),
    'incident_id', a.incident_id,
    'acknowledged_at', tollgate.utc(a.acknowledged_at),
    'acknowledged_by', a.acknowledged_by,
    'note', a.note,
    'silenced', tollgate.is_silenced(a, now())
  )
  from tollgate.alert_rules r
  where r.id = a.rule_id
$$;

comment on function tollgate.alert_shown(tollgate.alerts) is 'An alert as operators see it in a list.';


create function public.tollgate_alerts(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.alerts',
    'tollgate.alert_shown',
    $where$
      ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'severity' is null or e.severity = $1 ->> 'severity')
      and ($1 ->> 'rule_id' is null or e.rule_id = $1 ->> 'rule_id')
      and ($1 ->> 'subject' is null or e.subject = $1 ->> 'subject')
      and ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'incident_id' is null or e.incident_id = $1 ->> 'incident_id')
      and ($1 ->> 'acknowledged' is null or (e.acknowledged_at is not null) = ($1 ->> 'acknowledged')::boolean)
      and ($1 ->> 'from' is null or coalesce(e.resolved_at, 'infinity') >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.pending_at < ($1 ->> 'to')::timestamptz)
    $where$,
    jsonb_build_object(
      'pending_at', 'e.pending_at', 'severity', $key$array_position('{info,warning,critical}', e.severity::text)$key$
    ),
    coalesce(filters ->> 'sort', 'pending_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_alerts(jsonb, jsonb, integer) is
  'Alerts. `filters`: state, severity, rule_id, subject, org_id, incident_id, acknowledged, from (not resolved before), to (pending before), sort (pending_at, severity), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_alerts(jsonb, jsonb, integer)');


create function tollgate.alert_in_full(a tollgate.alerts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select tollgate.alert_shown(a) || jsonb_build_object(
    'rule', tollgate.rule_shown(r),
    'history', (
      select coalesce(jsonb_agg(
        jsonb_build_object('state', h.state, 'value', h.value, 'at', tollgate.utc(h.at)) order by h.position
      ), '[]')
      from tollgate.alert_changes h where h.alert_id = a.id
    )
  )
  from tollgate.alert_rules r
  where r.id = a.rule_id
$$;

comment on function tollgate.alert_in_full(tollgate.alerts) is 'An alert with its rule and its history.';


create function public.tollgate_alert(caller jsonb, alert_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.alerts;
begin
  select a.* into found_one from tollgate.alerts a where a.id = alert_id;
  if not found then
    perform tollgate.refuse_missing('alert', alert_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'alert', tollgate.alert_in_full(found_one));
end
$$;

comment on function public.tollgate_alert(jsonb, text) is
  'One alert with its rule and its history. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_alert(jsonb, text)');


create function public.tollgate_acknowledge_alert(caller jsonb, alert_id text, note text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  a tollgate.alerts;
begin
  update tollgate.alerts o
  set acknowledged_at = now(), acknowledged_by = coalesce(actor.user_id, actor.name), note = tollgate_acknowledge_alert.note
  where o.id = alert_id and o.acknowledged_at is null
  returning o.* into a;
  if found then
    perform tollgate.record(actor, 'alert.acknowledged', a.org_id, a.id, jsonb_strip_nulls(jsonb_build_object(
      'rule_id', a.rule_id, 'subject', a.subject, 'note', a.note
    )));
  else
    select o.* into a from tollgate.alerts o where o.id = alert_id;
    if not found then
      perform tollgate.refuse_missing('alert', alert_id);
    end if;
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'alert', tollgate.alert_in_full(a));
end
$$;

comment on function public.tollgate_acknowledge_alert(jsonb, text, text) is
  'Says that somebody looks after an alert. The first acknowledgement stands: a repetition changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the alert.';

select tollgate.expose('public.tollgate_acknowledge_alert(jsonb, text, text)');
