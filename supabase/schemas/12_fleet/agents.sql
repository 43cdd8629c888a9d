-- What agents send: the enrolment, and the sync.

create function tollgate.host_of_key(host_id text, key_generation integer) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  h tollgate.hosts;
begin
  select o.* into h from tollgate.hosts o where o.id = host_of_key.host_id for no key update;
  if not found or h.key_generation <> host_of_key.key_generation then
    perform tollgate.refuse(401, 'host_key_invalid');
  elsif h.state = 'retired' then
    perform tollgate.refuse(403, 'host_retired');
  end if;
  return h;
end
$$;

comment on function tollgate.host_of_key(text, integer) is
  'The host that a key is of. The server has checked the key against AGENT_KEY. Refuses: host_key_invalid (unknown, or rotated since), host_retired. Locks the host.';


create function tollgate.agent_of(h tollgate.hosts) returns tollgate.caller
language plpgsql
immutable
set search_path = ''
as $$
declare
  actor tollgate.caller;
begin
  actor.kind := 'system';
  actor.name := 'agent of ' || h.id;
  return actor;
end
$$;

comment on function tollgate.agent_of(tollgate.hosts) is 'The agent of a host, as an actor.';


create function tollgate.put_enrolment(h tollgate.hosts, digest text) returns jsonb
language sql
set search_path = ''
as $$
  delete from tollgate.enrolments e where e.host_id = h.id;
  insert into tollgate.enrolments (digest, host_id, expires_at)
  values (decode(put_enrolment.digest, 'hex'), h.id, now() + interval '1 hour')
  returning jsonb_build_object('expires_at', tollgate.utc(expires_at))
$$;

comment on function tollgate.put_enrolment(tollgate.hosts, text) is
  'Stores the enrolment of a host that the calling function has locked. Earlier ones end.';


create function public.tollgate_enrol(digests jsonb, agent jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  wanted text;
  h tollgate.hosts;
begin
  select e.host_id into wanted from tollgate.enrolments e
  where e.digest in (select decode(d, 'hex') from jsonb_array_elements_text(digests) d);
  select o.* into h from tollgate.hosts o where o.id = wanted for no key update;
  update tollgate.enrolments e set used_at = clock_timestamp()
  where e.digest in (select decode(d, 'hex') from jsonb_array_elements_text(digests) d)
    and e.used_at is null and e.expires_at > clock_timestamp();
  if not found or h.state = 'retired' then
    perform tollgate.refuse(401, 'enrolment_invalid');
  end if;
  h := tollgate.with_next_key(h);
  update tollgate.hosts o set
    enrolled_at = now(), agent_version = agent ->> 'agent_version', capabilities = agent -> 'capabilities',
    reported_ingress_url = agent ->> 'ingress_url'
  where o.id = h.id returning o.* into h;
  perform tollgate.offer_all(h);
  perform tollgate.record(tollgate.agent_of(h), 'host.enrolled', null, h.id, jsonb_build_object(
    'agent_version', h.agent_version, 'ingress_url', h.reported_ingress_url
  ));
  return jsonb_build_object('host_id', h.id, 'key_generation', h.key_generation);
end
$$;

comment on function public.tollgate_enrol(jsonb, jsonb) is
  'Makes the sender the agent of the host of an enrolment, once: of two at the same time one is refused. The key that the host had before ends. `digests` are those of the token, one for each active pepper. Refuses: enrolment_invalid (unknown, used, or older than an hour). Locks the host, then the enrolment.';

select tollgate.expose('public.tollgate_enrol(jsonb, jsonb)');


create function tollgate.with_lease(h tollgate.hosts, report jsonb) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  left_seconds constant numeric := extract(epoch from h.lease_until - clock_timestamp());
  made tollgate.hosts;
begin
  if h.incarnation <> report ->> 'incarnation' and left_seconds > 0 then
    perform tollgate.refuse(409, 'host_busy', jsonb_build_object(
      'host_id', h.id, 'retry_after_seconds', ceil(left_seconds)
    ));
  end if;
  update tollgate.hosts o set
    incarnation = report ->> 'incarnation',
    seq = case when o.incarnation = report ->> 'incarnation' then greatest(o.seq, (report ->> 'seq')::bigint)
      else (report ->> 'seq')::bigint end,
    lease_until = clock_timestamp() + interval '45 seconds',
    last_seen_at = clock_timestamp(),
    agent_version = report ->> 'agent_version',
    reported_ingress_url = report ->> 'ingress_url',
    capabilities = coalesce(nullif(report -> 'capabilities', 'null'), o.capabilities)
  where o.id = h.id returning o.* into made;
  return made;
end
$$;

comment on function tollgate.with_lease(tollgate.hosts, jsonb) is
  'The host, leased to the incarnation of this report for 45 seconds by the clock of the database. Refuses: host_busy (another incarnation has the lease; nothing changes). The host must be locked.';


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
