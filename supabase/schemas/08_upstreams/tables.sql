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
  'Whether this is pricing as OpenRouter writes it: US dollars per token or piece as plain decimal strings, none negative, with prompt and completion.';


-- Domains, which tollgate.with_fields() refuses by field. Those that must be there refuse null as well.
create domain tollgate.upstream_id as text check (value is not null and value ~ '^ups_[a-z0-9]{1,64}$');
create domain tollgate.base_url as text check (
  value is not null and length(value) <= 2000
  and value ~ '^https?://[^[:space:]/@?#]+(/[^[:space:]@?#]*[^[:space:]/@?#])?$'
);
create domain tollgate.dialect as text check (
  value is not null and value in (
    'vllm', 'sglang', 'llamacpp', 'tgi', 'openai',
    'openai-platform', 'azure-openai', 'anthropic', 'groq', 'mistral', 'together'
  )
);
create domain tollgate.secret_name as text check (
  value ~ '^[A-Z][A-Z0-9_]{0,127}$'
  and value !~ '^(KEY_PEPPER|CRON_SECRET|DATABASE_|SUPABASE_|OPENROUTER_|REDIS_|TOLLGATE_|VAULT_|AGENT_)'
);
create domain tollgate.connect_seconds as double precision check (value is not null and value between 0.1 and 60);
create domain tollgate.wait_seconds as double precision check (value is not null and value between 0.1 and 86400);
create domain tollgate.health_path as text check (length(value) <= 2000 and value ~ '^/[^[:space:]?#]*$');
create domain tollgate.enabled_state as text check (value is not null and value in ('active', 'disabled'));
create domain tollgate.upstream_model as text check (
  value is not null and length(value) between 1 and 256 and value ~ '^[[:graph:]]+$'
);
create domain tollgate.model as tollgate.upstream_model check (value !~ '/.*/');
create domain tollgate.pricing as jsonb check (value is not null and tollgate.is_pricing(value));
create domain tollgate.token_bound as bigint check (value between 1 and 1000000000);
create domain tollgate.priority as integer check (value is not null and value between 0 and 1000);
create domain tollgate.weight as integer check (value is not null and value between 1 and 1000);
create domain tollgate.listing as jsonb check (
  value is not null and jsonb_typeof(value) = 'object' and length(value::text) <= 20000
);
create function tollgate.is_targets(targets jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case when jsonb_typeof(targets) = 'array' then
    jsonb_array_length(targets) between 1 and 16 and not exists (
      select from jsonb_array_elements(targets) t
      where jsonb_typeof(t) <> 'object'
        or (t ->> 'model' ~ '^[[:graph:]]{1,255}$') is not true
        or (t ->> 'upstream_id' ~ '^[!-~]{1,80}$') is false
        or (jsonb_typeof(t -> 'weight') = 'number' and t ->> 'weight' ~ '^[0-9]{1,4}$') is not true
        or (t ->> 'weight')::integer not between 1 and 1000
    )
  else false end
$$;

comment on function tollgate.is_targets(jsonb) is
  'Whether these are the targets of an alias: 1 to 16, each with a model, a weight from 1 to 1000 and, if only one upstream is meant, its upstream_id.';


create domain tollgate.targets as jsonb check (value is not null and tollgate.is_targets(value));
create domain tollgate.fallbacks as text[] check (
  value is not null and cardinality(value) <= 16 and tollgate.all_match(value, '^[[:graph:]]{1,255}$')
);
create domain tollgate.day as date check (value between '2000-01-01' and '9998-12-31');
create domain tollgate.description as text check (value is not null and length(value) <= 500);
create domain tollgate.concurrency as integer check (value between 1 and 100000);
create domain tollgate.yes_or_no as boolean check (value is not null);
create domain tollgate.host_id as text check (value ~ '^hst_[a-z0-9]{1,64}$');


create table tollgate.upstreams (
  id tollgate.upstream_id primary key default tollgate.new_id('ups'),
  name tollgate.name not null,
  base_url tollgate.base_url not null,
  dialect tollgate.dialect not null,
  secret_name tollgate.secret_name,
  concurrency tollgate.concurrency,
  connect_seconds tollgate.connect_seconds not null default 5,
  first_byte_seconds tollgate.wait_seconds not null default 120,
  idle_seconds tollgate.wait_seconds not null default 120,
  health_path tollgate.health_path,
  state tollgate.enabled_state not null default 'active',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  takes_org_keys tollgate.yes_or_no not null default false,
  host_id tollgate.host_id,
  host_key_generation integer,
  check ((host_id is null) = (host_key_generation is null)),
  check (host_id is null or not (takes_org_keys or secret_name is not null))
);

create index upstreams_host_id on tollgate.upstreams (host_id);

comment on table tollgate.upstreams is 'Upstreams of our own that serve OpenAI''s API. OpenRouter is not here: it comes from the settings.';
comment on column tollgate.upstreams.secret_name is 'The environment variable that holds the upstream''s key; the key itself is never stored.';
comment on column tollgate.upstreams.takes_org_keys is 'Whether orgs may store keys of their own for it, in 11_vault. A call with such a key costs a fee alone, so the server must check keys.';
comment on column tollgate.upstreams.host_id is 'The host of our own whose ingress this is: 12_fleet writes the row and its routes. Its key is made from AGENT_KEY, the host and host_key_generation, so it is not stored.';

alter table tollgate.upstreams enable row level security;


create table tollgate.routes (
  id text primary key default tollgate.new_id('rte') check (id ~ '^rte_[a-z0-9]{1,64}$'),
  model tollgate.model not null,
  upstream_id text not null references tollgate.upstreams (id),
  upstream_model tollgate.upstream_model not null,
  pricing tollgate.pricing not null,
  context_tokens tollgate.token_bound,
  most_output tollgate.token_bound,
  priority tollgate.priority not null default 50,
  weight tollgate.weight not null default 1,
  listing tollgate.listing not null default '{}',
  state tollgate.enabled_state not null default 'active',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deprecated_on tollgate.day,
  retires_on tollgate.day,
  replacement tollgate.model_name,
  unique (model, upstream_id)
);

create index routes_upstream_id on tollgate.routes (upstream_id);

comment on table tollgate.routes is 'Which of our own upstreams serves which model, and at what price. A model that OpenRouter lists too also has a route to it, with priority 100.';
comment on column tollgate.routes.pricing is 'In OpenRouter''s shape: US dollars as decimal strings, per token, request or piece.';
comment on column tollgate.routes.priority is 'Routes with the lowest priority are tried first; among equal ones, the order is random by weight.';
comment on column tollgate.routes.listing is 'More fields of the model for GET /v1/models: name, description, architecture, supported_parameters.';

comment on column tollgate.routes.deprecated_on is 'Since when clients are asked to leave the model; shown to them, and nothing else.';
comment on column tollgate.routes.retires_on is 'The last day (UTC) on which the route serves; null is for good.';
comment on column tollgate.routes.replacement is 'The model to use instead.';

alter table tollgate.routes enable row level security;


create table tollgate.aliases (
  name tollgate.model primary key,
  targets tollgate.targets not null,
  fallbacks tollgate.fallbacks not null default '{}',
  description tollgate.description not null default '',
  deprecated_on tollgate.day,
  retires_on tollgate.day,
  replacement tollgate.model_name,
  state tollgate.enabled_state not null default 'active',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.aliases is 'Names of an operator''s for models. A target is a model and never another alias, so there are no cycles; the alias itself among its targets or fallbacks is the model of that name.';
comment on column tollgate.aliases.targets is 'One of them serves a call, chosen by weight: the same one for the same key or session.';
comment on column tollgate.aliases.fallbacks is 'Models that are tried in this order when the target fails.';

alter table tollgate.aliases enable row level security;


create table tollgate.probes (
  upstream_id text primary key references tollgate.upstreams (id) on delete cascade,
  status text not null check (status in ('up', 'down')),
  http_status integer check (http_status between 100 and 999),
  latency_ms integer check (latency_ms >= 0),
  error text check (length(error) between 1 and 500),
  probed_at timestamptz not null default clock_timestamp()
);

comment on table tollgate.probes is 'The last probe of each of our own upstreams.';
comment on column tollgate.probes.latency_ms is 'Milliseconds until the head of the answer; null without an answer.';

alter table tollgate.probes enable row level security;


create table tollgate.past_probes (
  upstream_id text not null references tollgate.upstreams (id) on delete cascade,
  probed_at timestamptz not null,
  status text not null,
  http_status integer,
  latency_ms integer,
  error text,
  primary key (upstream_id, probed_at)
);

comment on table tollgate.past_probes is 'The last 50 probes of each of our own upstreams.';

alter table tollgate.past_probes enable row level security;
