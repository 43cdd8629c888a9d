-- One round of evaluating the rules. The time is an argument, so that a test can move it.

create function tollgate.is_beyond(comparison text, value numeric, threshold numeric) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case comparison when 'at_least' then value >= threshold else value < threshold end
$$;

comment on function tollgate.is_beyond(text, numeric, numeric) is 'Whether a reading is beyond a threshold; null without a reading.';


create function tollgate.org_of_subject(subject text) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when subject like 'org\_%' then subject
    when subject like 'key\_%' then (select k.org_id from tollgate.api_keys k where k.id = subject)
  end
$$;

comment on function tollgate.org_of_subject(text) is 'The org that the subject of a reading is, or belongs to.';


create function tollgate.keep_readings(process text, observed jsonb, as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.readings o where o.process = keep_readings.process;
  insert into tollgate.readings (process, signal, subject, value, at)
  select keep_readings.process, o.signal, o.subject, max(o.value), as_of
  from jsonb_to_recordset(observed) o (signal text, subject text, value numeric)
  where o.value is not null
  group by o.signal, o.subject
  on conflict on constraint readings_pkey do nothing;
$$;

comment on function tollgate.keep_readings(text, jsonb, timestamptz) is
  'Replaces what a process observed. Locks its rows.';


create function tollgate.change_alert(a tollgate.alerts, state text, as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.alert_changes (alert_id, state, value, at) values (a.id, change_alert.state, a.value, as_of)
$$;

comment on function tollgate.change_alert(tollgate.alerts, text, timestamptz) is 'Adds a change to the history of an alert.';


create function tollgate.next_state(rule tollgate.alert_rules, a tollgate.alerts, beyond boolean, value numeric, as_of timestamptz)
returns tollgate.alerts
language plpgsql
immutable
set search_path = ''
as $$
declare
  is_clear constant boolean := not beyond and coalesce(
    not tollgate.is_beyond(rule.comparison, value, coalesce(rule.clear_threshold, rule.threshold)), true
  );
begin
  a.value := coalesce(value, a.value);
  if a.state = 'pending' then
    a.state := case
      when not beyond then null
      when as_of >= a.pending_at + make_interval(secs => rule.for_seconds) then 'firing'
      else 'pending'
    end;
    a.firing_at := case a.state when 'firing' then as_of end;
    return a;
  end if;
  a.clear_since := case when is_clear then coalesce(a.clear_since, as_of) end;
  if rule.state = 'disabled' or as_of >= a.clear_since + make_interval(secs => rule.clear_seconds) then
    a.state := 'resolved';
    a.resolved_at := as_of;
  end if;
  return a;
end
$$;

comment on function tollgate.next_state(tollgate.alert_rules, tollgate.alerts, boolean, numeric, timestamptz) is
  'An open alert after a reading, which may be missing: that is clear. A pending alert fires once its readings were beyond the threshold for `for_seconds`; its state is null when they are not. A firing one is resolved once they were clear for `clear_seconds`.';


create function tollgate.candidates(as_of timestamptz, pause_seconds numeric)
returns table (rule tollgate.alert_rules, subject text, value numeric, beyond boolean, alert tollgate.alerts)
language sql
stable
set search_path = ''
as $$
  with readings as materialized (
    select * from tollgate.alert_readings(as_of)
    union all
    select 'sweep_pause_seconds', 'installation', pause_seconds where pause_seconds is not null
  ),
  over as (
    select o.* from (
      select r.id as rule_id, g.subject, g.value, row_number() over (partition by r.id order by g.subject) as place
      from tollgate.alert_rules r
      join readings g on g.signal = r.signal and (r.subjects is null or g.subject = any (r.subjects))
      where r.state = 'active' and tollgate.is_beyond(r.comparison, g.value, r.threshold)
    ) o
    where o.place <= 1000
  ),
  opened as (
    select a.rule_id, a.subject, a as alert from tollgate.alerts a where a.state <> 'resolved'
  )
  select r, s.subject, g.value, o.rule_id is not null, p.alert
  from (select o.rule_id, o.subject from over o union select p.rule_id, p.subject from opened p) s
  join tollgate.alert_rules r on r.id = s.rule_id
  left join over o on o.rule_id = s.rule_id and o.subject = s.subject
  left join opened p on p.rule_id = s.rule_id and p.subject = s.subject
  left join lateral (
    select g.value from readings g where g.signal = r.signal and g.subject = s.subject limit 1
  ) g on true
$$;

comment on function tollgate.candidates(timestamptz, numeric) is
  'The rules and subjects that a round looks at: those with a reading beyond the threshold, at most 1,000 of a rule, and those with an open alert.';


create function tollgate.evaluate_rules(as_of timestamptz, pause_seconds numeric) returns integer
language plpgsql
set search_path = ''
as $$
declare
  incident constant text := tollgate.new_id('inc');
  seen record;
  a tollgate.alerts;
  changed integer := 0;
begin
  for seen in
    select c.* from tollgate.candidates(as_of, pause_seconds) c order by (c.rule).id, c.subject
  loop
    a := seen.alert;
    if a.id is null then
      insert into tollgate.alerts (rule_id, subject, org_id, severity, state, value, pending_at)
      values (
        (seen.rule).id, seen.subject, tollgate.org_of_subject(seen.subject), (seen.rule).severity, 'pending',
        seen.value, as_of
      )
      returning * into a;
      perform tollgate.change_alert(a, 'pending', as_of);
      seen.alert := a;
    end if;
    a := tollgate.next_state(seen.rule, a, seen.beyond, seen.value, as_of);
    if a.state is null then
      delete from tollgate.alerts o where o.id = a.id;
      continue;
    end if;
    if a.state = 'firing' and (seen.alert).state = 'pending' then
      a.incident_id := incident;
      a.severity := (seen.rule).severity;
    end if;
    if a is distinct from seen.alert then
      update tollgate.alerts o set
        state = a.state, value = a.value, severity = a.severity, firing_at = a.firing_at, clear_since = a.clear_since,
        resolved_at = a.resolved_at, incident_id = a.incident_id
      where o.id = a.id;
    end if;
    if a.state <> (seen.alert).state then
      perform tollgate.change_alert(a, a.state, as_of);
      changed := changed + 1;
    end if;
  end loop;
  return changed;
end
$$;

comment on function tollgate.evaluate_rules(timestamptz, numeric) is
  'Moves each alert to its next state, and answers how many began to fire or were resolved. Expects the row of tollgate.alert_scan to be locked. Locks the open alerts.';


create function public.tollgate_alert_round(observed jsonb, process text, as_of text default null) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  moment constant timestamptz := coalesce(as_of::timestamptz, clock_timestamp());
  scan tollgate.alert_scan;
  changed integer;
  told integer;
begin
  perform tollgate.keep_readings(process, observed, moment);
  select s.* into scan from tollgate.alert_scan s for update skip locked;
  -- A clock that was ahead for a while must not keep rounds from being evaluated.
  if not found or scan.scanned_at between moment - interval '5 seconds' and moment + interval '5 seconds' then
    return '{"changed": 0, "told": 0}';
  end if;
  if scan.slow_at not between moment - interval '5 minutes' and moment then
    perform tollgate.take_slow_readings(moment);
    perform tollgate.drop_old_alerts(moment);
  end if;
  changed := tollgate.evaluate_rules(
    moment, case when scan.scanned_at > '-infinity' then greatest(0, extract(epoch from moment - scan.scanned_at)) end
  );
  told := tollgate.tell_operators(moment);
  perform tollgate.tell_owners(moment);
  update tollgate.alert_scan set scanned_at = moment;
  return jsonb_build_object('changed', changed, 'told', told);
end
$$;

comment on function public.tollgate_alert_round(jsonb, text, text) is
  'One round: keeps what this process observed, evaluates the rules, and writes what is to be told of each change, in one transaction: each change is told once, by whichever instance finds it. Instances that evaluate at the same time, or within five seconds, do nothing. Refuses nothing. Locks the row of tollgate.alert_scan, the open alerts, and as tell().';

select tollgate.expose('public.tollgate_alert_round(jsonb, text, text)');
