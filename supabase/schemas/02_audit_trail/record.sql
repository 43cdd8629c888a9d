-- Writes audit events.

create function tollgate.record(
  actor tollgate.caller,
  action text,
  org_id text,
  target_id text,
  details jsonb default '{}'
) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.audit_events (
    actor_kind, actor_key_id, actor_user_id, actor_name,
    org_id, action, target_id, outcome, ip, user_agent, request_id, details
  ) values (
    actor.kind, actor.key_id, actor.user_id, actor.name,
    org_id, action, target_id, 'success', actor.ip, actor.user_agent, actor.request_id, details
  )
$$;

comment on function tollgate.record(tollgate.caller, text, text, text, jsonb) is
  'Writes the audit event of a change, in the transaction of the change. Locks nothing.';
