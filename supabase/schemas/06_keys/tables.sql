create table tollgate.api_keys (
  id text primary key default tollgate.new_id('key') check (id ~ '^key_[a-z0-9]{1,64}$'),
  org_id text not null,
  user_id text not null,
  name text not null check (length(name) between 1 and 200),
  digest bytea not null unique check (length(digest) = 32),
  pepper text not null check (pepper ~ '^[0-9a-f]{8}$'),
  prefix text not null check (length(prefix) between 1 and 16),
  last_four text not null check (length(last_four) = 4),
  environment text not null default 'live' check (environment in ('live', 'test')),
  scopes text[] not null,
  ip_allowlist cidr[],
  expires_at timestamptz,
  disabled_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  limits tollgate.limits,
  counters tollgate.counters,
  allowed_models text[],
  budget_nanos bigint check (budget_nanos >= 0),
  budget_reset text check (budget_reset in ('daily', 'weekly', 'monthly', 'never')),
  budget_period date,
  budget_spent_nanos bigint not null default 0,
  tokens_per_month bigint check (tokens_per_month >= 0),
  tokens_in_all bigint check (tokens_in_all >= 0),
  month_of_tokens date,
  tokens_used_in_month bigint not null default 0,
  tokens_used_in_all bigint not null default 0,
  counted boolean not null generated always as (
    budget_nanos is not null or tokens_per_month is not null or tokens_in_all is not null or not limits is null
  ) stored,
  metadata jsonb not null default '{}',
  rotated_from text,
  rotated_to text,
  line text,
  max_concurrent_requests bigint,
  open_requests bigint not null default 0,
  foreign key (user_id, org_id) references tollgate.users (id, org_id) on update cascade
);

create index api_keys_user_id on tollgate.api_keys (user_id, org_id);
create index api_keys_org_id on tollgate.api_keys (org_id);
create index api_keys_line on tollgate.api_keys (line) where line is not null;

comment on table tollgate.api_keys is 'Keys, never their secrets: a digest to find them by, a prefix and four characters to show.';
comment on column tollgate.api_keys.pepper is 'Fingerprint of the pepper of this digest: tells which keys still hang on an old one.';
comment on column tollgate.api_keys.ip_allowlist is 'Networks the key may be used from; null is anywhere.';
comment on column tollgate.api_keys.limits is 'The key''s own limits, within the org''s; null is none.';
comment on column tollgate.api_keys.allowed_models is 'Patterns (* stands for anything) of the models the key may use; null is all.';
comment on column tollgate.api_keys.budget_spent_nanos is 'Charges and open holds since budget_period began.';
comment on column tollgate.api_keys.counted is 'Whether the key has limits, a budget or a quota of its own. The row of any other is left alone by requests.';
comment on column tollgate.api_keys.metadata is 'The owner''s own notes: a small flat object.';
comment on column tollgate.api_keys.rotated_from is 'The key whose place this one took.';
comment on column tollgate.api_keys.rotated_to is 'The key that took its place; this one ends at expires_at.';
comment on column tollgate.api_keys.line is 'The first key of all that took each other''s place; null if none did.';
comment on column tollgate.api_keys.max_concurrent_requests is 'How many requests the key, and those it took the place of, may have open at once; null is no bound of its own.';
comment on column tollgate.api_keys.open_requests is 'Open requests of the key and of those it took the place of; 0 while the key has no bound.';

alter table tollgate.api_keys enable row level security;


create type tollgate.visit as (
  actor tollgate.caller,
  key tollgate.api_keys,
  refusal jsonb -- null when the caller may come in
);

comment on type tollgate.visit is 'A caller at the gate: recognised, or refused.';
