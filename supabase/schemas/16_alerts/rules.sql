-- Rules as operators see and change them.

create function tollgate.rule_shown(r tollgate.alert_rules) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) || jsonb_build_object(
    'built_in', exists (select from tollgate.default_rules() d where d.id = r.id),
    'firing', (select count(*) from tollgate.alerts a where a.rule_id = r.id and a.state = 'firing'),
    'created_at', tollgate.utc(r.created_at),
    'updated_at', tollgate.utc(r.updated_at)
  )
$$;

comment on function tollgate.rule_shown(tollgate.alert_rules) is 'A rule, whether it is one of those from the start, and how many of its alerts fire.';


create function tollgate.readings_of_rules(only_rule text default null) returns jsonb
language sql
stable
set search_path = ''
set jit = off
as $$
  with readings as materialized (
    select * from tollgate.alert_readings(now())
    union all
    select 'sweep_pause_seconds', 'installation', round(extract(epoch from now() - s.scanned_at))
    from tollgate.alert_scan s where s.scanned_at > '-infinity'
  ),
  matched as (
    select r.id, g.subject, g.value, count(*) over (partition by r.id) as count, row_number() over (
      partition by r.id order by case r.comparison when 'at_least' then -g.value else g.value end, g.subject
    ) as place
    from tollgate.alert_rules r
    join readings g on g.signal = r.signal and (r.subjects is null or g.subject = any (r.subjects))
    where only_rule is null or r.id = only_rule
  )
  select coalesce(jsonb_object_agg(m.id, jsonb_build_object('count', m.count, 'value', m.value, 'subject', m.subject)), '{}')
  from matched m
  where m.place = 1
$$;

comment on function tollgate.readings_of_rules(text) is
  'By rule, or of one rule: how many readings it has at the moment, and the one nearest to its threshold, or farthest beyond it. Rules without readings are left out.';


create function tollgate.rule_fields() returns text[]
language sql
immutable
set search_path = ''
as $$
  select array[
    'id', 'signal', 'comparison', 'threshold', 'clear_threshold', 'for_seconds', 'clear_seconds', 'severity', 'subjects',
    'state', 'description'
  ]
$$;

comment on function tollgate.rule_fields() is 'The fields of a rule that an operator may set.';


create function tollgate.check_thresholds(r tollgate.alert_rules) returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if r.clear_threshold is not null and tollgate.is_beyond(
    case r.comparison when 'at_least' then 'below' else 'at_least' end, r.threshold, r.clear_threshold
  ) and r.clear_threshold <> r.threshold then
    perform tollgate.refuse_field('clear_threshold', format(
      'must not be %s the threshold', case r.comparison when 'at_least' then 'above' else 'below' end
    ));
  end if;
end
$$;

comment on function tollgate.check_thresholds(tollgate.alert_rules) is
  'Refuses a rule that would fire and clear at the same reading, with invalid_request.';


create function tollgate.write_rule(actor tollgate.caller, made tollgate.alert_rules, action text, details jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.check_thresholds(made);
  made.updated_at := now();
  insert into tollgate.alert_rules as r select made.*
  on conflict (id) do update set
    signal = excluded.signal, comparison = excluded.comparison, threshold = excluded.threshold,
    clear_threshold = excluded.clear_threshold, for_seconds = excluded.for_seconds,
    clear_seconds = excluded.clear_seconds, severity = excluded.severity, subjects = excluded.subjects,
    state = excluded.state, description = excluded.description, updated_at = excluded.updated_at;
  perform tollgate.record(actor, action, null, made.id, details);
  return jsonb_build_object('caller', tollgate.identity(actor), 'rule', tollgate.rule_shown(made));
end
$$;

comment on function tollgate.write_rule(tollgate.caller, tollgate.alert_rules, text, jsonb) is
  'Writes a rule, and records it. Refuses: as check_thresholds(). Locks the row.';


create function tollgate.found_rule(rule_id text) returns tollgate.alert_rules
language plpgsql
set search_path = ''
as $$
declare
  found_one tollgate.alert_rules;
begin
  select r.* into found_one from tollgate.alert_rules r where r.id = rule_id for no key update;
  if not found then
    perform tollgate.refuse_missing('alert_rule', rule_id);
  end if;
  return found_one;
end
$$;

comment on function tollgate.found_rule(text) is 'A rule. Refuses: not_found. Locks the row.';


create function public.tollgate_create_alert_rule(caller jsonb, rule jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  made tollgate.alert_rules;
begin
  made.id := rule ->> 'id';
  made.signal := rule ->> 'signal';
  made.comparison := rule ->> 'comparison';
  made.threshold := (rule ->> 'threshold')::numeric;
  made.for_seconds := 0;
  made.clear_seconds := 0;
  made.severity := 'warning';
  made.state := 'active';
  made.description := '';
  made.created_at := now();
  made := tollgate.with_fields(made, rule, tollgate.rule_fields());
  perform pg_advisory_xact_lock(hashtextextended('tollgate.alert_rules', 0));
  if exists (select from tollgate.alert_rules r where r.id = made.id) then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'exists', 'kind', 'alert_rule', 'id', made.id));
  end if;
  return tollgate.write_rule(actor, made, 'alert_rule.created', rule);
