-- Routes: which upstream serves which model, at what price.

create function tollgate.route_shown(r tollgate.routes) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', r.id,
    'model', r.model,
    'upstream_id', r.upstream_id,
    'upstream_name', (select u.name from tollgate.upstreams u where u.id = r.upstream_id),
    'upstream_model', r.upstream_model,
    'pricing', r.pricing,
    'context_tokens', r.context_tokens,
    'most_output', r.most_output,
    'priority', r.priority,
    'weight', r.weight,
    'listing', r.listing,
    'deprecated_on', r.deprecated_on,
    'retires_on', r.retires_on,
    'replacement', r.replacement,
    'state', r.state,
    'created_at', tollgate.utc(r.created_at),
    'updated_at', tollgate.utc(r.updated_at)
  )
$$;

comment on function tollgate.route_shown(tollgate.routes) is 'A route as operators see it.';


create function tollgate.write_route(actor tollgate.caller, was tollgate.routes, given jsonb) returns tollgate.routes
language plpgsql
set search_path = ''
as $$
declare
  is_new constant boolean := was.created_at is null;
  made tollgate.routes := tollgate.with_fields(was, given, array[
    'model', 'upstream_id', 'upstream_model', 'pricing', 'context_tokens', 'most_output', 'priority', 'weight',
    'listing', 'state', 'deprecated_on', 'retires_on', 'replacement'
  ]);
begin
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
      state = made.state, deprecated_on = made.deprecated_on, retires_on = made.retires_on,
      replacement = made.replacement, updated_at = made.updated_at
    where r.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'route.created' else 'route.changed' end, null, made.id, given
  );
  return made;
end
$$;

comment on function tollgate.write_route(tollgate.caller, tollgate.routes, jsonb) is
  'Inserts a route that has no created_at yet, or changes the given fields of one that the calling function has locked, and records it. Changing nothing records nothing. Refuses: as with_fields().';


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
  'Deletes a route that the calling function has locked, and records it in full.';


create function tollgate.routes_of(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  with wanted as (
    select r.*
    from tollgate.routes r
    join tollgate.upstreams u on u.id = r.upstream_id
    where r.state = 'active' and u.state = 'active'
      and (names is null or r.model in (select jsonb_array_elements_text(names)))
  )
  select jsonb_build_object(
    'routes', coalesce((
      select jsonb_agg(
        to_jsonb(w) - 'updated_at' || jsonb_build_object('created', extract(epoch from w.created_at)::bigint)
        order by w.priority, w.model, w.id
      ) from wanted w
    ), '[]'::jsonb),
    'upstreams', coalesce((
      select jsonb_agg(to_jsonb(u) - 'created_at' - 'updated_at' order by u.id)
      from tollgate.upstreams u where u.id in (select w.upstream_id from wanted w)
    ), '[]'::jsonb)
  )
$$;

comment on function tollgate.routes_of(jsonb) is 'The active routes of these models, or of all, and their upstreams.';


create function public.tollgate_put_route(caller jsonb, route jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  server tollgate.upstreams;
  was tollgate.routes;
  made tollgate.routes;
begin
  if route ->> 'url' is not null then
    route := route || jsonb_build_object('upstream_id', (
      select u.id from tollgate.upstreams u where u.base_url = route ->> 'url' order by u.created_at limit 1
    ));
    if route ->> 'upstream_id' is null then
      perform tollgate.refuse_missing('upstream', route ->> 'url');
    end if;
  end if;
  route := route - 'url';
  select u.* into server from tollgate.upstreams u where u.id = route ->> 'upstream_id' for key share;
  if not found then
    perform tollgate.refuse_missing('upstream', route ->> 'upstream_id');
  end if;
  perform tollgate.refuse_of_host(server);
  perform pg_advisory_xact_lock(hashtextextended('tollgate.routes', 0));
  select r.* into was from tollgate.routes r
  where r.model = route ->> 'model' and r.upstream_id = route ->> 'upstream_id'
  for no key update;
  if not found then
    was.id := tollgate.new_id('rte');
    was.priority := 50;
    was.weight := 1;
    was.listing := '{}';
    was.state := 'active';
    was := tollgate.with_fields(
      was,
      jsonb_build_object(
        'model', route -> 'model', 'upstream_model', route -> 'model', 'pricing', route -> 'pricing'
      ),
      array['model', 'upstream_model', 'pricing']
    );
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
  'Creates the route of a model to an upstream (upstream_id, or url for the oldest with this base_url), or changes its given fields. A repetition changes and records nothing. For admins and the console. Refuses: as recognise(), with_fields() and refuse_of_host(), not_found (the upstream). Locks the upstream against deletion, takes an advisory lock, so that two calls at once create one, and locks the row.';

select tollgate.expose('public.tollgate_put_route(jsonb, jsonb)');


create function public.tollgate_delete_route(caller jsonb, route_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.routes;
begin
  select r.* into gone from tollgate.routes r
  where r.id = tollgate_delete_route.route_id or r.model = tollgate_delete_route.route_id
  order by r.id = tollgate_delete_route.route_id desc
  limit 1
  for update;
  if gone.id <> route_id and (select count(*) > 1 from tollgate.routes r where r.model = route_id) then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'several_routes', 'model', route_id, 'route_ids', (
        select jsonb_agg(r.id order by r.id) from tollgate.routes r where r.model = route_id
      )
    ));
  elsif gone.id is null then
    perform tollgate.refuse_missing('route', route_id);
  end if;
  perform tollgate.refuse_of_host(u) from tollgate.upstreams u where u.id = gone.upstream_id;
  perform tollgate.remove_route(actor, gone);
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'model', gone.model);
end
$$;

comment on function public.tollgate_delete_route(jsonb, text) is
  'Deletes a route, named by its id or by its model if that has one route, and records it in full. For admins. Refuses: as recognise() and refuse_of_host(), not_found, conflict (the model has several routes). Locks the route.';

select tollgate.expose('public.tollgate_delete_route(jsonb, text)');


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
    perform tollgate.refuse_missing('route', route_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'route', tollgate.route_shown(found_one));
end
$$;

comment on function public.tollgate_route(jsonb, text) is
  'One route. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_route(jsonb, text)');


create function public.tollgate_routes(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.routes',
    'tollgate.route_shown',
    $where$
      ($1 ->> 'model' is null or e.model = $1 ->> 'model')
      and ($1 ->> 'upstream_id' is null or e.upstream_id = $1 ->> 'upstream_id')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"created_at": "e.created_at", "model": "e.model collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_routes(jsonb, jsonb, integer) is
  'Routes to our own upstreams. `filters`: model, upstream_id, state, sort (created_at, model), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_routes(jsonb, jsonb, integer)');
