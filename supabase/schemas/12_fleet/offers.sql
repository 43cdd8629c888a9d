-- What hosts offer: a deployment that can take calls is an upstream, with a route for each of its names.
--
-- The upstream is the ingress of the host. Its key is made from AGENT_KEY, so no variable is named.

create function tollgate.upstream_of(d tollgate.deployments) returns text
language sql
immutable
set search_path = ''
as $$
  select 'ups_' || substr(d.id, 5)
$$;

comment on function tollgate.upstream_of(tollgate.deployments) is 'The id of the upstream that a deployment is offered as.';


create function tollgate.names_of(spec jsonb) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array(
    select distinct n.name
    from jsonb_array_elements_text(jsonb_build_array(spec ->> 'served_name') || coalesce(spec -> 'aliases', '[]')) n (name)
  )
$$;

comment on function tollgate.names_of(jsonb) is 'The names by which clients find the model of a spec.';


create function tollgate.dialect_of(engine text) returns text
language sql
immutable
set search_path = ''
as $$
  select case when engine in ('vllm', 'sglang', 'llamacpp', 'tgi') then engine else 'openai' end
$$;

comment on function tollgate.dialect_of(text) is 'How an engine differs from OpenAI''s API.';


create function tollgate.listing_of(d tollgate.deployments) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('name', d.name) || case d.applied_spec ->> 'kind'
    when 'transcription' then '{"architecture": {"modality": "audio->transcription", "input_modalities": ["audio"],
      "output_modalities": ["transcription"], "tokenizer": "Other", "instruct_type": null}}'::jsonb
    when 'speech' then '{"architecture": {"modality": "text->speech", "input_modalities": ["text"],
      "output_modalities": ["speech"], "tokenizer": "Other", "instruct_type": null}}'::jsonb
    else '{}'
  end || d.listing
$$;

comment on function tollgate.listing_of(tollgate.deployments) is
  'How GET /v1/models shows the model of a deployment: by its kind, and as the operator says.';


create function tollgate.is_offered(d tollgate.deployments, h tollgate.hosts) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.observations o
    where o.deployment_id = d.id
      and o.generation = d.applied_generation
      and (o.phase = 'running' or (d.wanted = 'on_demand' and o.ready and o.phase in ('stopped', 'starting', 'loading')))
  )
  and d.wanted <> 'stopped' and d.pricing is not null and d.archived_at is null
  and h.state = 'active' and tollgate.ingress_of(h) is not null
$$;

comment on function tollgate.is_offered(tollgate.deployments, tollgate.hosts) is
  'Whether clients may call a deployment: it runs, or would be loaded by a call; it has a price; and its host takes calls. A host that is silent still does: breakers judge the way to it.';


create function tollgate.offer(d tollgate.deployments, h tollgate.hosts) returns boolean
language plpgsql
set search_path = ''
as $$
declare
  server constant text := tollgate.upstream_of(d);
  offered constant text[] := case when tollgate.is_offered(d, h) then tollgate.names_of(d.applied_spec) else '{}' end;
  written integer;
  changes integer := 0;
begin
  if cardinality(offered) > 0 then
    insert into tollgate.upstreams as u (id, name, base_url, dialect, host_id, host_key_generation)
    values (
      server, left(d.name || ' at ' || h.name, 200), tollgate.ingress_of(h) || '/d/' || d.id || '/v1',
      tollgate.dialect_of(d.applied_spec ->> 'engine'), h.id, h.key_generation
    )
    on conflict (id) do update set
      name = excluded.name, base_url = excluded.base_url, dialect = excluded.dialect, host_id = excluded.host_id,
      host_key_generation = excluded.host_key_generation, updated_at = now()
    where (u.name, u.base_url, u.dialect, u.host_id, u.host_key_generation) is distinct from
      (excluded.name, excluded.base_url, excluded.dialect, excluded.host_id, excluded.host_key_generation);
    get diagnostics changes = row_count;

    insert into tollgate.routes as r (
      model, upstream_id, upstream_model, pricing, context_tokens, most_output, priority, weight, listing
    )
    select n.name, server, d.applied_spec ->> 'served_name', d.pricing, d.context_tokens, d.most_output, d.priority,
      d.weight, tollgate.listing_of(d)
    from unnest(offered) n (name)
    order by n.name
    on conflict (model, upstream_id) do update set
      upstream_model = excluded.upstream_model, pricing = excluded.pricing, context_tokens = excluded.context_tokens,
      most_output = excluded.most_output, priority = excluded.priority, weight = excluded.weight,
      listing = excluded.listing, state = 'active', updated_at = now()
    where (r.upstream_model, r.pricing, r.context_tokens, r.most_output, r.priority, r.weight, r.listing, r.state)
      is distinct from (excluded.upstream_model, excluded.pricing, excluded.context_tokens, excluded.most_output,
        excluded.priority, excluded.weight, excluded.listing, 'active');
    get diagnostics written = row_count;
    changes := changes + written;
  end if;

  update tollgate.routes r set state = 'disabled', updated_at = now()
  where r.upstream_id = server and r.state = 'active' and r.model <> all (offered);
  get diagnostics written = row_count;
  return changes + written > 0;
end
$$;

comment on function tollgate.offer(tollgate.deployments, tollgate.hosts) is
  'Makes the upstream and the routes of a deployment as they should be now, and tells whether that changed any. The host must be locked. Locks the upstream and its routes.';


create function tollgate.offer_all(h tollgate.hosts) returns boolean
language sql
set search_path = ''
as $$
  select coalesce(bool_or(a.changed), false) from (
    select tollgate.offer(o, h) as changed from tollgate.deployments o where o.host_id = h.id order by o.id
  ) a
$$;

comment on function tollgate.offer_all(tollgate.hosts) is 'As offer(), for all deployments of a host that is locked.';


create function tollgate.withdraw(d tollgate.deployments) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.routes r where r.upstream_id = tollgate.upstream_of(d);
  delete from tollgate.upstreams u where u.id = tollgate.upstream_of(d)
$$;

comment on function tollgate.withdraw(tollgate.deployments) is
  'Deletes the upstream and the routes of a deployment. Requests keep their id. Locks them.';


create function tollgate.with_next_key(h tollgate.hosts) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  made tollgate.hosts;
begin
  update tollgate.hosts o set
    key_generation = o.key_generation + 1, incarnation = null, seq = null, lease_until = null, updated_at = now()
  where o.id = h.id returning o.* into made;
  update tollgate.upstreams u set host_key_generation = made.key_generation, updated_at = now()
  where u.host_id = h.id;
  return made;
end
$$;

comment on function tollgate.with_next_key(tollgate.hosts) is
  'The host with its next key: the one before opens nothing any more, and its lease is over. The host must be locked. Locks its upstreams.';


create function tollgate.changed_desire(h tollgate.hosts) returns void
language sql
set search_path = ''
as $$
  update tollgate.hosts o set desired_version = o.desired_version + 1 where o.id = h.id
$$;

comment on function tollgate.changed_desire(tollgate.hosts) is
  'Notes that what should run on a host has changed. The host must be locked.';
