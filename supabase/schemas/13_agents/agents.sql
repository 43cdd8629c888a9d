-- Agents: their enrolment, their keys, and the lease of their host.

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
