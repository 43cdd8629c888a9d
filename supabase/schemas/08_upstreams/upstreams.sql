-- Upstreams: own servers that answer completions.

create function tollgate.upstream_shown(u tollgate.upstreams) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(u) || jsonb_build_object(
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at),
    'routes', (select count(*) from tollgate.routes r where r.upstream_id = u.id),
    'health', (
      select to_jsonb(p) - 'upstream_id' || jsonb_build_object('probed_at', tollgate.utc(p.probed_at))
      from tollgate.probes p where p.upstream_id = u.id
    )
  )
$$;

comment on function tollgate.upstream_shown(tollgate.upstreams) is
  'An upstream as operators see it: with the number of its routes, and how it was when it was last probed.';


create function tollgate.write_upstream(actor tollgate.caller, was tollgate.upstreams, given jsonb)
returns tollgate.upstreams
language plpgsql
set search_path = ''
as $$
declare
  is_new boolean := was.created_at is null;
  made tollgate.upstreams;
  culprit text;
begin
  perform tollgate.refuse_unknown(given, array[
    'id', 'name', 'base_url', 'dialect', 'secret_name', 'concurrency',
    'connect_seconds', 'first_byte_seconds', 'idle_seconds', 'health_path', 'state'
  ]);
  made := jsonb_populate_record(was, given - 'id');
  if not is_new and made is not distinct from was then
    return was;
  end if;
  made.updated_at := now();
  if is_new then
    made.created_at := now();
    insert into tollgate.upstreams select made.*;
  else
    update tollgate.upstreams u set
      name = made.name, base_url = made.base_url, dialect = made.dialect, secret_name = made.secret_name,
      concurrency = made.concurrency, connect_seconds = made.connect_seconds,
      first_byte_seconds = made.first_byte_seconds, idle_seconds = made.idle_seconds,
      health_path = made.health_path, state = made.state, updated_at = made.updated_at
    where u.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'upstream.created' else 'upstream.changed' end, null, made.id, given - 'id'
  );
  return made;
exception
  when check_violation then
    get stacked diagnostics culprit = constraint_name;
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', regexp_replace(culprit, '^upstreams_(.*)_(check|is_not_ours)$', '\1')));
  when not_null_violation then
    get stacked diagnostics culprit = column_name;
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', culprit));
  when invalid_text_representation or numeric_value_out_of_range or untranslatable_character then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "upstream"}');
end
$$;

comment on function tollgate.write_upstream(tollgate.caller, tollgate.upstreams, jsonb) is
  'Inserts an upstream that has no created_at yet, or changes the named fields of one that the caller has locked, and records it. What changes nothing records nothing.';


create function public.tollgate_put_upstream(caller jsonb, upstream jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.upstreams;
  made tollgate.upstreams;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate.upstreams', 0));
  select u.* into was from tollgate.upstreams u where u.id = upstream ->> 'id' for no key update;
  if not found then
    was.id := coalesce(upstream ->> 'id', tollgate.new_id('ups'));
    was.connect_seconds := 5;
    was.first_byte_seconds := 120;
    was.idle_seconds := 120;
    was.state := 'active';
  end if;
  made := tollgate.write_upstream(actor, was, upstream);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'created', was.created_at is null,
    'upstream', tollgate.upstream_shown(made)
  );
end
$$;

comment on function public.tollgate_put_upstream(jsonb, jsonb) is
  'Makes a server of our own known, or changes the named fields of the one with this id. Repeating that changes and records nothing. For admins and the console. Refuses: as recognise(), invalid_request (with the field). Takes an advisory lock, so that two at once make one, and locks the row.';

select tollgate.expose('public.tollgate_put_upstream(jsonb, jsonb)');


create function public.tollgate_change_upstream(caller jsonb, upstream_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.upstreams;
begin
  select u.* into was from tollgate.upstreams u
  where u.id = tollgate_change_upstream.upstream_id for no key update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'upstream', 'id', upstream_id));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'upstream', tollgate.upstream_shown(tollgate.write_upstream(actor, was, changes))
  );
end
$$;

comment on function public.tollgate_change_upstream(jsonb, text, jsonb) is
  'Changes the named fields of one of our own servers. Repeating that changes and records nothing. For admins. Refuses: as recognise(), not_found, invalid_request (with the field). Locks the row.';

select tollgate.expose('public.tollgate_change_upstream(jsonb, text, jsonb)');


create function public.tollgate_delete_upstream(caller jsonb, upstream_id text, with_routes boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.upstreams;
  route tollgate.routes;
  routes integer := 0;
begin
  select u.* into gone from tollgate.upstreams u where u.id = tollgate_delete_upstream.upstream_id for update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'upstream', 'id', upstream_id));
  end if;

  for route in select r.* from tollgate.routes r where r.upstream_id = gone.id order by r.id for update loop
    perform tollgate.remove_route(actor, route);
    routes := routes + 1;
  end loop;
  if routes > 0 and not with_routes then -- which takes the whole call back
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('kind', 'upstream', 'id', gone.id, 'routes', routes));
  end if;

  delete from tollgate.upstreams u where u.id = gone.id;
  perform tollgate.record(
    actor, 'upstream.deleted', null, gone.id, to_jsonb(gone) - 'id' - 'created_at' - 'updated_at'
  );
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'routes', routes);
end
$$;

comment on function public.tollgate_delete_upstream(jsonb, text, boolean) is
  'Removes one of our own servers, and its routes where `with_routes` says so; each is recorded whole. Requests keep its id. For admins. Refuses: as recognise(), not_found, conflict (with the number of routes that still lead there). Locks the upstream, then its routes by id.';

select tollgate.expose('public.tollgate_delete_upstream(jsonb, text, boolean)');


create function public.tollgate_upstream(caller jsonb, upstream_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.upstreams;
begin
  select u.* into found_one from tollgate.upstreams u where u.id = tollgate_upstream.upstream_id;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'upstream', 'id', upstream_id));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'upstream', tollgate.upstream_shown(found_one));
end
$$;

comment on function public.tollgate_upstream(jsonb, text) is
  'One of our own servers. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_upstream(jsonb, text)');


create function public.tollgate_upstreams(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.upstreams',
    'tollgate.upstream_shown',
    $where$
      ($1 -> 'ids' is null or e.id in (select jsonb_array_elements_text($1 -> 'ids')))
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'dialect' is null or e.dialect = $1 ->> 'dialect')
    $where$,
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_upstreams(jsonb, jsonb, integer) is
  'Servers of our own, with the number of their routes and their last probe. `filters`: ids, state, dialect, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_upstreams(jsonb, jsonb, integer)');
