-- Upstreams: our own servers that answer completions.

create function tollgate.upstream_shown(u tollgate.upstreams) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', u.id,
    'name', u.name,
    'base_url', u.base_url,
    'dialect', u.dialect,
    'secret_name', u.secret_name,
    'concurrency', u.concurrency,
    'connect_seconds', u.connect_seconds,
    'first_byte_seconds', u.first_byte_seconds,
    'idle_seconds', u.idle_seconds,
    'health_path', u.health_path,
    'takes_org_keys', u.takes_org_keys,
    'host_id', u.host_id,
    'host_key_generation', u.host_key_generation,
    'state', u.state,
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at),
    'routes', (select count(*) from tollgate.routes r where r.upstream_id = u.id),
    'health', (select tollgate.probe_shown(p) - 'upstream_id' from tollgate.probes p where p.upstream_id = u.id)
  )
$$;

comment on function tollgate.upstream_shown(tollgate.upstreams) is
  'An upstream as operators see it: with the number of its routes, and its last probe.';


create function tollgate.refuse_of_host(u tollgate.upstreams) returns void
language plpgsql
set search_path = ''
as $$
begin
  if u.host_id is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'of_host', 'kind', 'upstream', 'id', u.id, 'host_id', u.host_id
    ));
  end if;
end
$$;

comment on function tollgate.refuse_of_host(tollgate.upstreams) is
  'Refuses, with conflict, an operator''s change of an upstream that is a host''s: another address would get the key of the host.';


create function tollgate.write_upstream(actor tollgate.caller, was tollgate.upstreams, given jsonb)
returns tollgate.upstreams
language plpgsql
set search_path = ''
as $$
declare
  is_new constant boolean := was.created_at is null;
  made tollgate.upstreams := tollgate.with_fields(was, given, array[
    'name', 'base_url', 'dialect', 'secret_name', 'concurrency', 'connect_seconds', 'first_byte_seconds',
    'idle_seconds', 'health_path', 'state', 'takes_org_keys'
  ]);
begin
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
      health_path = made.health_path, state = made.state, takes_org_keys = made.takes_org_keys,
      updated_at = made.updated_at
    where u.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'upstream.created' else 'upstream.changed' end, null, made.id, given
  );
  return made;
end
$$;

comment on function tollgate.write_upstream(tollgate.caller, tollgate.upstreams, jsonb) is
  'Inserts an upstream that has no created_at yet, or changes the given fields of one that the calling function has locked, and records it. Changing nothing records nothing. Refuses: as with_fields().';


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
  perform tollgate.refuse_of_host(was);
  if was.id is null then
    was.connect_seconds := 5;
    was.first_byte_seconds := 120;
    was.idle_seconds := 120;
    was.state := 'active';
    was.takes_org_keys := false;
    was := tollgate.with_fields(
      was,
      jsonb_build_object(
        'id', coalesce(upstream ->> 'id', tollgate.new_id('ups')),
        'name', upstream -> 'name', 'base_url', upstream -> 'base_url', 'dialect', upstream -> 'dialect'
      ),
      array['id', 'name', 'base_url', 'dialect']
    );
  end if;
  made := tollgate.write_upstream(actor, was, upstream - 'id');
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'created', was.created_at is null,
    'upstream', tollgate.upstream_shown(made)
  );
end
$$;

comment on function public.tollgate_put_upstream(jsonb, jsonb) is
  'Creates an upstream, or changes the given fields of the one with this id. A repetition changes and records nothing. For admins and the console. Refuses: as recognise(), with_fields() and refuse_of_host(). Takes an advisory lock, so that two calls at once create one, and locks the row.';

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
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  perform tollgate.refuse_of_host(was);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'upstream', tollgate.upstream_shown(tollgate.write_upstream(actor, was, changes))
  );
end
$$;

comment on function public.tollgate_change_upstream(jsonb, text, jsonb) is
  'Changes the given fields of an upstream. A repetition changes and records nothing. For admins. Refuses: as recognise(), with_fields() and refuse_of_host(), not_found. Locks the row.';

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
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  perform tollgate.refuse_of_host(gone);

  for route in select r.* from tollgate.routes r where r.upstream_id = gone.id order by r.id for update loop
    perform tollgate.remove_route(actor, route);
    routes := routes + 1;
  end loop;
  if routes > 0 and not with_routes then -- the refusal rolls everything back
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'has_routes', 'kind', 'upstream', 'id', gone.id, 'routes', routes
    ));
  end if;

  delete from tollgate.upstreams u where u.id = gone.id;
  perform tollgate.record(
    actor, 'upstream.deleted', null, gone.id, to_jsonb(gone) - 'id' - 'created_at' - 'updated_at'
  );
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'routes', routes);
end
$$;

comment on function public.tollgate_delete_upstream(jsonb, text, boolean) is
  'Deletes an upstream and, with `with_routes`, its routes; each is recorded in full. Requests keep its id. For admins. Refuses: as recognise() and refuse_of_host(), not_found, conflict (with the number of its routes). Locks the upstream, then its routes by id.';

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
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'upstream', tollgate.upstream_shown(found_one) || jsonb_build_object('checks', tollgate.past_probes_of(upstream_id))
  );
end
$$;

comment on function public.tollgate_upstream(jsonb, text) is
  'One upstream, with its last 50 probes. For admins. Refuses: as recognise(), not_found. Locks nothing.';

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
  'Upstreams of our own, with the number of their routes and their last probe. `filters`: ids, state, dialect, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_upstreams(jsonb, jsonb, integer)');
