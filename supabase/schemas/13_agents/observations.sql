-- What an agent reports of its own host.

create function tollgate.note_phase_changes(h tollgate.hosts, report jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.phase_changes (
    deployment_id, incarnation, number, before, phase, why, asked_by, changed_at
  )
  select d.id, h.incarnation, c.number, c.before, c.phase, c.why,
    case when c.why in ('wanted', 'wanted again', 'unwanted', 'changed') then d.asked_by end,
    now() - make_interval(secs => c.seconds_ago)
  from jsonb_to_recordset(report -> 'observations') as s (deployment_id text, changes jsonb)
  join tollgate.deployments d on d.id = s.deployment_id and d.host_id = h.id
  cross join jsonb_to_recordset(s.changes) as c (
    number bigint, before text, phase text, why text, seconds_ago double precision
  )
  order by d.id, c.number
  on conflict do nothing;

  delete from tollgate.phase_changes p where p.id in (
    select o.id
    from jsonb_to_recordset(report -> 'observations') as s (deployment_id text, changes jsonb)
    join tollgate.deployments d on d.id = s.deployment_id and d.host_id = h.id
    cross join lateral (
      select c.id from tollgate.phase_changes c
      where c.deployment_id = d.id order by c.changed_at desc, c.id desc offset 200
    ) o
    where s.changes <> '[]'
  )
$$;

comment on function tollgate.note_phase_changes(tollgate.hosts, jsonb) is
  'Stores the changes of phases that an agent reports, each once, and keeps the last 200 of a deployment. The host must be locked. Locks what it deletes.';


create function tollgate.observe(h tollgate.hosts, report jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.observations as o (
    deployment_id, generation, phase, ready, failures, retry_at, detail, diagnosis, progress, measured, facts, log_tail,
    last_started_at, last_stopped_at
  )
  select d.id, s.generation, s.phase, s.ready, s.failures, now() + make_interval(secs => s.retry_in_seconds), s.detail,
    s.diagnosis, s.progress, s.measured, s.facts, s.log_tail,
    case when s.phase = 'running' then now() end, case when s.phase = 'stopped' then now() end
  from jsonb_to_recordset(report -> 'observations') as s (
    deployment_id text, generation integer, phase text, ready boolean, failures integer, retry_in_seconds double precision,
    detail text, diagnosis jsonb, progress jsonb, measured jsonb, facts jsonb, log_tail text
  )
  join tollgate.deployments d on d.id = s.deployment_id and d.host_id = h.id
  order by d.id
  on conflict (deployment_id) do update set
    generation = excluded.generation, phase = excluded.phase, ready = excluded.ready, failures = excluded.failures,
    retry_at = excluded.retry_at, detail = excluded.detail, diagnosis = excluded.diagnosis, progress = excluded.progress,
    measured = coalesce(excluded.measured, o.measured),
    facts = coalesce(excluded.facts, case when o.generation = excluded.generation then o.facts end),
    log_tail = coalesce(excluded.log_tail, o.log_tail),
    phase_since = case when o.phase = excluded.phase then o.phase_since else now() end,
    last_started_at = case when o.phase = excluded.phase then o.last_started_at
      else coalesce(excluded.last_started_at, o.last_started_at) end,
    last_stopped_at = case when o.phase = excluded.phase then o.last_stopped_at
      else coalesce(excluded.last_stopped_at, o.last_stopped_at) end,
    observed_at = now();

  update tollgate.observations o set metrics = m.figures
  from jsonb_array_elements(report -> 'metrics') m (figures), tollgate.deployments d
  where d.id = m.figures ->> 'deployment_id' and d.host_id = h.id and o.deployment_id = d.id;

  insert into tollgate.host_samples (host_id, sample)
  select h.id, report -> 'sample'
  where jsonb_typeof(report -> 'sample') = 'object' and not exists (
    select from tollgate.host_samples s where s.host_id = h.id and s.sampled_at > now() - interval '30 seconds'
  )
  on conflict do nothing;

  update tollgate.tasks t set state = r.status, result = r.result, error = r.error, ended_at = now()
  from jsonb_to_recordset(report -> 'task_results') as r (task_id text, status text, result jsonb, error text)
  where t.id = r.task_id and t.host_id = h.id and t.state = 'waiting'
$$;

comment on function tollgate.observe(tollgate.hosts, jsonb) is
  'Stores what an agent reports of its own host; what it says of others is left out. The host must be locked. Locks the observations and tasks.';
