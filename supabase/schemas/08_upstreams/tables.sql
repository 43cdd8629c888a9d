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
  updated_at timestamptz not null default now(),
  constraint upstreams_secret_name_is_not_ours check (
    secret_name !~ '^(KEY_PEPPER|CRON_SECRET|DATABASE_|SUPABASE_|OPENROUTER_|REDIS_|TOLLGATE_)'
  )
);

comment on table tollgate.upstreams is 'Servers of our own, which speak OpenAI''s API. OpenRouter is none of them: it comes from the settings.';
comment on column tollgate.upstreams.secret_name is 'The environment variable that holds the server''s key; the key itself is never here.';

alter table tollgate.upstreams enable row level security;


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

alter table tollgate.routes enable row level security;


create table tollgate.probes (
  upstream_id text primary key references tollgate.upstreams (id) on delete cascade,
  status text not null check (status in ('up', 'down')),
  http_status integer check (http_status between 100 and 999),
  latency_ms integer check (latency_ms >= 0),
  error text check (length(error) between 1 and 500),
  probed_at timestamptz not null default clock_timestamp()
);

comment on table tollgate.probes is 'How each of our own servers was when an operator last had it asked.';
comment on column tollgate.probes.latency_ms is 'Until the head of its answer came; null when none did.';

alter table tollgate.probes enable row level security;
