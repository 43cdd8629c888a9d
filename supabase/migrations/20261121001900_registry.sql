-- Why:  operators keep their own servers and routes over HTTP, and see how the servers and the catalogue are.
-- What: probes (how each server was when it was last asked), lists of upstreams and routes, their change and removal,
--       and the state of the shared snapshot.
-- Care: additive. The new check on tollgate.upstreams is not valid for rows that are there: a server that names one of
--       our own secrets goes on, until it is next written.

alter table tollgate.upstreams add constraint upstreams_secret_name_is_not_ours check (
  secret_name !~ '^(KEY_PEPPER|CRON_SECRET|DATABASE_|SUPABASE_|OPENROUTER_|REDIS_|TOLLGATE_)'
) not valid;


create table tollgate.probes (
  upstream_id text primary key references tollgate.upstreams (id) on delete cascade,
  status text not null check (status in ('up', 'down')),
  http_status integer check (http_status between 100 and 999),
  latency_ms integer check (latency_ms >= 0),
  error text check (length(error) between 1 and 500),
  probed_at timestamptz not null default clock_timestamp()
);

comment on table tollgate.probes is 'How each of our own servers was when an operator last had it asked.';
comment on column tollgate.probes.latency_ms is 'Until the head of its answer came; null when none did.';

alter table tollgate.probes enable row level security;


create function tollgate.sort_key(sort text, name text, created_at timestamptz) returns text
language sql
immutable
set search_path = ''
as $$
  select case split_part(sort, ':', 1) when 'created_at'
    then to_char(created_at at time zone 'utc', 'YYYYMMDDHH24MISSUS') else name end collate "C"
$$;

comment on function tollgate.sort_key(text, text, timestamptz) is
  'What a list of few is sorted by: its name, or when it was made. `sort` is one of the two and its direction, as created_at:desc.';


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


create function tollgate.route_shown(r tollgate.routes) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) || jsonb_build_object(
    'created_at', tollgate.utc(r.created_at), 'updated_at', tollgate.utc(r.updated_at)
  )
$$;

comment on function tollgate.route_shown(tollgate.routes) is 'A route as operators see it.';


create function public.tollgate_operator(caller jsonb) returns jsonb
language sql
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, 'admin')))
$$;

comment on function public.tollgate_operator(jsonb) is
  'Says that the caller is an operator, for what the server does outside the database on an operator''s word only. Refuses: as recognise(). Locks nothing.';


