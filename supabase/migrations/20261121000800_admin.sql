-- Why:  operators must see who did what.
-- What: tollgate_audit_events(), newest first, by keyset pages.
-- Care: additive; reads only, but for what recognise() notes of a key's use.

create function public.tollgate_audit_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  before tollgate.audit_events;
begin
  if filters ->> 'before_id' is not null then
    select b.* into before from tollgate.audit_events b where b.id = filters ->> 'before_id';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  return jsonb_build_object('caller', tollgate.identity(actor), 'data', coalesce((
    select jsonb_agg(jsonb_build_object(
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
    ) order by e.occurred_at desc, e.id desc)
    from (
      select a.*
      from tollgate.audit_events a
      where (filters ->> 'org_id' is null or a.org_id = filters ->> 'org_id')
        and (filters ->> 'action' is null or a.action = filters ->> 'action')
        and (filters ->> 'outcome' is null or a.outcome = filters ->> 'outcome')
        and (filters ->> 'target_id' is null or a.target_id = filters ->> 'target_id')
        and (filters ->> 'from' is null or a.occurred_at >= (filters ->> 'from')::timestamptz)
        and (filters ->> 'to' is null or a.occurred_at < (filters ->> 'to')::timestamptz)
        and (before.id is null or (a.occurred_at, a.id) < (before.occurred_at, before.id))
      order by a.occurred_at desc, a.id desc
      limit page_size
    ) e
  ), '[]'::jsonb));
end
$$;

comment on function public.tollgate_audit_events(jsonb, jsonb, integer) is
  'Audit events, newest first. `filters`: org_id, action, outcome, target_id, from, to, before_id (the last id of the page before). For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_audit_events(jsonb, jsonb, integer)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000800'
$$;

revoke execute on all functions in schema tollgate from public;
