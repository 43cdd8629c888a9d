-- Shows and lists keys and their events.

create function tollgate.listed_key(key tollgate.api_keys, sort text) returns text
language sql
immutable
set search_path = ''
as $$
  select case sort
    when 'name' then lower(key.name)
    when 'last_used_at' then lpad(coalesce(extract(epoch from key.last_used_at) * 1000000, 0)::bigint::text, 20, '0')
    else lpad((extract(epoch from key.created_at) * 1000000)::bigint::text, 20, '0')
  end collate "C"
$$;

comment on function tollgate.listed_key(tollgate.api_keys, text) is
  'What a key is sorted by, as a text that sorts as it does. Never used comes before all use.';


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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
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
  sort text := split_part(coalesce(filters ->> 'sort', 'created_at:desc'), ':', 1);
  direction text := split_part(coalesce(filters ->> 'sort', 'created_at:desc'), ':', 2);
  descending boolean := direction = 'desc';
  cursor_id text := split_part(filters ->> 'cursor', '~', 1);
  cursor_place text := nullif(split_part(filters ->> 'cursor', '~', 2), '');
  faulty text;
  answer jsonb;
begin
  faulty := case
    when sort not in ('created_at', 'last_used_at', 'name') or direction not in ('asc', 'desc') then 'sort'
    when filters ->> 'status' not in ('active', 'disabled', 'revoked', 'expired') then 'status'
    when filters ->> 'environment' not in ('live', 'test') then 'environment'
    when filters ->> 'role' not in ('member', 'admin') then 'role'
    when page_size is null or page_size not between 1 and 1000 then 'limit'
  end;
  if cursor_id is not null then
    select coalesce(cursor_place, tollgate.listed_key(k, sort)) into cursor_place from tollgate.api_keys k
    where k.id = cursor_id and (scope = 'admin' or k.user_id = actor.user_id);
    if not found then
      faulty := 'cursor';
    end if;
  end if;
  if faulty is not null then
    perform tollgate.refuse_field(faulty, 'is none that is known');
  end if;

  with found as (
    select k as key, k.id, tollgate.listed_key(k, sort) as place
    from tollgate.api_keys k
    join tollgate.users u on u.id = k.user_id
    where (scope = 'admin' or k.user_id = actor.user_id)
      and (filters ->> 'org_id' is null or k.org_id = filters ->> 'org_id')
      and (filters ->> 'user_id' is null or k.user_id = filters ->> 'user_id')
      and (filters ->> 'environment' is null or k.environment = filters ->> 'environment')
      and (filters ->> 'role' is null or u.role = filters ->> 'role')
      and (filters ->> 'status' is null or tollgate.key_status(k) = filters ->> 'status')
      and (filters ->> 'q' is null or strpos(lower(k.name), lower(filters ->> 'q')) > 0
        or strpos(k.prefix, filters ->> 'q') > 0)
  ),
  page as (
    select f.*, row_number() over (
      order by
        case when not descending then f.place end, case when not descending then f.id end,
        case when descending then f.place end desc, case when descending then f.id end desc
    ) as row
    from found f
    where cursor_id is null
      or (not descending and (f.place, f.id) > (cursor_place, cursor_id))
      or (descending and (f.place, f.id) < (cursor_place, cursor_id))
    order by row
    limit page_size + 1
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce(
      (select jsonb_agg(tollgate.key_shown(p.key) order by p.row) from page p where p.row <= page_size), '[]'::jsonb
    ),
    -- A key may be used between two pages, so the place it had goes with its id.
    'next_cursor', (
      select case sort when 'last_used_at' then last.id || '~' || last.place else last.id end
      from page last
      where last.row = page_size and exists (select from page more where more.row > page_size)
    ),
    'total', (select count(*) from found)
  ) into answer;
  return answer;
end
$$;

comment on function public.tollgate_keys(jsonb, jsonb, integer, text) is
  'Keys: one''s own, or with `scope` admin everybody''s. `filters`: org_id, user_id, q (a part of the name or of the prefix), status, environment, role (of the owner), sort (created_at, last_used_at or name, :asc or :desc; created_at:desc if none is named), cursor. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_keys(jsonb, jsonb, integer, text)');


create function public.tollgate_key_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  before tollgate.audit_events;
  answer jsonb;
begin
  if filters ->> 'cursor' is not null then
    select b.* into before from tollgate.audit_events b
    where b.id = filters ->> 'cursor' and b.org_id = actor.org_id and b.action like 'key.%';
  end if;
  if filters ->> 'cursor' is not null and before.id is null then
    perform tollgate.refuse_field('cursor', 'is none that is known');
  elsif page_size is null or page_size not between 1 and 1000 then
    perform tollgate.refuse_field('limit', 'must be from 1 to 1000');
  end if;

  with page as (
    select a.*, row_number() over (order by a.occurred_at desc, a.id desc) as row
    from tollgate.audit_events a
    where a.org_id = actor.org_id and a.action like 'key.%'
      and (filters ->> 'key_id' is null or a.target_id = filters ->> 'key_id')
      and (filters ->> 'action' is null or a.action = filters ->> 'action')
      and (filters ->> 'outcome' is null or a.outcome = filters ->> 'outcome')
      and (filters ->> 'from' is null or a.occurred_at >= (filters ->> 'from')::timestamptz)
      and (filters ->> 'to' is null or a.occurred_at < (filters ->> 'to')::timestamptz)
      and (before.id is null or (a.occurred_at, a.id) < (before.occurred_at, before.id))
    order by a.occurred_at desc, a.id desc
    limit page_size + 1
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(jsonb_build_object(
        'id', e.id,
        'occurred_at', tollgate.utc(e.occurred_at),
        'actor', jsonb_strip_nulls(jsonb_build_object(
          'kind', e.actor_kind, 'key_id', e.actor_key_id, 'user_id', e.actor_user_id, 'name', e.actor_name
        )),
        'action', e.action,
        'key_id', e.target_id,
        'outcome', e.outcome,
        'ip', case when u.id is not null then host(e.ip) end,
        'user_agent', case when u.id is not null then e.user_agent end,
        'request_id', e.request_id,
        'details', e.details
      ) order by e.row)
      from page e
      left join tollgate.users u on u.id = e.actor_user_id and u.org_id = actor.org_id
      where e.row <= page_size
    ), '[]'::jsonb),
    'next_cursor', (
      select last.id from page last
      where last.row = page_size and exists (select from page more where more.row > page_size)
    ),
    'total', null
  ) into answer;
  return answer;
end
$$;

comment on function public.tollgate_key_events(jsonb, jsonb, integer) is
  'What was done to the keys of the caller''s org, newest first. `filters`: key_id, action, outcome, from, to, cursor. From where operators came is theirs: addresses are told of the org''s own users only. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_key_events(jsonb, jsonb, integer)');
