-- Lists of audit events.

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


create function public.tollgate_audit_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  cursor_id text := coalesce(filters ->> 'cursor', filters ->> 'before_id'); -- as older servers say it
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

select tollgate.expose('public.tollgate_audit_events(jsonb, jsonb, integer)');
