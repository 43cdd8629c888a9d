-- Tasks: what a host is asked to do once.

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
