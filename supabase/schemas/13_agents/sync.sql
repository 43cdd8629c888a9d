-- The sync of an agent, the tasks that it ends, and what is dropped with time.

create function tollgate.desired_of(h tollgate.hosts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', d.id, 'generation', d.applied_generation, 'wanted', d.wanted, 'spec', d.applied_spec,
    'drain_seconds', d.drain_seconds, 'idle_seconds', d.idle_seconds,
    'minimum_stay_seconds', d.minimum_stay_seconds, 'load_seconds', d.load_seconds
  ) order by d.id), '[]')
  from tollgate.deployments d where d.host_id = h.id and d.archived_at is null
$$;

comment on function tollgate.desired_of(tollgate.hosts) is 'All that should be on a host: what is not in the list should not be there.';


create function tollgate.is_moving(h tollgate.hosts) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.deployments d
    left join tollgate.observations o on o.deployment_id = d.id
    where d.host_id = h.id and d.archived_at is null and case
      when o.phase is null then d.wanted <> 'stopped'
      when o.phase in ('downloading', 'starting', 'loading', 'draining', 'stopping', 'unknown') then true
      when o.phase = 'running' then d.wanted = 'stopped' or o.generation <> d.applied_generation
      else d.wanted = 'running' and o.phase = 'stopped'
    end
  ) or exists (
    select from tollgate.tasks t
    where t.host_id = h.id and t.state = 'waiting' and t.created_at > now() - interval '1 minute'
  )
$$;

comment on function tollgate.is_moving(tollgate.hosts) is
  'Whether something on a host is not yet as it should be, or a task waits, so that its agent should come again soon.';


create function tollgate.tokens_of(h tollgate.hosts) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  sent record;
  tokens jsonb := '{}';
begin
  for sent in
    select d, s
    from tollgate.deployments d
    join tollgate.secrets s on s.kind = 'hf_token' and s.org_id is null and s.name = d.hub_token
    left join tollgate.observations o on o.deployment_id = d.id
    where d.host_id = h.id and d.archived_at is null and h.state = 'active' and d.wanted <> 'stopped'
      and d.applied_spec #>> '{source,type}' = 'hub'
      and (o.phase = 'downloading' or (
        coalesce(o.phase, 'stopped') in ('stopped', 'failed')
        and (o.facts is null or o.generation <> d.applied_generation)
      ))
    order by (d).id
  loop
    tokens := tokens || jsonb_build_object((sent.d).id, tollgate.secret_sealed(sent.s));
    if (sent.d).token_sent_for is distinct from (sent.d).applied_generation then
      update tollgate.deployments o set token_sent_for = o.applied_generation where o.id = (sent.d).id;
      perform tollgate.record(tollgate.agent_of(h), 'secret.sent', null, (sent.s).id, jsonb_build_object(
        'name', (sent.s).name, 'last_four', (sent.s).last_four, 'host_id', h.id, 'deployment_id', (sent.d).id
      ));
    end if;
  end loop;
  return tokens;
end
$$;

comment on function tollgate.tokens_of(tollgate.hosts) is
  'The tokens of Hugging Face, encrypted, for what the host downloads now or has to. The audit trail has each once for a generation. Locks the deployments that get one.';


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
    perform tollgate.note_phase_changes(h, report);
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
