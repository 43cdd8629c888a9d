-- Hosts, as operators manage them.
--
-- Lock order: host, its deployments by id, their upstreams and routes.

create function tollgate.is_seen(h tollgate.hosts) returns boolean
language sql
stable
set search_path = ''
as $$
  select (h.last_seen_at > clock_timestamp() - interval '45 seconds') is true
$$;

comment on function tollgate.is_seen(tollgate.hosts) is
  'Whether the agent called within 45 seconds, by the clock of the database. What runs on a silent host is left as it is.';


create function tollgate.ingress_of(h tollgate.hosts) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(h.ingress_url, h.reported_ingress_url)
$$;

comment on function tollgate.ingress_of(tollgate.hosts) is 'Where the ingress of a host is; null where nobody said.';


create function tollgate.waking(h tollgate.hosts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object('host_id', h.id, 'ingress_url', tollgate.ingress_of(h), 'key_generation', h.key_generation)
  where tollgate.is_seen(h) and tollgate.ingress_of(h) is not null
$$;

comment on function tollgate.waking(tollgate.hosts) is
  'How the server wakes the agent of a host, so that it syncs now; null where that would be in vain.';


create function tollgate.host_shown(h tollgate.hosts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', h.id,
    'name', h.name,
    'state', h.state,
    'contact', case when h.last_seen_at is null then 'never' when tollgate.is_seen(h) then 'seen' else 'unseen' end,
    'labels', h.labels,
    'base_dir', h.base_dir,
    'ingress_url', tollgate.ingress_of(h),
    'agent_version', h.agent_version,
    'capabilities', h.capabilities,
    'sample', (
      select s.sample || jsonb_build_object('sampled_at', tollgate.utc(s.sampled_at))
      from tollgate.host_samples s where s.host_id = h.id order by s.sampled_at desc limit 1
    ),
    'models', (select count(*) from tollgate.deployments d where d.host_id = h.id and d.archived_at is null),
    'running', (
      select count(*) from tollgate.deployments d
      join tollgate.observations o on o.deployment_id = d.id
      where d.host_id = h.id and o.phase = 'running'
    ),
    'enrolled_at', tollgate.utc(h.enrolled_at),
    'last_seen_at', tollgate.utc(h.last_seen_at),
    'created_at', tollgate.utc(h.created_at),
    'updated_at', tollgate.utc(h.updated_at)
  )
$$;

comment on function tollgate.host_shown(tollgate.hosts) is 'A host as operators see it, with its last sample.';


create function tollgate.host_named(host_id text) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  ids constant text[] := array(select h.id from tollgate.hosts h where h.state <> 'retired' order by h.id limit 10);
begin
  if host_id is null and cardinality(ids) <> 1 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', case cardinality(ids) when 0 then 'no_host' else 'several_hosts' end, 'host_ids', to_jsonb(ids)
    ));
  end if;
  return coalesce(host_id, ids[1]);
end
$$;

comment on function tollgate.host_named(text) is
  'This id or, where none is given, that of the only host that is not retired. Refuses: conflict (no_host, several_hosts).';


create function tollgate.locked_host(host_id text) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  wanted constant text := tollgate.host_named(host_id);
  h tollgate.hosts;
begin
  select o.* into h from tollgate.hosts o where o.id = wanted for no key update;
  if not found then
    perform tollgate.refuse_missing('host', wanted);
  end if;
  return h;
end
$$;

comment on function tollgate.locked_host(text) is
  'The host of this id, or the only one. Refuses: as host_named(), not_found. Locks the host.';


create function tollgate.refuse_retired(h tollgate.hosts) returns void
language plpgsql
set search_path = ''
as $$
begin
  if h.state = 'retired' then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'host_retired', 'kind', 'host', 'id', h.id));
  end if;
end
$$;

comment on function tollgate.refuse_retired(tollgate.hosts) is 'Refuses, with conflict, what a retired host cannot do.';


create function public.tollgate_create_host(caller jsonb, host jsonb, enrolment jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  made tollgate.hosts;
begin
  made.name := '-';
  made.state := 'active';
  made.labels := '{}';
  made := tollgate.with_fields(made, host, array['name', 'labels', 'ingress_url', 'base_dir']);
  insert into tollgate.hosts (name, labels, ingress_url, base_dir)
  values (made.name, made.labels, made.ingress_url, made.base_dir)
  returning * into made;
  perform tollgate.record(actor, 'host.created', null, made.id, host);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'host', tollgate.host_shown(made),
    'enrolment', tollgate.put_enrolment(made, enrolment ->> 'digest')
  );
end
$$;

comment on function public.tollgate_create_host(jsonb, jsonb, jsonb) is
  'Creates a host, with an enrolment whose token has this digest. For admins. Refuses: as recognise() and with_fields(). Locks nothing.';

select tollgate.expose('public.tollgate_create_host(jsonb, jsonb, jsonb)');


create function public.tollgate_change_host(caller jsonb, host_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  was constant tollgate.hosts := tollgate.locked_host(host_id);
  made tollgate.hosts := tollgate.with_fields(was, changes, array['name', 'labels', 'ingress_url', 'base_dir']);
  routes_changed boolean := false;
begin
  if made is distinct from was then
    update tollgate.hosts h set
      name = made.name, labels = made.labels, ingress_url = made.ingress_url, base_dir = made.base_dir,
      updated_at = now()
    where h.id = was.id returning h.* into made;
    routes_changed := tollgate.offer_all(made);
    perform tollgate.record(actor, 'host.changed', null, made.id, changes);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'host', tollgate.host_shown(made), 'routes_changed', routes_changed
  );
end
$$;

comment on function public.tollgate_change_host(jsonb, text, jsonb) is
  'Changes the given fields of a host, or of the only one. A repetition changes and records nothing. For admins. Refuses: as recognise(), with_fields() and locked_host(). Locks the host, then its upstreams and routes.';

select tollgate.expose('public.tollgate_change_host(jsonb, text, jsonb)');


create function public.tollgate_set_host_state(caller jsonb, host_id text, state text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h tollgate.hosts := tollgate.locked_host(host_id);
  routes_changed boolean := false;
begin
  if h.state <> tollgate_set_host_state.state then
    perform tollgate.refuse_retired(h);
    update tollgate.hosts o set state = tollgate_set_host_state.state, updated_at = now()
    where o.id = h.id returning o.* into h;
    routes_changed := tollgate.offer_all(h);
    perform tollgate.record(actor, case tollgate_set_host_state.state
      when 'active' then 'host.uncordoned' when 'cordoned' then 'host.cordoned' else 'host.retired' end,
      null, h.id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'host', tollgate.host_shown(h), 'routes_changed', routes_changed,
    'waking', tollgate.waking(h)
  );
end
$$;

comment on function public.tollgate_set_host_state(jsonb, text, text) is
  'Makes a host active, cordoned or retired. Its routes follow at once. A retired host stays retired, and its key opens nothing. For admins. Refuses: as recognise(), not_found, conflict (host_retired). Locks the host, then its upstreams and routes.';

select tollgate.expose('public.tollgate_set_host_state(jsonb, text, text)');
