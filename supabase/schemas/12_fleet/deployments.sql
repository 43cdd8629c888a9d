-- Deployments, as operators manage them.
--
-- Lock order: host, deployment, its upstream and routes.

create function tollgate.state_of(phase text) returns text
language sql
immutable
set search_path = ''
as $$
  select case phase
    when 'downloading' then 'starting'
    when 'draining' then 'running'
    when 'stopping' then 'stopped'
    when 'unknown' then 'loading'
    else coalesce(phase, 'stopped')
  end
$$;

comment on function tollgate.state_of(text) is 'A phase as one of the five states that clients of older servers know.';


create function tollgate.deployment_shown(d tollgate.deployments) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(d) - 'applied_spec' - 'token_sent_for' - 'asked_by' || jsonb_build_object(
    'engine', d.spec -> 'engine',
    'kind', d.spec -> 'kind',
    'served_name', d.spec -> 'served_name',
    'archived', d.archived_at is not null,
    'archived_at', tollgate.utc(d.archived_at),
    'created_at', tollgate.utc(d.created_at),
    'updated_at', tollgate.utc(d.updated_at),
    'host', (
      select jsonb_build_object('name', h.name, 'state', h.state, 'contact', case
        when h.last_seen_at is null then 'never' when tollgate.is_seen(h) then 'seen' else 'unseen' end)
      from tollgate.hosts h where h.id = d.host_id
    ),
    'upstream_id', (select u.id from tollgate.upstreams u where u.id = tollgate.upstream_of(d)),
    'offered_as', array(
      select r.model::text from tollgate.routes r
      where r.upstream_id = tollgate.upstream_of(d) and r.state = 'active' order by r.model
    ),
    'phase', coalesce(o.phase, 'stopped'),
    'state', tollgate.state_of(o.phase),
    'ready', coalesce(o.ready, false),
    'running_generation', o.generation,
    'failures', coalesce(o.failures, 0),
    'retry_at', tollgate.utc(o.retry_at),
    'detail', o.detail,
    'diagnosis', o.diagnosis,
    'progress', o.progress,
    'measured', o.measured,
    'facts', o.facts,
    'metrics', case when o.phase in ('running', 'draining') then o.metrics end,
    'phase_since', tollgate.utc(o.phase_since),
    'last_started_at', tollgate.utc(o.last_started_at),
    'last_stopped_at', tollgate.utc(o.last_stopped_at),
    'observed_at', tollgate.utc(o.observed_at)
  )
  from (select) nothing
  left join tollgate.observations o on o.deployment_id = d.id
$$;

comment on function tollgate.deployment_shown(tollgate.deployments) is
  'A deployment as operators see it: what should be, and what its host says.';


create function tollgate.deployment_of(id text) returns tollgate.deployments
language plpgsql
stable
set search_path = ''
as $$
declare
  d tollgate.deployments;
begin
  if id is not null then
    select o.* into d from tollgate.deployments o where o.id = deployment_of.id;
    if not found then
      perform tollgate.refuse_missing('deployment', id);
    end if;
  end if;
  return d;
end
$$;

comment on function tollgate.deployment_of(text) is 'The deployment of this id; null for null. Refuses: not_found.';


create function tollgate.locked_deployment(id text) returns tollgate.deployments
language plpgsql
set search_path = ''
as $$
declare
  h constant tollgate.hosts := tollgate.locked_host(coalesce((tollgate.deployment_of(id)).host_id, ''));
  d tollgate.deployments;
begin
  select o.* into d from tollgate.deployments o where o.id = locked_deployment.id for no key update;
  if not found then
    perform tollgate.refuse_missing('deployment', id);
  end if;
  return d;
end
$$;

comment on function tollgate.locked_deployment(text) is
  'The deployment of this id. Refuses: not_found. Locks its host, then the deployment. It never moves to another host.';


create function tollgate.settled_deployment(
  actor tollgate.caller, d tollgate.deployments, action text, details jsonb default '{}'
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  h tollgate.hosts;
  routes_changed boolean;
begin
  if action <> 'deployment.changed' then
    update tollgate.deployments o set asked_by = coalesce(actor.user_id, actor.name) where o.id = d.id;
  end if;
  select o.* into h from tollgate.hosts o where o.id = d.host_id;
  perform tollgate.changed_desire(h);
  routes_changed := tollgate.offer(d, h);
  perform tollgate.record(actor, action, null, d.id, details);
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(d), 'routes_changed', routes_changed,
    'waking', tollgate.waking(h)
  );
end
$$;

comment on function tollgate.settled_deployment(tollgate.caller, tollgate.deployments, text, jsonb) is
  'What follows each change of a deployment: who asked for it is noted, its host is to read the list again, its routes are made again, the change is recorded; and the answer. Locks its upstream and routes; the host must be locked.';


