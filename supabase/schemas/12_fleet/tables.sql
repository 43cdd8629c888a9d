-- Hosts of our own, and the models that should run on them.

create function tollgate.is_served_name(name text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select (length(name) between 1 and 256 and name ~ '^[[:graph:]]+$' and name !~ '/.*/') is true
$$;

comment on function tollgate.is_served_name(text) is 'Whether clients can use this name of a model.';


create function tollgate.is_spec(spec jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select jsonb_typeof(spec) = 'object'
    and length(spec::text) <= 65536
    and (spec ->> 'engine' in ('vllm', 'sglang', 'llamacpp', 'tgi', 'whisper', 'tts', 'custom')) is true
    and (spec ->> 'kind' in ('text', 'transcription', 'speech')) is true
    and (spec #>> '{source,type}' in ('hub', 'path')) is true
    and tollgate.is_served_name(spec ->> 'served_name')
    and case jsonb_typeof(coalesce(spec -> 'aliases', '[]'))
      when 'array' then not exists (
        select from jsonb_array_elements_text(coalesce(spec -> 'aliases', '[]')) a (name)
        where not tollgate.is_served_name(a.name)
      )
      else false
    end
$$;

comment on function tollgate.is_spec(jsonb) is
  'Whether this may be the spec of a deployment. The server checks it in full; here is what routes are made of.';


create domain tollgate.host_state as text check (value is not null and value in ('active', 'cordoned', 'retired'));
create domain tollgate.ingress_url as text check (
  length(value) <= 2000 and value ~ '^https?://[^[:space:]/@?#]+(/[^[:space:]@?#]*[^[:space:]/@?#])?$'
);
create domain tollgate.base_dir as text check (length(value) <= 1024 and value ~ '^/[^[:cntrl:]]*$');
create domain tollgate.labels as jsonb check (
  value is not null and jsonb_typeof(value) = 'object' and length(value::text) <= 8192
);
create domain tollgate.spec as jsonb check (value is not null and tollgate.is_spec(value));
create domain tollgate.wanted as text check (value is not null and value in ('running', 'stopped', 'on_demand'));
create domain tollgate.phase as text check (value is not null and value in (
  'stopped', 'downloading', 'starting', 'loading', 'running', 'draining', 'stopping', 'failed', 'unknown'
));
create domain tollgate.maybe_pricing as jsonb check (tollgate.is_pricing(value));
create domain tollgate.stay_seconds as integer check (value is not null and value between 0 and 86400);
create domain tollgate.idle_seconds as integer check (value between 10 and 604800);
create domain tollgate.load_seconds as integer check (value is not null and value between 1 and 3600);


create table tollgate.hosts (
  id tollgate.host_id primary key default tollgate.new_id('hst'),
  name tollgate.name not null,
  state tollgate.host_state not null default 'active',
  labels tollgate.labels not null default '{}',
  base_dir tollgate.base_dir,
  ingress_url tollgate.ingress_url,
  reported_ingress_url tollgate.ingress_url,
  key_generation integer not null default 0,
  desired_version bigint not null default 1,
  agent_version text check (length(agent_version) <= 100),
  capabilities jsonb,
  incarnation text check (length(incarnation) <= 64),
  seq bigint,
  lease_until timestamptz,
  enrolled_at timestamptz,
  last_seen_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.hosts is 'Machines of our own that run models. Their agents call us; we call only their ingress.';
comment on column tollgate.hosts.ingress_url is 'Where the ingress is, as an operator says; otherwise reported_ingress_url, as the agent says.';
comment on column tollgate.hosts.key_generation is 'The key of the host is made from AGENT_KEY, the id and this number, so nothing secret is stored. Each enrolment and each rotation counts one.';
comment on column tollgate.hosts.desired_version is 'Counts the changes of what should run here, so that an unchanged list is not sent again.';
comment on column tollgate.hosts.incarnation is 'The run of the agent that has the lease. Another one is refused until lease_until.';
comment on column tollgate.hosts.seq is 'The number of the last sync of this incarnation. One that was counted before changes nothing.';

alter table tollgate.hosts enable row level security;

alter table tollgate.upstreams
  add constraint upstreams_host_id_fkey foreign key (host_id) references tollgate.hosts (id);


create table tollgate.enrolments (
  digest bytea primary key check (length(digest) = 32),
  host_id text not null references tollgate.hosts (id) on delete cascade,
  expires_at timestamptz not null,
  used_at timestamptz
);

create index enrolments_host_id on tollgate.enrolments (host_id);

comment on table tollgate.enrolments is 'Tokens by which an agent becomes the agent of a host: once, and within an hour. Only digests are stored.';

alter table tollgate.enrolments enable row level security;


create table tollgate.deployments (
  id text primary key default tollgate.new_id('dep') check (id ~ '^dep_[a-z0-9]{1,60}$'),
  host_id text not null references tollgate.hosts (id),
  name tollgate.name not null,
  spec tollgate.spec not null,
  generation integer not null default 1,
  applied_spec tollgate.spec not null,
  applied_generation integer not null default 1,
  wanted tollgate.wanted not null default 'stopped',
  pricing tollgate.maybe_pricing,
  context_tokens tollgate.token_bound,
  most_output tollgate.token_bound,
  priority tollgate.priority not null default 50,
  weight tollgate.weight not null default 1,
  listing tollgate.listing not null default '{}',
  drain_seconds tollgate.stay_seconds not null default 60,
  idle_seconds tollgate.idle_seconds,
  minimum_stay_seconds tollgate.stay_seconds not null default 60,
  load_seconds tollgate.load_seconds not null default 60,
  hub_token tollgate.name_of_secret,
  token_sent_for integer,
  asked_by text,
  archived_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index deployments_host_id on tollgate.deployments (host_id);

comment on table tollgate.deployments is 'Models that should run on a host.';
comment on column tollgate.deployments.spec is 'As it was edited last. generation counts its changes; start and apply make it applied_spec, which the host gets.';
comment on column tollgate.deployments.pricing is 'As routes have it. Without a price the model runs but is not offered.';
comment on column tollgate.deployments.hub_token is 'The name of a token of Hugging Face in the vault. The host gets it while it downloads, and at no other time.';
comment on column tollgate.deployments.token_sent_for is 'The generation that the host got the token for last, so that the audit trail has it once.';
comment on column tollgate.deployments.asked_by is 'Who said last what is wanted: the id of a user, or the name of a command.';

alter table tollgate.deployments enable row level security;


create table tollgate.observations (
  deployment_id text primary key references tollgate.deployments (id) on delete cascade,
  generation integer not null,
  phase tollgate.phase not null,
  ready boolean not null,
  failures integer not null,
  retry_at timestamptz,
  detail text,
  diagnosis jsonb,
  progress jsonb,
  measured jsonb,
  facts jsonb,
  log_tail text,
  metrics jsonb,
  phase_since timestamptz not null default now(),
  last_started_at timestamptz,
  last_stopped_at timestamptz,
  observed_at timestamptz not null default now()
);

comment on table tollgate.observations is 'What the agent said of a deployment last. Times are the database''s: agents send durations.';
comment on column tollgate.observations.log_tail is 'The end of the log of the last failure.';

alter table tollgate.observations enable row level security;


create table tollgate.phase_changes (
  id text primary key default tollgate.new_id('phc') check (id ~ '^phc_[a-z0-9]{1,64}$'),
  deployment_id text not null references tollgate.deployments (id) on delete cascade,
  incarnation text not null,
  number bigint not null,
  before tollgate.phase not null,
  phase tollgate.phase not null,
  why text not null check (length(why) <= 4000),
  asked_by text,
  changed_at timestamptz not null,
  unique (deployment_id, incarnation, number)
);

create index phase_changes_deployment_id on tollgate.phase_changes (deployment_id, changed_at);

comment on table tollgate.phase_changes is 'The last 200 changes of the phase of a deployment, as its agent told them.';
comment on column tollgate.phase_changes.number is 'Which change of the incarnation it is: one that is told again is no other.';
comment on column tollgate.phase_changes.asked_by is 'The operator who wanted it; null where the host did it by itself.';

alter table tollgate.phase_changes enable row level security;


create table tollgate.host_samples (
  host_id text not null references tollgate.hosts (id) on delete cascade,
  sampled_at timestamptz not null default now(),
  sample jsonb not null,
  primary key (host_id, sampled_at)
);

create index host_samples_age on tollgate.host_samples (sampled_at);

comment on table tollgate.host_samples is 'The figures of hosts, one row a minute, kept for 24 hours.';

alter table tollgate.host_samples enable row level security;


create table tollgate.tasks (
  id text primary key default tollgate.new_id('tsk') check (id ~ '^tsk_[a-z0-9]{1,64}$'),
  host_id text not null references tollgate.hosts (id) on delete cascade,
  kind text not null check (kind in (
    'local_folders', 'inspect_folder', 'facts', 'logs', 'test', 'delete_files', 'hub_config'
  )),
  arguments jsonb not null,
  state text not null default 'waiting' check (state in ('waiting', 'done', 'failed')),
  result jsonb,
  error text,
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  check ((ended_at is null) = (state = 'waiting'))
);

create index tasks_host_id on tollgate.tasks (host_id, created_at);
create index tasks_age on tollgate.tasks (created_at);

comment on table tollgate.tasks is 'What a host is asked to do once. It is in each answer to the host until its result is there, or a minute is over.';

alter table tollgate.tasks enable row level security;
