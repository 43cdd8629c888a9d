-- The sync of an agent, and the tasks that it takes.

create function public.tollgate_sync(host_id text, key_generation integer, report jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  was constant tollgate.hosts := tollgate.host_of_key(host_id, key_generation);
  h constant tollgate.hosts := tollgate.with_lease(was, report);
  routes_changed boolean := false;
begin
  if was.incarnation is distinct from h.incarnation or (report ->> 'seq')::bigint > was.seq then
    perform tollgate.observe(h, report);
    routes_changed := tollgate.offer_all(h);
  end if;
  return jsonb_build_object(
    'desired_version', h.desired_version,
    'deployments',
      case when (report ->> 'known_version')::bigint = h.desired_version then null else tollgate.desired_of(h) end,
    'host', jsonb_build_object('state', h.state, 'base_dir', h.base_dir),
    'tasks', coalesce((
      select jsonb_agg(jsonb_build_object('id', t.id, 'kind', t.kind, 'arguments', t.arguments) order by t.created_at, t.id)
      from tollgate.tasks t
      where t.host_id = h.id and t.state = 'waiting' and t.created_at > now() - interval '1 minute'
    ), '[]'),
    'hub_tokens', tollgate.tokens_of(h),
    'poll_seconds', case when tollgate.is_moving(h) then 2 else 10 end,
    'routes_changed', routes_changed
  );
end
$$;

comment on function public.tollgate_sync(text, integer, jsonb) is
  'Takes what an agent reports of its host, makes the routes of it, and answers what should be there: all of it, unless the agent knows this version. A report with a number that was counted before changes nothing and is answered all the same. Refuses: as host_of_key() and with_lease(). Locks the host, then its observations, tasks, upstreams and routes.';

select tollgate.expose('public.tollgate_sync(text, integer, jsonb)');


create function public.tollgate_end_task(host_id text, key_generation integer, task_id text, outcome jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  h constant tollgate.hosts := tollgate.host_of_key(host_id, key_generation);
  ended tollgate.tasks;
begin
  update tollgate.tasks t set
    state = outcome ->> 'status', result = outcome -> 'result', error = outcome ->> 'error', ended_at = now()
  where t.id = tollgate_end_task.task_id and t.host_id = h.id and t.state = 'waiting';
  select t.* into ended from tollgate.tasks t where t.id = tollgate_end_task.task_id and t.host_id = h.id;
  if not found then
    perform tollgate.refuse_missing('task', task_id);
  end if;
  return jsonb_build_object('id', ended.id, 'state', ended.state);
end
$$;

comment on function public.tollgate_end_task(text, integer, text, jsonb) is
  'Stores the result of a task, unless it has one. Refuses: as host_of_key(), not_found (also a task of another host). Locks the host and the task.';

select tollgate.expose('public.tollgate_end_task(text, integer, text, jsonb)');


create function public.tollgate_create_task(caller jsonb, host_id text, deployment_id text, kind text, arguments jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h tollgate.hosts;
  made tollgate.tasks;
begin
  h := tollgate.locked_host(coalesce((tollgate.deployment_of(deployment_id)).host_id, host_id));
  perform tollgate.refuse_retired(h);
  if not tollgate.is_seen(h) then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'host_unseen', 'kind', 'host', 'id', h.id));
  end if;
  insert into tollgate.tasks (host_id, kind, arguments) values (
    h.id, tollgate_create_task.kind,
    case when deployment_id is null then arguments
      else arguments || jsonb_build_object('deployment_id', deployment_id) end
  ) returning * into made;
  perform tollgate.record(actor, 'task.created', null, h.id, jsonb_build_object(
    'task_id', made.id, 'kind', made.kind, 'arguments', made.arguments
  ));
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'task', jsonb_build_object(
      'id', made.id, 'kind', made.kind, 'arguments', made.arguments, 'host_id', h.id,
      'ingress_url', tollgate.ingress_of(h), 'key_generation', h.key_generation
    )
  );
end
$$;

comment on function public.tollgate_create_task(jsonb, text, text, text, jsonb) is
  'Asks a host to do something once: the host of a deployment, a host by its id, or the only one. For admins. Refuses: as recognise() and locked_host(), not_found (deployment), conflict (host_retired, host_unseen). Locks the host.';

select tollgate.expose('public.tollgate_create_task(jsonb, text, text, text, jsonb)');


create function public.tollgate_task(caller jsonb, task_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  t tollgate.tasks;
begin
  select o.* into t from tollgate.tasks o where o.id = tollgate_task.task_id;
  if not found then
    perform tollgate.refuse_missing('task', task_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'task', jsonb_build_object('id', t.id, 'state', t.state, 'result', t.result, 'error', t.error)
  );
end
$$;

comment on function public.tollgate_task(jsonb, text) is
  'What has become of a task. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_task(jsonb, text)');


create function public.tollgate_keep_fleet(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  dropped bigint;
begin
  update tollgate.tasks t set state = 'failed', error = 'The host did not answer within a minute.', ended_at = now()
  where t.id in (
    select o.id from tollgate.tasks o
    where o.state = 'waiting' and o.created_at < now() - interval '1 minute'
    order by o.created_at limit page_size for update skip locked
  );
  delete from tollgate.tasks t where t.id in (
    select o.id from tollgate.tasks o where o.created_at < now() - interval '24 hours' and o.state <> 'waiting'
    order by o.created_at limit page_size for update skip locked
  );
  delete from tollgate.enrolments e where e.expires_at < now() - interval '24 hours';
  delete from tollgate.host_samples s where (s.host_id, s.sampled_at) in (
    select o.host_id, o.sampled_at from tollgate.host_samples o where o.sampled_at < now() - interval '24 hours'
    order by o.sampled_at limit page_size for update skip locked
  );
  get diagnostics dropped = row_count;
  return jsonb_build_object('samples', dropped, 'more', dropped >= page_size);
end
$$;

comment on function public.tollgate_keep_fleet(integer) is
  'Ends tasks that nobody took within a minute, and deletes enrolments, ended tasks and samples that are older than a day; called again while it answers "more". Refuses nothing. Skips rows that are locked.';

select tollgate.expose('public.tollgate_keep_fleet(integer)');
