-- Who is told of what a round found.

create function tollgate.is_silenced(a tollgate.alerts, as_of timestamptz) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.silences s
    where s.starts_at <= as_of and s.ends_at > as_of
      and (s.rules is null or a.rule_id = any (s.rules))
      and (s.subjects is null or a.subject = any (s.subjects))
      and (s.org_ids is null or a.org_id = any (s.org_ids))
  )
$$;

comment on function tollgate.is_silenced(tollgate.alerts, timestamptz) is 'Whether a silence matches an alert at a moment.';


create function tollgate.alert_told(a tollgate.alerts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', a.id,
    'rule', a.rule_id,
    'signal', r.signal,
    'subject', a.subject,
    'org_id', a.org_id,
    'severity', a.severity,
    'state', a.state,
    'value', a.value,
    'comparison', r.comparison,
    'threshold', r.threshold,
    'firing_at', tollgate.utc(a.firing_at),
    'resolved_at', tollgate.utc(a.resolved_at),
    'incident_id', a.incident_id
  )
  from tollgate.alert_rules r
  where r.id = a.rule_id
$$;

comment on function tollgate.alert_told(tollgate.alerts) is 'An alert as channels are told of it.';


create function tollgate.concerns(c tollgate.channels, a tollgate.alerts) returns boolean
language sql
immutable
set search_path = ''
as $$
  select array_position('{info,warning,critical}', a.severity::text) >= array_position('{info,warning,critical}', c.severity::text)
    and (c.rules is null or a.rule_id = any (c.rules))
    and (c.org_ids is null or (a.org_id = any (c.org_ids)) is true)
$$;

comment on function tollgate.concerns(tollgate.channels, tollgate.alerts) is 'Whether a channel is told of an alert.';


create function tollgate.tell_of_incident(c tollgate.channels, changed tollgate.alerts[], as_of timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  most_listed constant integer := 50;
  part tollgate.alerts[];
begin
  changed := array(select a from unnest(changed) a where tollgate.concerns(c, a) order by a.state, a.id);
  -- PagerDuty opens and resolves each alert by its own key, and groups them itself.
  for i in 1 .. case when c.kind = 'pagerduty' then cardinality(changed) else least(cardinality(changed), 1) end loop
    part := case when c.kind = 'pagerduty' then changed[i:i] else changed end;
    perform tollgate.tell(c.id, 'alerts.changed', jsonb_build_object(
      'type', 'alerts.changed',
      'timestamp', tollgate.utc(as_of),
      'data', (
        select jsonb_build_object(
          'firing', count(*) filter (where a.state = 'firing'),
          'resolved', count(*) filter (where a.state = 'resolved'),
          'alerts', (select jsonb_agg(tollgate.alert_told(b)) from unnest(part[:most_listed]) b)
        )
        from unnest(part) a
      )
    ));
  end loop;
end
$$;

comment on function tollgate.tell_of_incident(tollgate.channels, tollgate.alerts[], timestamptz) is
  'Tells a channel in one message of all that concerns it; lists 50 alerts at most. Locks as tell().';


create function tollgate.tell_operators(as_of timestamptz) returns integer
language plpgsql
set search_path = ''
as $$
declare
  changed tollgate.alerts[];
begin
  with started as (
    update tollgate.alerts a set told_at = as_of
    where a.state = 'firing' and a.told_at is null and not tollgate.is_silenced(a, as_of)
    returning a
  ),
  ended as (
    select a from tollgate.alerts a where a.state = 'resolved' and a.resolved_at = as_of and a.told_at is not null
  )
  select array(select s.a from started s union all select e.a from ended e) into changed;
  if cardinality(changed) > 0 then
    perform tollgate.tell_of_incident(c, changed, as_of)
    from tollgate.channels c
    where c.org_id is null and c.state = 'active'
    order by c.id;
  end if;
  return cardinality(changed);
end
$$;

comment on function tollgate.tell_operators(timestamptz) is
  'Tells operators of alerts that fire and were not told yet, except silenced ones, which are told when the silence ends; and of those that this round resolved, if it was told that they fire. Answers how many. Locks the alerts, and as tell().';


create function tollgate.tell_owners(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  select tollgate.tell_owner(a.org_id, e.event, jsonb_build_object(e.subject, a.subject, e.figure, a.value), as_of)
  from tollgate.alerts a
  join (values
    ('balance_low', 'balance.low', 'org_id', 'days_left'),
    ('key_expiring', 'key.expiring', 'key_id', 'days_left'),
    ('key_budget_near', 'key.budget_near', 'key_id', 'used_percent'),
    ('key_budget_reached', 'key.budget_reached', 'key_id', 'used_percent')
  ) e (rule_id, event, subject, figure) on e.rule_id = a.rule_id
  where a.state = 'firing' and a.firing_at = as_of and a.org_id is not null
  order by a.id
$$;

comment on function tollgate.tell_owners(timestamptz) is
  'Tells orgs of their own alerts that began to fire in this round. Silences are the operators'', and do not hold these back. Locks as tell().';


create function tollgate.drop_old_alerts(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.alerts a where a.id in (
    select o.id from tollgate.alerts o
    where o.state = 'resolved' and o.resolved_at < as_of - interval '90 days' and o.pending_at < as_of - interval '90 days'
    order by o.pending_at
    limit 1000
  );
  delete from tollgate.readings r where r.process <> 'database' and r.at < as_of - interval '10 minutes';
  delete from tollgate.silences s where s.ends_at < as_of - interval '90 days';
$$;

comment on function tollgate.drop_old_alerts(timestamptz) is 'Deletes alerts that were resolved 90 days ago, at most 1,000, silences that ended then, and readings of processes that have ended.';