create function public.tollgate_upstreams(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  sort text := coalesce(filters ->> 'sort', 'created_at:desc');
  down boolean := sort like '%:desc';
  last tollgate.upstreams;
  last_key text;
  answer jsonb;
begin
  perform tollgate.refuse_unknown(filters, array['ids', 'state', 'dialect', 'sort', 'cursor']);
  if sort not in ('created_at:asc', 'created_at:desc', 'name:asc', 'name:desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if filters ->> 'cursor' is not null then
    select u.* into last from tollgate.upstreams u where u.id = filters ->> 'cursor';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
    last_key := tollgate.sort_key(sort, last.name, last.created_at);
  end if;

  with wanted as (
    select u, u.id, tollgate.sort_key(sort, u.name, u.created_at) as key
    from tollgate.upstreams u
    where (filters -> 'ids' is null or u.id in (select jsonb_array_elements_text(filters -> 'ids')))
      and (filters ->> 'state' is null or u.state = filters ->> 'state')
      and (filters ->> 'dialect' is null or u.dialect = filters ->> 'dialect')
  ), placed as (
    select w.*, row_number() over (
      order by case when not down then w.key end, case when down then w.key end desc,
        case when not down then w.id end, case when down then w.id end desc
    ) as place
    from wanted w
    where last_key is null
      or case when down then (w.key, w.id) < (last_key, last.id) else (w.key, w.id) > (last_key, last.id) end
  )
  select jsonb_build_object(
    'data', coalesce(jsonb_agg(tollgate.upstream_shown(p.u) order by p.place) filter (where p.place <= page_size), '[]'),
    'next_cursor', case when count(*) > page_size then max(p.id) filter (where p.place = page_size) end,
    'total', (select count(*) from wanted)
  ) into answer
  from placed p where p.place <= page_size + 1;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_upstreams(jsonb, jsonb, integer) is
  'Servers of our own, with their routes'' number and their last probe. `filters`: ids, state, dialect, sort (created_at or name, :asc or :desc), cursor. For admins. There are few, so all are looked at. Refuses: as recognise(), invalid_request. Locks nothing.';


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


create function tollgate.remove_route(actor tollgate.caller, r tollgate.routes) returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.routes where id = r.id;
  perform tollgate.record(actor, 'route.deleted', null, r.id, to_jsonb(r) - 'id' - 'created_at' - 'updated_at');
end
$$;

comment on function tollgate.remove_route(tollgate.caller, tollgate.routes) is
  'Deletes a route that the caller has locked, and records all of it.';


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


create function public.tollgate_keep_probes(caller jsonb, probes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  kept jsonb;
begin
  perform u.id from tollgate.upstreams u
  where u.id in (select p ->> 'upstream_id' from jsonb_array_elements(probes) p)
  order by u.id
  for key share;

  with stored as (
    insert into tollgate.probes as p (upstream_id, status, http_status, latency_ms, error)
    select g.upstream_id, g.status, g.http_status, g.latency_ms, left(g.error, 500)
    from jsonb_to_recordset(probes)
      as g (upstream_id text, status text, http_status integer, latency_ms integer, error text)
    where exists (select from tollgate.upstreams u where u.id = g.upstream_id)
    order by g.upstream_id
    on conflict (upstream_id) do update set
      status = excluded.status, http_status = excluded.http_status, latency_ms = excluded.latency_ms,
      error = excluded.error, probed_at = excluded.probed_at
    returning p.*
  )
  select coalesce(jsonb_agg(
    to_jsonb(s) || jsonb_build_object('probed_at', tollgate.utc(s.probed_at)) order by s.upstream_id
  ), '[]') into kept
  from stored s;

  perform tollgate.record(actor, 'upstreams.probed', null, 'upstreams', jsonb_build_object(
    'up', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'up'),
    'down', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'down')
  ));
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', kept);
end
$$;

comment on function public.tollgate_keep_probes(jsonb, jsonb) is
  'Keeps how our own servers answered just now: upstream_id, status, http_status, latency_ms, error. One that was removed meanwhile is left out. For admins. Refuses: as recognise(). Locks the upstreams by id against removal, then their probes in the same order.';


create function public.tollgate_routes(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  sort text := coalesce(filters ->> 'sort', 'created_at:desc');
  down boolean := sort like '%:desc';
  last tollgate.routes;
  last_key text;
  answer jsonb;
begin
  perform tollgate.refuse_unknown(filters, array['model', 'upstream_id', 'state', 'sort', 'cursor']);
  if sort not in ('created_at:asc', 'created_at:desc', 'model:asc', 'model:desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if filters ->> 'cursor' is not null then
    select r.* into last from tollgate.routes r where r.id = filters ->> 'cursor';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
    last_key := tollgate.sort_key(sort, last.model, last.created_at);
  end if;

  with wanted as (
    select r, r.id, tollgate.sort_key(sort, r.model, r.created_at) as key
    from tollgate.routes r
    where (filters ->> 'model' is null or r.model = filters ->> 'model')
      and (filters ->> 'upstream_id' is null or r.upstream_id = filters ->> 'upstream_id')
      and (filters ->> 'state' is null or r.state = filters ->> 'state')
  ), placed as (
    select w.*, row_number() over (
      order by case when not down then w.key end, case when down then w.key end desc,
        case when not down then w.id end, case when down then w.id end desc
    ) as place
    from wanted w
    where last_key is null
      or case when down then (w.key, w.id) < (last_key, last.id) else (w.key, w.id) > (last_key, last.id) end
  )
  select jsonb_build_object(
    'data', coalesce(jsonb_agg(tollgate.route_shown(p.r) order by p.place) filter (where p.place <= page_size), '[]'),
    'next_cursor', case when count(*) > page_size then max(p.id) filter (where p.place = page_size) end,
    'total', (select count(*) from wanted)
  ) into answer
  from placed p where p.place <= page_size + 1;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_routes(jsonb, jsonb, integer) is
  'Routes to our own servers. `filters`: model, upstream_id, state, sort (created_at or model, :asc or :desc), cursor. For admins. There are few, so all are looked at. Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_route(caller jsonb, route_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.routes;
begin
  select r.* into found_one from tollgate.routes r where r.id = tollgate_route.route_id;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'route', 'id', route_id));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'route', tollgate.route_shown(found_one));
end
$$;

comment on function public.tollgate_route(jsonb, text) is
  'One route to one of our own servers. For admins. Refuses: as recognise(), not_found. Locks nothing.';


create function tollgate.write_route(actor tollgate.caller, was tollgate.routes, given jsonb) returns tollgate.routes
language plpgsql
set search_path = ''
as $$
declare
  is_new boolean := was.created_at is null;
  made tollgate.routes;
  culprit text;
begin
  made := jsonb_populate_record(was, given);
  if not is_new and made is not distinct from was then
    return was;
  end if;
  made.updated_at := now();
  if is_new then
    made.created_at := now();
    insert into tollgate.routes select made.*;
  else
    update tollgate.routes r set
      upstream_model = made.upstream_model, pricing = made.pricing, context_tokens = made.context_tokens,
      most_output = made.most_output, priority = made.priority, weight = made.weight, listing = made.listing,
      state = made.state, updated_at = made.updated_at
    where r.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'route.created' else 'route.changed' end, null, made.id, given
  );
  return made;
exception
  when check_violation then
    get stacked diagnostics culprit = constraint_name;
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', regexp_replace(culprit, '^routes_(.*)_check$', '\1')));
  when not_null_violation then
    get stacked diagnostics culprit = column_name;
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', culprit));
  when invalid_text_representation or numeric_value_out_of_range or untranslatable_character then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "route"}');
end
$$;

