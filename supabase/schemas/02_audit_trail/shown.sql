-- Audit events as JSON.

create function tollgate.audit_event_shown(e tollgate.audit_events) returns jsonb
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

comment on function tollgate.audit_event_shown(tollgate.audit_events) is 'An audit event as it is shown.';
