-- Why:  a cold instance serves its first completion without downloading the catalogue, and models may be served by
--       servers of our own.
-- What: the snapshot of each source's list of models (snapshots, listings), the servers of our own (upstreams, routes),
--       the functions that read them and keep a snapshot, and tollgate_shopper(). What operators write comes with the registry.
-- Care: additive. No secret is stored: an upstream names the environment variable that holds its key.

create table tollgate.snapshots (
  source text primary key check (length(source) between 1 and 2000),
  taken_at timestamptz not null
);

comment on table tollgate.snapshots is 'When the list of models of each source (its address) was last taken. Locked by whoever replaces it.';


create table tollgate.listings (
  source text not null references tollgate.snapshots (source) on delete cascade,
  id text not null check (length(id) between 1 and 256),
  also text,
  position integer not null,
  listing text not null,
  primary key (source, id)
);

create index listings_also on tollgate.listings (source, also);

comment on table tollgate.listings is 'The models of a snapshot, one row each, so that a cold instance reads one.';
comment on column tollgate.listings.also is 'The model''s canonical name, where that is another.';
comment on column tollgate.listings.listing is 'As the source listed it; JSON in text, since nothing here looks into it and jsonb takes no NUL.';


create function tollgate.is_pricing(pricing jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select jsonb_typeof(pricing) = 'object'
    and pricing ?& array['prompt', 'completion']
    and not exists (
      select from jsonb_each(pricing) p
      where p.key <> 'overrides'
        and (jsonb_typeof(p.value) <> 'string' or p.value #>> '{}' !~ '^[0-9]{1,6}(\.[0-9]{1,30})?$')
    )
    and case jsonb_typeof(coalesce(pricing -> 'overrides', '[]'))
      when 'array' then not exists (
        select from jsonb_array_elements(coalesce(pricing -> 'overrides', '[]')) o
        where jsonb_typeof(o) <> 'object' or jsonb_typeof(o -> 'min_prompt_tokens') is distinct from 'number'
          or o ->> 'min_prompt_tokens' !~ '^[0-9]{1,9}$'
          or not tollgate.is_pricing('{"prompt": "0", "completion": "0"}'::jsonb || (o - 'min_prompt_tokens'))
      )
      else false
    end
$$;

comment on function tollgate.is_pricing(jsonb) is
  'Whether these are prices in OpenRouter''s shape: plain decimal strings, US dollars per token or piece, none negative, prompt and completion among them.';


create table tollgate.upstreams (
  id text primary key default tollgate.new_id('ups') check (id ~ '^ups_[a-z0-9]{1,64}$'),
  name text not null check (length(name) between 1 and 200),
  base_url text not null check (length(base_url) <= 2000 and base_url ~ '^https?://[^[:space:]/@?#]+(/[^[:space:]@?#]*[^[:space:]/@?#])?$'),
  dialect text not null check (dialect in ('vllm', 'sglang', 'llamacpp', 'tgi', 'openai')),
  secret_name text check (secret_name ~ '^[A-Z][A-Z0-9_]{0,127}$'),
  concurrency integer check (concurrency between 1 and 100000),
  connect_seconds double precision not null default 5 check (connect_seconds between 0.1 and 60),
  first_byte_seconds double precision not null default 120 check (first_byte_seconds between 0.1 and 86400),
  idle_seconds double precision not null default 120 check (idle_seconds between 0.1 and 86400),
  health_path text check (length(health_path) <= 2000 and health_path ~ '^/[^[:space:]?#]*$'),
  state text not null default 'active' check (state in ('active', 'disabled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.upstreams is 'Servers of our own, which speak OpenAI''s API. OpenRouter is none of them: it comes from the settings.';
comment on column tollgate.upstreams.secret_name is 'The environment variable that holds the server''s key; the key itself is never here.';


create table tollgate.routes (
  id text primary key default tollgate.new_id('rte') check (id ~ '^rte_[a-z0-9]{1,64}$'),
  model text not null check (length(model) between 1 and 256 and model ~ '^[[:graph:]]+$' and model !~ '/.*/'),
  upstream_id text not null references tollgate.upstreams (id),
  upstream_model text not null check (length(upstream_model) between 1 and 256 and upstream_model ~ '^[[:graph:]]+$'),
  pricing jsonb not null check (tollgate.is_pricing(pricing)),
  context_tokens bigint check (context_tokens between 1 and 1000000000),
  most_output bigint check (most_output between 1 and 1000000000),
  priority integer not null default 50 check (priority between 0 and 1000),
  weight integer not null default 1 check (weight between 1 and 1000),
  listing jsonb not null default '{}' check (jsonb_typeof(listing) = 'object' and length(listing::text) <= 20000),
  state text not null default 'active' check (state in ('active', 'disabled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (model, upstream_id)
);

create index routes_upstream_id on tollgate.routes (upstream_id);

comment on table tollgate.routes is 'Which of our own servers serves which model, and at what price. A model that OpenRouter lists too has its route there besides, with priority 100.';
comment on column tollgate.routes.pricing is 'In OpenRouter''s shape: US dollars as decimal strings, per token, request or piece.';
comment on column tollgate.routes.priority is 'Lower ones first; within one, at random by weight.';
comment on column tollgate.routes.listing is 'What GET /v1/models says of it beyond what is known: name, description, architecture, supported_parameters.';

alter table tollgate.snapshots enable row level security;
alter table tollgate.listings enable row level security;
alter table tollgate.upstreams enable row level security;
alter table tollgate.routes enable row level security;


create function tollgate.listings_of(source text, names jsonb, within_seconds integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  age bigint;
  wanted text[];
  found jsonb;
begin
  select floor(extract(epoch from greatest(clock_timestamp() - s.taken_at, interval '0'))) into age
  from tollgate.snapshots s where s.source = listings_of.source;
  if age < within_seconds then
    if names is null then
      select jsonb_agg(l.listing order by l.position) into found
      from tollgate.listings l where l.source = listings_of.source;
    else
      wanted := array(select jsonb_array_elements_text(names));
      select jsonb_agg(l.listing order by l.position) into found
      from tollgate.listings l
      where l.source = listings_of.source and (l.id = any (wanted) or l.also = any (wanted));
    end if;
    found := coalesce(found, '[]');
  end if;
  return jsonb_build_object('age_seconds', age, 'models', found);
end
$$;

comment on function tollgate.listings_of(text, jsonb, integer) is
  'The age of a source''s snapshot and, where it is no older than that, its models of these names, or all.';


create function tollgate.routes_of(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  with wanted as (
    select r.*
    from tollgate.routes r
    join tollgate.upstreams u on u.id = r.upstream_id
    where r.state = 'active' and u.state = 'active'
      and (names is null or r.model in (select jsonb_array_elements_text(names)))
  )
  select jsonb_build_object(
    'routes', coalesce((
      select jsonb_agg(
        to_jsonb(w) - 'updated_at' || jsonb_build_object('created', extract(epoch from w.created_at)::bigint)
        order by w.priority, w.model, w.id
      ) from wanted w
    ), '[]'::jsonb),
    'upstreams', coalesce((
      select jsonb_agg(to_jsonb(u) - 'created_at' - 'updated_at' order by u.id)
      from tollgate.upstreams u where u.id in (select w.upstream_id from wanted w)
    ), '[]'::jsonb)
  )
$$;

comment on function tollgate.routes_of(jsonb) is 'The active routes of these models, or of all, and their upstreams.';


create function public.tollgate_catalog(source text, names jsonb, within_seconds integer) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select tollgate.listings_of(source, nullif(names, 'null'), within_seconds) || tollgate.routes_of(nullif(names, 'null'))
$$;

comment on function public.tollgate_catalog(text, jsonb, integer) is
  'What is known of models by these names, or of all: the snapshot''s age, its entries if it is no older than `within_seconds` (else null), and the active routes to our own servers with their upstreams. Refuses nothing, locks nothing.';


create function public.tollgate_keep_catalog(source text, models jsonb, age_ms bigint) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  taken timestamptz := statement_timestamp() - make_interval(secs => greatest(age_ms, 0) / 1000.0);
begin
  insert into tollgate.snapshots (source, taken_at) values (tollgate_keep_catalog.source, '-infinity')
  on conflict do nothing;
  perform from tollgate.snapshots s
  where s.source = tollgate_keep_catalog.source and s.taken_at < taken
  for no key update;
  if not found then
    return jsonb_build_object('kept', false);
  end if;

  update tollgate.snapshots s set taken_at = taken where s.source = tollgate_keep_catalog.source;
  delete from tollgate.listings l
  where l.source = tollgate_keep_catalog.source
    and l.id not in (select m ->> 'id' from jsonb_array_elements(models) m);
  insert into tollgate.listings as l (source, id, also, position, listing)
  select tollgate_keep_catalog.source, m.value ->> 'id', m.value ->> 'also', m.ordinality, m.value ->> 'listing'
  from jsonb_array_elements(models) with ordinality m
  on conflict on constraint listings_pkey do update
    set also = excluded.also, position = excluded.position, listing = excluded.listing
    where (l.also, l.position, l.listing) is distinct from (excluded.also, excluded.position, excluded.listing);
  return jsonb_build_object('kept', true);
end
$$;

comment on function public.tollgate_keep_catalog(text, jsonb, bigint) is
  'Replaces a source''s snapshot by one that was taken so long ago, unless a newer one is there. `models`: id, also, listing, in order, each id once. Refuses nothing. Locks the snapshot, so that two at once end with the newer.';


create function tollgate.refuse_unknown(given jsonb, known text[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  unknown text;
begin
  select k into unknown from jsonb_object_keys(given) k where k <> all (known) order by 1 limit 1;
  if found then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', unknown));
  end if;
end
$$;

comment on function tollgate.refuse_unknown(jsonb, text[]) is
  'Refuses, with invalid_request, a field that would go unheeded.';


create function public.tollgate_shopper(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'models');
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'environment', k.environment,
      'allowed_models', to_jsonb(k.allowed_models),
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm)
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    join tollgate.plans p on p.id = o.plan_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_shopper(jsonb) is
  'Who looks at the catalogue: with which markup (null is the setting MARKUP), and which models the key may use (null is all). Refuses: as recognise(). Locks nothing of the org.';


select tollgate.expose('public.tollgate_catalog(text, jsonb, integer)');
select tollgate.expose('public.tollgate_keep_catalog(text, jsonb, bigint)');
select tollgate.expose('public.tollgate_shopper(jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001200'
$$;

revoke execute on all functions in schema tollgate from public;