comment on function tollgate.write_route(tollgate.caller, tollgate.routes, jsonb) is
  'Inserts a route that has no created_at yet, or changes the named fields of one that the caller has locked, and records it. What changes nothing records nothing.';


create function public.tollgate_put_route(caller jsonb, route jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.routes;
  made tollgate.routes;
begin
  perform tollgate.refuse_unknown(route, array[
    'model', 'upstream_id', 'upstream_model', 'pricing', 'context_tokens', 'most_output',
    'priority', 'weight', 'listing', 'state'
  ]);
  perform from tollgate.upstreams u where u.id = route ->> 'upstream_id' for key share;
  if not found then
    perform tollgate.refuse(404, 'not_found',
      jsonb_build_object('kind', 'upstream', 'id', route ->> 'upstream_id'));
  end if;
  perform pg_advisory_xact_lock(hashtextextended('tollgate.routes', 0));
  select r.* into was from tollgate.routes r
  where r.model = route ->> 'model' and r.upstream_id = route ->> 'upstream_id'
  for no key update;
  if not found then
    was.id := tollgate.new_id('rte');
    was.upstream_model := route ->> 'model';
    was.priority := 50;
    was.weight := 1;
    was.listing := '{}';
    was.state := 'active';
  end if;
  made := tollgate.write_route(actor, was, route);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'created', was.created_at is null,
    'route', tollgate.route_shown(made)
  );
end
$$;

comment on function public.tollgate_put_route(jsonb, jsonb) is
  'Lets an upstream serve a model, or changes the named fields of how it does. Repeating that changes and records nothing. For admins and the console. Refuses: as recognise(), not_found (the upstream), invalid_request (with the field). Locks the upstream against removal, takes an advisory lock, so that two at once make one, and locks the row.';


create function public.tollgate_delete_route(caller jsonb, route_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.routes;
begin
  select r.* into gone from tollgate.routes r where r.id = tollgate_delete_route.route_id for update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'route', 'id', route_id));
  end if;
  perform tollgate.remove_route(actor, gone);
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'model', gone.model);
end
$$;

comment on function public.tollgate_delete_route(jsonb, text) is
  'Removes a route, which is recorded whole. For admins. Refuses: as recognise(), not_found. Locks the route.';


create function tollgate.snapshot_shown(source text) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'source', s.source,
    'taken_at', tollgate.utc(s.taken_at),
    'age_seconds', floor(extract(epoch from greatest(clock_timestamp() - s.taken_at, interval '0')))::bigint,
    'models', (select count(*) from tollgate.listings l where l.source = s.source)
  )
  from tollgate.snapshots s where s.source = snapshot_shown.source
$$;

comment on function tollgate.snapshot_shown(text) is
  'What all instances share of a source''s list of models; null where none has kept it.';


create function tollgate.snapshot_digest(source text) returns text
language sql
stable
set search_path = ''
as $$
  select md5(string_agg(l.id || ' ' || l.listing, e'\n' order by l.id))
  from tollgate.listings l where l.source = snapshot_digest.source
$$;

comment on function tollgate.snapshot_digest(text) is 'Tells whether a snapshot says something new, in whatever order.';


create function public.tollgate_snapshot(caller jsonb, source text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'snapshot', tollgate.snapshot_shown(source),
    'digest', tollgate.snapshot_digest(source)
  );
end
$$;

comment on function public.tollgate_snapshot(jsonb, text) is
  'The shared list of models of a source: when it was taken, how many there are, and a digest of it all. Nulls where there is none. For admins. Refuses: as recognise(). Locks nothing.';


create function public.tollgate_note_refresh(caller jsonb, source text, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  snapshot jsonb := tollgate.snapshot_shown(source);
  changed boolean := tollgate.snapshot_digest(source) is distinct from digest;
begin
  perform tollgate.record(actor, 'catalog.refreshed', null, source,
    jsonb_build_object('models', snapshot -> 'models', 'changed', changed));
  return jsonb_build_object('caller', tollgate.identity(actor), 'snapshot', snapshot, 'changed', changed);
end
$$;

comment on function public.tollgate_note_refresh(jsonb, text, text) is
  'Records that an operator had a source''s list of models fetched, and says whether it differs from that of the digest. For admins. Refuses: as recognise(). Locks nothing.';


select tollgate.expose('public.tollgate_operator(jsonb)');
select tollgate.expose('public.tollgate_upstreams(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_upstream(jsonb, text)');
select tollgate.expose('public.tollgate_put_upstream(jsonb, jsonb)');
select tollgate.expose('public.tollgate_change_upstream(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_delete_upstream(jsonb, text, boolean)');
select tollgate.expose('public.tollgate_keep_probes(jsonb, jsonb)');
select tollgate.expose('public.tollgate_routes(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_route(jsonb, text)');
select tollgate.expose('public.tollgate_put_route(jsonb, jsonb)');
select tollgate.expose('public.tollgate_delete_route(jsonb, text)');
select tollgate.expose('public.tollgate_snapshot(jsonb, text)');
select tollgate.expose('public.tollgate_note_refresh(jsonb, text, text)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001900'
$$;

revoke execute on all functions in schema tollgate from public;
