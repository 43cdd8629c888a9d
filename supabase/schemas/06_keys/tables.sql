create function tollgate.is_metadata(metadata jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case jsonb_typeof(metadata) when 'object' then (
    select count(*) <= 16 and coalesce(bool_and(
      length(m.key) between 1 and 64 and length(m.value #>> '{}') <= 500
        and jsonb_typeof(m.value) in ('string', 'number', 'boolean')
    ), true)
    from jsonb_each(metadata) m
  ) else metadata is null end
$$;

comment on function tollgate.is_metadata(jsonb) is
  'Whether this is a flat object with at most 16 names of 1 to 64 characters, and texts, numbers or booleans of at most 500.';


-- Domains rather than checks, as in 05_people. Those that must be there refuse null as well, so that a change to null is
-- refused by its field.
create domain tollgate.key_name as text check (value is not null and value ~ '^[^[:cntrl:]]{1,200}$');
create domain tollgate.digest as bytea check (value is not null and length(value) = 32);
create domain tollgate.pepper as text check (value is not null and value ~ '^[0-9a-f]{8}$');
create domain tollgate.prefix as text check (value is not null and value ~ '^[!-~]{1,16}$');
create domain tollgate.last_four as text check (value is not null and value ~ '^[!-~]{4}$');
create domain tollgate.environment as text check (value is not null and value in ('live', 'test'));
create domain tollgate.scopes as text[] check (
  value is not null and tollgate.all_match(value, '^(chat|completions|embeddings|models|usage|keys|admin)$')
);
create domain tollgate.networks as cidr[] check (cardinality(value) <= 100 and array_ndims(value) = 1);
create domain tollgate.budget_nanos as bigint check (value between 0 and 100000000000000000);
create domain tollgate.budget_reset as text check (value in ('daily', 'weekly', 'monthly', 'never'));
create domain tollgate.token_quota as bigint check (value between 0 and 1000000000000000);
create domain tollgate.metadata as jsonb check (tollgate.is_metadata(value));

create domain tollgate.quota_reset_day as integer check (value between 1 and 28);

create table tollgate.api_keys (
  id text primary key default tollgate.new_id('key') check (id ~ '^key_[a-z0-9]{1,64}$'),
  org_id text not null,
  user_id text not null,
  name tollgate.key_name not null,
  digest tollgate.digest not null unique,
  pepper tollgate.pepper not null,
  prefix tollgate.prefix not null,
  last_four tollgate.last_four not null,
  environment tollgate.environment not null default 'live',
  scopes tollgate.scopes not null,
  ip_allowlist tollgate.networks,
  expires_at timestamptz,
  disabled_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  limits tollgate.limits,
  counters tollgate.counters,
  allowed_models tollgate.model_patterns,
  budget_nanos tollgate.budget_nanos,
  budget_reset tollgate.budget_reset,
  budget_period date,
  budget_spent_nanos bigint not null default 0,
  tokens_per_month tollgate.token_quota,
  tokens_in_all tollgate.token_quota,
  month_of_tokens date,
  tokens_used_in_month bigint not null default 0,
  tokens_used_in_all bigint not null default 0,
  counted boolean not null generated always as (
    budget_nanos is not null or tokens_per_month is not null or tokens_in_all is not null or not limits is null
  ) stored,
  metadata tollgate.metadata not null default '{}',
  rotated_from text,
  rotated_to text,
  line text,
  max_concurrent_requests tollgate.limit,
  open_requests bigint not null default 0,
  quota_reset_day tollgate.quota_reset_day not null default 1,
  cache boolean,
  foreign key (user_id, org_id) references tollgate.users (id, org_id) on update cascade
);

create index api_keys_user_id on tollgate.api_keys (user_id, org_id);
create index api_keys_org_id on tollgate.api_keys (org_id);
create index api_keys_age on tollgate.api_keys (created_at, id);
create index api_keys_line on tollgate.api_keys (line) where line is not null;

comment on table tollgate.api_keys is 'Keys without their secrets: a digest to find them by, a prefix and the last four characters to show.';
comment on column tollgate.api_keys.pepper is 'Fingerprint of the pepper of this digest: tells which keys still use an old pepper.';
comment on column tollgate.api_keys.ip_allowlist is 'Networks that the key may be used from; null is any.';
comment on column tollgate.api_keys.limits is 'The key''s own limits, within the org''s; null is none.';
comment on column tollgate.api_keys.allowed_models is 'Patterns of the models that the key may use, in which * matches anything; null is all.';
comment on column tollgate.api_keys.budget_spent_nanos is 'Charges and open holds since budget_period began.';
comment on column tollgate.api_keys.quota_reset_day is 'The day of the month, in UTC, on which tokens_used_in_month starts from zero.';
comment on column tollgate.api_keys.counted is 'Whether the key has limits, a budget or a quota of its own. Requests do not write the rows of other keys.';
comment on column tollgate.api_keys.metadata is 'The owner''s own notes: a small flat object.';
comment on column tollgate.api_keys.rotated_from is 'The key that was rotated to this one.';
comment on column tollgate.api_keys.rotated_to is 'The key that this one was rotated to; this one ends at expires_at.';
comment on column tollgate.api_keys.line is 'The first key of the line; null if the key was never rotated.';
comment on column tollgate.api_keys.max_concurrent_requests is 'How many requests the keys of the line may have open at once; null is no bound of its own.';
comment on column tollgate.api_keys.cache is 'Whether requests that do not say so themselves use the cache; null follows the org.';
comment on column tollgate.api_keys.open_requests is 'Open requests of the keys of the line; 0 while there is no bound.';

alter table tollgate.api_keys enable row level security;


create type tollgate.recognition as (
  actor tollgate.caller,
  key tollgate.api_keys, -- null for the console
  refusal jsonb -- null when the caller may act
);

comment on type tollgate.recognition is 'Who is behind a request, or why it is refused.';
