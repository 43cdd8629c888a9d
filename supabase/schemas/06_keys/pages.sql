-- Shows and lists keys and their events.


create function public.tollgate_key(caller jsonb, key_id text, scope text default 'keys') returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  key tollgate.api_keys;
begin
  select k.* into key from tollgate.api_keys k
  where k.id = tollgate_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id);
  if not found then
    perform tollgate.refuse_missing('key', key_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'key', tollgate.key_shown(key));
end
$$;

comment on function public.tollgate_key(jsonb, text, text) is
  'One key: any for operators, one''s own otherwise. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_key(jsonb, text, text)');


create function public.tollgate_keys(caller jsonb, filters jsonb, page_size integer, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.api_keys',
    'tollgate.key_shown',
    $where$
      ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and ($1 ->> 'environment' is null or e.environment = $1 ->> 'environment')
      and ($1 ->> 'role' is null or $1 ->> 'role' = (select u.role from tollgate.users u where u.id = e.user_id))
      and ($1 ->> 'status' is null or tollgate.key_status(e) = $1 ->> 'status')
      and ($1 ->> 'q' is null or strpos(lower(e.name), lower($1 ->> 'q')) > 0 or strpos(e.prefix, $1 ->> 'q') > 0)
    $where$,
    jsonb_build_object(
      'created_at', 'e.created_at',
      'name', 'lower(e.name)',
      'last_used_at', $key$coalesce(to_char(e.last_used_at at time zone 'utc', 'YYYYMMDDHH24MISSUS'), '0') collate "C"$key$
    ),
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters || jsonb_build_object('owner_id', case when scope <> 'admin' then coalesce(actor.user_id, '') end),
    page_size,
    within => $where$ $1 ->> 'owner_id' is null or e.user_id = $1 ->> 'owner_id' $where$,
    moving => 'last_used_at'
  );
end
$$;

comment on function public.tollgate_keys(jsonb, jsonb, integer, text) is
  'Keys: one''s own, or with `scope` admin everybody''s. `filters`: org_id, user_id, q (a part of the name or of the prefix), status, environment, role (of the owner), sort (created_at, last_used_at, name), cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_keys(jsonb, jsonb, integer, text)');


create function public.tollgate_key_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  page constant jsonb := tollgate.page(
    'tollgate.audit_events',
    'tollgate.audit_event_shown',
    $where$
      ($1 ->> 'key_id' is null or e.target_id = $1 ->> 'key_id')
      and ($1 ->> 'action' is null or e.action = $1 ->> 'action')
      and ($1 ->> 'outcome' is null or e.outcome = $1 ->> 'outcome')
      and ($1 ->> 'from' is null or e.occurred_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.occurred_at < ($1 ->> 'to')::timestamptz)
    $where$,
    '{"occurred_at": "e.occurred_at"}',
    'occurred_at:desc',
    filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')),
    page_size,
    within => $where$ e.org_id = $1 ->> 'org_id' and e.action like 'key.%' $where$,
    counted => false
  );
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || page || jsonb_build_object('data', (
    select coalesce(jsonb_agg(
      e.value - array['org_id', 'target_id'] || jsonb_build_object('key_id', e.value -> 'target_id')
        || case when u.id is null then '{"ip": null, "user_agent": null}' else '{}'::jsonb end
      order by e.ordinality
    ), '[]')
    from jsonb_array_elements(page -> 'data') with ordinality e
    left join tollgate.users u on u.id = e.value #>> '{actor,user_id}' and u.org_id = actor.org_id
  ));
end
$$;

comment on function public.tollgate_key_events(jsonb, jsonb, integer) is
  'What was done to the keys of the caller''s org, newest first. `filters`: key_id, action, outcome, from, to, cursor. Address and user agent are shown of the org''s own users only. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_key_events(jsonb, jsonb, integer)');