create function tollgate.without_environment(given jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select given #- '{spec,environment}'
$$;

comment on function tollgate.without_environment(jsonb) is
  'A change of a deployment for the audit trail: variables of engines may hold secrets.';


create function public.tollgate_create_deployment(caller jsonb, deployment jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h constant tollgate.hosts := tollgate.locked_host(deployment ->> 'host_id');
  made tollgate.deployments;
begin
  perform tollgate.refuse_retired(h);
  made := jsonb_populate_record(made, '{"wanted": "stopped", "priority": 50, "weight": 1, "listing": {},
    "drain_seconds": 60, "minimum_stay_seconds": 60, "load_seconds": 60, "generation": 1, "applied_generation": 1}'
    || jsonb_build_object('id', tollgate.new_id('dep'), 'name', coalesce(deployment ->> 'name', '-'),
      'host_id', h.id, 'created_at', now(), 'updated_at', now(),
      'spec', '{"engine": "custom", "kind": "text", "source": {"type": "path"}, "served_name": "-"}'::jsonb,
      'applied_spec', '{"engine": "custom", "kind": "text", "source": {"type": "path"}, "served_name": "-"}'::jsonb));
  made := tollgate.with_fields(made, deployment - 'host_id', array[
    'name', 'spec', 'wanted', 'pricing', 'context_tokens', 'most_output', 'priority', 'weight', 'listing',
    'drain_seconds', 'idle_seconds', 'minimum_stay_seconds', 'load_seconds', 'hub_token'
  ]);
  made.applied_spec := made.spec;
  insert into tollgate.deployments select made.*;
  return tollgate.settled_deployment(
    actor, made, 'deployment.created', tollgate.without_environment(deployment) || jsonb_build_object('host_id', h.id)
  );
end
$$;

comment on function public.tollgate_create_deployment(jsonb, jsonb) is
  'Creates a deployment on a host, or on the only one. For admins. Refuses: as recognise(), with_fields() and locked_host(), conflict (host_retired). Locks the host.';

select tollgate.expose('public.tollgate_create_deployment(jsonb, jsonb)');


create function public.tollgate_change_deployment(caller jsonb, deployment_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  was constant tollgate.deployments := tollgate.locked_deployment(deployment_id);
  made tollgate.deployments := tollgate.with_fields(was, changes - 'archived', array[
    'name', 'spec', 'pricing', 'context_tokens', 'most_output', 'priority', 'weight', 'listing',
    'drain_seconds', 'idle_seconds', 'minimum_stay_seconds', 'load_seconds', 'hub_token'
  ]);
begin
  if changes -> 'archived' = 'false' then
    made.archived_at := null;
  end if;
  if made is not distinct from was then
    return jsonb_build_object('caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(was));
  end if;
  made.generation := was.generation + (made.spec <> was.spec)::integer;
  if was.wanted = 'stopped' then -- nothing runs that a change could disturb
    made.applied_spec := made.spec;
    made.applied_generation := made.generation;
  end if;
  update tollgate.deployments d set
    name = made.name, spec = made.spec, generation = made.generation, applied_spec = made.applied_spec,
    applied_generation = made.applied_generation, pricing = made.pricing, context_tokens = made.context_tokens,
    most_output = made.most_output, priority = made.priority, weight = made.weight, listing = made.listing,
    drain_seconds = made.drain_seconds, idle_seconds = made.idle_seconds,
    minimum_stay_seconds = made.minimum_stay_seconds, load_seconds = made.load_seconds, hub_token = made.hub_token,
    archived_at = made.archived_at, updated_at = now()
  where d.id = was.id returning d.* into made;
  return tollgate.settled_deployment(actor, made, 'deployment.changed', tollgate.without_environment(changes));
end
$$;

comment on function public.tollgate_change_deployment(jsonb, text, jsonb) is
  'Changes the given fields of a deployment. A running one keeps its spec until apply; prices follow at once. A repetition changes and records nothing. For admins. Refuses: as recognise() and with_fields(), not_found. Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_change_deployment(jsonb, text, jsonb)');


create function public.tollgate_set_wanted(caller jsonb, deployment_id text, wanted text, applied boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d tollgate.deployments := tollgate.locked_deployment(deployment_id);
  again constant boolean := applied and d.generation = d.applied_generation;
begin
  if wanted <> 'stopped' then
    perform tollgate.refuse_retired(h) from tollgate.hosts h where h.id = d.host_id;
    if d.archived_at is not null then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'archived', 'kind', 'deployment', 'id', d.id));
    end if;
  end if;
  if not applied and d.wanted = wanted and (wanted = 'stopped' or d.applied_generation = d.generation) then
    return jsonb_build_object('caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(d));
  end if;
  update tollgate.deployments o set
    wanted = case when applied and o.wanted = 'on_demand' then o.wanted else tollgate_set_wanted.wanted end,
    generation = o.generation + again::integer,
    applied_spec = o.spec,
    applied_generation = o.generation + again::integer,
    updated_at = now()
  where o.id = d.id returning o.* into d;
  return tollgate.settled_deployment(
    actor, d, case when applied then 'deployment.applied' when wanted = 'stopped' then 'deployment.stopped'
      else 'deployment.started' end, jsonb_build_object('wanted', wanted, 'generation', d.generation)
  );
end
$$;

comment on function public.tollgate_set_wanted(jsonb, text, text, boolean) is
  'Says whether a deployment should run, be stopped, or be loaded by the first call, with its newest spec. With `applied`, it starts again even if nothing was edited. Otherwise a repetition changes and records nothing. For admins. Refuses: as recognise(), not_found, conflict (archived, host_retired). Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_set_wanted(jsonb, text, text, boolean)');