end
$$;

comment on function public.tollgate_create_alert_rule(jsonb, jsonb) is
  'Creates a rule. For admins. Refuses: as recognise(), with_fields() and check_thresholds(), conflict (exists). Takes an advisory lock, so that two of one id cannot be created at once.';

select tollgate.expose('public.tollgate_create_alert_rule(jsonb, jsonb)');


create function public.tollgate_change_alert_rule(caller jsonb, rule_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was constant tollgate.alert_rules := tollgate.found_rule(rule_id);
  made constant tollgate.alert_rules := tollgate.with_fields(was, changes - 'id', tollgate.rule_fields());
begin
  if made is not distinct from was then
    return jsonb_build_object('caller', tollgate.identity(actor), 'rule', tollgate.rule_shown(was));
  end if;
  return tollgate.write_rule(actor, made, 'alert_rule.changed', tollgate.what_changed(to_jsonb(was), to_jsonb(made)));
end
$$;

comment on function public.tollgate_change_alert_rule(jsonb, text, jsonb) is
  'Changes the given fields of a rule. A repetition changes and records nothing. For admins. Refuses: as recognise(), found_rule(), with_fields() and check_thresholds(). Locks the row.';

select tollgate.expose('public.tollgate_change_alert_rule(jsonb, text, jsonb)');


create function public.tollgate_reset_alert_rule(caller jsonb, rule_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  made tollgate.alert_rules;
begin
  select d.* into made from tollgate.default_rules() d where d.id = rule_id;
  if not found then
    perform tollgate.refuse_missing('alert_rule', rule_id);
  end if;
  return tollgate.write_rule(actor, made, 'alert_rule.reset', '{}');
end
$$;

comment on function public.tollgate_reset_alert_rule(jsonb, text) is
  'Makes a rule what it was from the start, also one that was deleted. For admins. Refuses: as recognise(), not_found (for rules of an operator''s own). Locks the row.';

select tollgate.expose('public.tollgate_reset_alert_rule(jsonb, text)');


create function public.tollgate_delete_alert_rule(caller jsonb, rule_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone constant tollgate.alert_rules := tollgate.found_rule(rule_id);
begin
  delete from tollgate.alert_rules r where r.id = gone.id;
  perform tollgate.record(actor, 'alert_rule.deleted', null, gone.id, to_jsonb(gone) - 'id' - 'created_at' - 'updated_at');
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_alert_rule(jsonb, text) is
  'Deletes a rule with its alerts, and records it in full. For admins. Refuses: as recognise() and found_rule(). Locks the rows.';

select tollgate.expose('public.tollgate_delete_alert_rule(jsonb, text)');


create function public.tollgate_alert_rule(caller jsonb, rule_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'rule', tollgate.rule_shown(tollgate.found_rule(rule_id)),
    'readings', tollgate.readings_of_rules(rule_id)
  );
end
$$;

comment on function public.tollgate_alert_rule(jsonb, text) is
  'One rule with its readings. For admins. Refuses: as recognise() and found_rule(). Locks the row.';

select tollgate.expose('public.tollgate_alert_rule(jsonb, text)');


create function public.tollgate_alert_rules(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'readings', tollgate.readings_of_rules()
  ) || tollgate.page(
    'tollgate.alert_rules',
    'tollgate.rule_shown',
    $where$
      ($1 ->> 'signal' is null or e.signal = $1 ->> 'signal')
      and ($1 ->> 'severity' is null or e.severity = $1 ->> 'severity')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"id": "e.id::text collate \"C\""}',
    coalesce(filters ->> 'sort', 'id:asc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_alert_rules(jsonb, jsonb, integer) is
  'Rules with their readings. `filters`: signal, severity, state, sort (id), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_alert_rules(jsonb, jsonb, integer)');
