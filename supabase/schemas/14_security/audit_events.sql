-- Audit events: lists, and one.

create function public.tollgate_audit_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.audit_events',
    'tollgate.audit_event_shown',
    $where$
      ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'action' is null or e.action = $1 ->> 'action')
      and ($1 ->> 'outcome' is null or e.outcome = $1 ->> 'outcome')
      and ($1 ->> 'target_id' is null or e.target_id = $1 ->> 'target_id')
      and ($1 ->> 'actor_id' is null or $1 ->> 'actor_id' in (e.actor_key_id, e.actor_user_id, e.actor_name))
      and ($1 ->> 'from' is null or e.occurred_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.occurred_at < ($1 ->> 'to')::timestamptz)
    $where$,
    '{"occurred_at": "e.occurred_at"}',
    coalesce(filters ->> 'sort', 'occurred_at:desc'),
    filters,
    page_size,
    counted => false
  );
end
$$;

comment on function public.tollgate_audit_events(jsonb, jsonb, integer) is
  'Audit events. `filters`: org_id, action, outcome, target_id, actor_id (of a key or user, or the name of a console command), from, to, sort (occurred_at), cursor, offset. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_audit_events(jsonb, jsonb, integer)');


create function public.tollgate_audit_event(caller jsonb, event_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.audit_events;
begin
  select e.* into found_one from tollgate.audit_events e where e.id = tollgate_audit_event.event_id;
  if not found then
    perform tollgate.refuse_missing('audit_event', event_id);
  end if;
  return tollgate.audit_event_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_audit_event(jsonb, text) is
  'One audit event. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_audit_event(jsonb, text)');
