-- Hosts: the end of one, and all of them.

create function public.tollgate_delete_host(caller jsonb, host_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h constant tollgate.hosts := tollgate.locked_host(host_id);
  wanted constant text[] := array(
    select d.id from tollgate.deployments d where d.host_id = h.id and d.wanted <> 'stopped' order by d.id limit 10
  );
  models integer;
begin
  if cardinality(wanted) > 0 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'host_still_wanted', 'kind', 'host', 'id', h.id, 'deployment_ids', to_jsonb(wanted)
    ));
  end if;
  perform tollgate.withdraw(d) from tollgate.deployments d where d.host_id = h.id;
  delete from tollgate.deployments d where d.host_id = h.id;
  get diagnostics models = row_count;
  delete from tollgate.hosts o where o.id = h.id;
  perform tollgate.record(actor, 'host.deleted', null, h.id, jsonb_build_object(
    'name', h.name, 'state', h.state, 'labels', h.labels, 'ingress_url', tollgate.ingress_of(h), 'models', models
  ));
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', h.id, 'models', models, 'routes_changed', models > 0
  );
end
$$;

comment on function public.tollgate_delete_host(jsonb, text) is
  'Deletes a host with its deployments, their upstreams and routes, its enrolments, tasks and samples. Requests and audit events keep their ids. For admins. Refuses: as recognise(), not_found, conflict (host_still_wanted). Locks the host, its deployments, upstreams and routes.';

select tollgate.expose('public.tollgate_delete_host(jsonb, text)');


create function public.tollgate_host(caller jsonb, host_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  wanted constant text := tollgate.host_named(host_id);
  h tollgate.hosts;
begin
  select o.* into h from tollgate.hosts o where o.id = wanted;
  if not found then
    perform tollgate.refuse_missing('host', wanted);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'host', tollgate.host_shown(h));
end
$$;

comment on function public.tollgate_host(jsonb, text) is
  'The host of this id, or the only one. For admins. Refuses: as recognise() and host_named(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_host(jsonb, text)');


create function public.tollgate_hosts(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.hosts',
    'tollgate.host_shown',
    '$1 ->> ''state'' is null or e.state = $1 ->> ''state''',
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_hosts(jsonb, jsonb, integer) is
  'Hosts. `filters`: state, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_hosts(jsonb, jsonb, integer)');
