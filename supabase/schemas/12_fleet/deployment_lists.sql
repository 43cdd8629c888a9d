-- Deployments: the end of one, and all of them.

create function public.tollgate_archive_deployment(caller jsonb, deployment_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d tollgate.deployments := tollgate.locked_deployment(deployment_id);
begin
  if d.archived_at is not null then
    return jsonb_build_object('caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(d));
  end if;
  update tollgate.deployments o set archived_at = now(), wanted = 'stopped', updated_at = now()
  where o.id = d.id returning o.* into d;
  return tollgate.settled_deployment(actor, d, 'deployment.archived');
end
$$;

comment on function public.tollgate_archive_deployment(jsonb, text) is
  'Stops a deployment and takes it out of lists. A repetition changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_archive_deployment(jsonb, text)');


create function public.tollgate_delete_deployment(caller jsonb, deployment_id text, with_files boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d constant tollgate.deployments := tollgate.locked_deployment(deployment_id);
  shares_files constant boolean := exists (
    select from tollgate.deployments o
    where o.host_id = d.host_id and o.id <> d.id and o.spec -> 'source' = d.spec -> 'source'
  );
  deletes_files constant boolean := with_files and not shares_files and d.spec #>> '{source,type}' = 'hub';
begin
  if d.wanted <> 'stopped' then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'still_wanted', 'kind', 'deployment', 'id', d.id
    ));
  end if;
  perform tollgate.withdraw(d);
  delete from tollgate.deployments o where o.id = d.id;
  perform tollgate.changed_desire(h) from tollgate.hosts h where h.id = d.host_id;
  if deletes_files then
    insert into tollgate.tasks (host_id, kind, arguments)
    values (d.host_id, 'delete_files', jsonb_build_object('source', d.spec -> 'source'));
  end if;
  perform tollgate.record(
    actor, 'deployment.deleted', null, d.id,
    tollgate.without_environment(to_jsonb(d) - 'id' - 'applied_spec' - 'created_at' - 'updated_at')
      || jsonb_build_object('deletes_files', deletes_files)
  );
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', d.id, 'files_preserved', not deletes_files, 'shares_files', shares_files,
    'routes_changed', true, 'waking', (select tollgate.waking(h) from tollgate.hosts h where h.id = d.host_id)
  );
end
$$;

comment on function public.tollgate_delete_deployment(jsonb, text, boolean) is
  'Deletes a deployment that should not run, with its upstream and routes, and records it in full. With `with_files`, asks the host to delete what it downloaded for it, unless another deployment has the same files. Requests keep the upstream''s id. For admins. Refuses: as recognise(), not_found, conflict (still_wanted). Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_delete_deployment(jsonb, text, boolean)');


create function public.tollgate_deployment(caller jsonb, deployment_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d constant tollgate.deployments := tollgate.deployment_of(deployment_id);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'deployment', tollgate.deployment_shown(d),
    'log_tail', (select o.log_tail from tollgate.observations o where o.deployment_id = d.id),
    'capabilities', (select h.capabilities from tollgate.hosts h where h.id = d.host_id)
  );
end
$$;

comment on function public.tollgate_deployment(jsonb, text) is
  'One deployment, the log of its last failure, and what its host can do. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_deployment(jsonb, text)');


create function public.tollgate_deployments(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.deployments',
    'tollgate.deployment_shown',
    $where$
      (e.archived_at is not null) = coalesce(($1 ->> 'archived')::boolean, false)
      and ($1 ->> 'host_id' is null or e.host_id = $1 ->> 'host_id')
      and ($1 ->> 'wanted' is null or e.wanted = $1 ->> 'wanted')
      and ($1 ->> 'engine' is null or e.spec ->> 'engine' = $1 ->> 'engine')
      and ($1 ->> 'kind' is null or e.spec ->> 'kind' = $1 ->> 'kind')
      and ($1 ->> 'served_name' is null or e.spec ->> 'served_name' = $1 ->> 'served_name')
      and ($1 ->> 'phase' is null or coalesce((
        select o.phase from tollgate.observations o where o.deployment_id = e.id
      ), 'stopped') = $1 ->> 'phase')
    $where$,
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_deployments(jsonb, jsonb, integer) is
  'Deployments. `filters`: archived (others are left out; default false), host_id, wanted, engine, kind, served_name, phase, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_deployments(jsonb, jsonb, integer)');


create function tollgate.phase_change_shown(c tollgate.phase_changes) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', c.id, 'before', c.before, 'phase', c.phase, 'why', c.why, 'asked_by', c.asked_by,
    'changed_at', tollgate.utc(c.changed_at)
  )
$$;

comment on function tollgate.phase_change_shown(tollgate.phase_changes) is 'A change of a phase as operators see it.';


create function public.tollgate_phase_changes(caller jsonb, deployment_id text, filters jsonb, page_size integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d constant tollgate.deployments := tollgate.deployment_of(deployment_id);
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.phase_changes',
    'tollgate.phase_change_shown',
    'true',
    '{"changed_at": "e.changed_at"}',
    'changed_at:desc',
    filters,
    page_size,
    within => format('e.deployment_id = %L', d.id)
  );
end
$$;

comment on function public.tollgate_phase_changes(jsonb, text, jsonb, integer) is
  'The last changes of the phase of a deployment, newest first. `filters`: cursor. For admins. Refuses: as recognise() and page(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_phase_changes(jsonb, text, jsonb, integer)');


create function public.tollgate_deployment_metrics(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', coalesce((
    select jsonb_agg(coalesce(o.metrics, '{}') || jsonb_build_object(
      'model_id', d.id, 'model_name', d.name, 'served_name', d.applied_spec -> 'served_name', 'host_id', d.host_id,
      'status', tollgate.state_of(o.phase), 'error', o.detail, 'observed_at', tollgate.utc(o.observed_at)
    ) order by d.name, d.id)
    from tollgate.deployments d
    left join tollgate.observations o on o.deployment_id = d.id
    where d.archived_at is null
  ), '[]'));
end
$$;

comment on function public.tollgate_deployment_metrics(jsonb) is
  'The last figures of the engines of all deployments. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_deployment_metrics(jsonb)');
