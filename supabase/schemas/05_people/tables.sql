-- Domains check single columns in the tables that requests write (orgs, keys, transfers, requests). Postgres parses a
-- table's checks again for every statement that writes to it, whichever columns it writes. A domain is parsed once per
-- connection, and checked only where its column is written. A domain also tells with_fields() which field is wrong.
create domain tollgate.org_id as text check (value ~ '^org_[a-z0-9]{1,64}$');
create domain tollgate.name as text check (value is not null and length(value) between 1 and 200);
create domain tollgate.org_status as text check (value in ('active', 'suspended'));
create domain tollgate.markup_ppm as integer check (value between 0 and 100000000);
create domain tollgate.not_negative as bigint check (value >= 0);
create domain tollgate.model_patterns as text[] check (
  cardinality(value) <= 100 and tollgate.all_match(value, '^[!-~]{1,200}$')
);
create domain tollgate.model_name as text check (length(value) between 1 and 256 and value ~ '^[[:graph:]]+$');

create table tollgate.plans (
  id text primary key check (id ~ '^[a-z][a-z0-9_-]{0,62}$'),
  name tollgate.name not null,
  description text not null default '',
  markup_ppm tollgate.markup_ppm,
  requests_per_minute tollgate.limit,
  requests_per_hour tollgate.limit,
  requests_per_day tollgate.limit,
  tokens_per_minute tollgate.limit,
  tokens_per_hour tollgate.limit,
  tokens_per_day tollgate.limit,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  max_concurrent_requests tollgate.limit,
  byok_fee_nanos tollgate.not_negative
);

comment on table tollgate.plans is 'Named sets of limits and a markup. A null limit is no limit; a null markup is the setting MARKUP.';
comment on column tollgate.plans.markup_ppm is 'Markup in parts per million of the cost: 50000 is 5 %.';
comment on column tollgate.plans.max_concurrent_requests is 'How many requests an org on the plan may have open at once; null is no bound.';
comment on column tollgate.plans.byok_fee_nanos is 'What a request with the org''s own upstream key costs; null is the setting BYOK_FEE.';

alter table tollgate.plans enable row level security;

insert into tollgate.plans (
  id, name, description,
  requests_per_minute, requests_per_hour, requests_per_day,
  tokens_per_minute, tokens_per_hour, tokens_per_day
) values
  ('free', 'Free', 'To try it out.', 20, 200, 1000, 40000, 400000, 2000000),
  ('pro', 'Pro', 'For a product and its team.', 600, 20000, 200000, 2000000, 40000000, 400000000),
  ('enterprise', 'Enterprise', 'No limits but the balance.', null, null, null, null, null, null);


create table tollgate.orgs (
  id tollgate.org_id primary key default tollgate.new_id('org'),
  name tollgate.name not null,
  plan_id text not null default 'free' references tollgate.plans (id),
  status tollgate.org_status not null default 'active',
  markup_ppm tollgate.markup_ppm,
  balance_nanos bigint not null default 0,
  held_nanos tollgate.not_negative not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  limits tollgate.limits,
  counters tollgate.counters,
  limits_set tollgate.limits,
  max_concurrent_requests tollgate.limit,
  open_requests bigint not null default 0,
  quarantined_at timestamptz,
  paid_suspended_at timestamptz,
  paid_suspended_reason text,
  chain_head bytea,
  byok_fee_nanos tollgate.not_negative,
  allowed_models tollgate.model_patterns,
  default_model tollgate.model_name,
  cache boolean
) with (fillfactor = 50); -- rewritten with every batch of requests, so its pages keep room for the next version

create index orgs_plan_id on tollgate.orgs (plan_id);
create index orgs_age on tollgate.orgs (created_at, id); -- requests change neither, so they write no index

comment on table tollgate.orgs is 'Who pays. balance_nanos always equals the sum of the org''s transfers, held_nanos the sum of its open holds; available = balance − held.';
comment on column tollgate.orgs.markup_ppm is 'The org''s own markup in parts per million; null follows the plan.';
comment on column tollgate.orgs.limits is 'The limits in force: limits_set, and the plan''s for those that are not set; null when none is set.';
comment on column tollgate.orgs.limits_set is 'The limits that an operator set. A null in it follows the plan; null is none set.';
comment on column tollgate.orgs.max_concurrent_requests is 'The org''s own bound of open requests; null follows the plan.';
comment on column tollgate.orgs.open_requests is 'Requests whose hold has not ended, held and unsettled ones: as many as the org has rows in tollgate.holds.';
comment on column tollgate.orgs.quarantined_at is 'When a request of the org was last settled as quarantined; null again once an operator resumes paid calls.';
comment on column tollgate.orgs.paid_suspended_at is 'Since when paid calls are refused; null while they are served. Other calls are served all the same.';
comment on column tollgate.orgs.paid_suspended_reason is 'quarantined_usage, or operator; null while paid calls are served.';
comment on column tollgate.orgs.chain_head is 'The chain of the org''s last transfer.';
comment on column tollgate.orgs.byok_fee_nanos is 'What a request with the org''s own upstream key costs; null follows the plan.';
comment on column tollgate.orgs.allowed_models is 'Patterns of the models that the org may use, in which * matches anything; null is all. A key''s own list narrows it.';
comment on column tollgate.orgs.default_model is 'The model or alias of calls that name none; null is the setting DEFAULT_MODEL.';
comment on column tollgate.orgs.cache is 'Whether requests that do not say so themselves use the cache; null is no.';

alter table tollgate.orgs enable row level security;


create table tollgate.users (
  id text primary key default tollgate.new_id('usr') check (id ~ '^usr_[a-z0-9]{1,64}$'),
  org_id text not null references tollgate.orgs (id),
  email text not null check (length(email) between 3 and 320 and email like '%_@_%'),
  name text not null default '' check (length(name) <= 200),
  role text not null default 'member' check (role in ('member', 'admin')),
  status text not null default 'active' check (status in ('active', 'disabled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  limits tollgate.limits,
  limits_set tollgate.limits,
  counters tollgate.counters,
  unique (id, org_id) -- lets a key point at its user and its org at once
);

create unique index users_email on tollgate.users (lower(email));
create index users_org_id on tollgate.users (org_id);
create index users_age on tollgate.users (created_at, id);

comment on table tollgate.users is 'People. Each belongs to one org; an admin operates the whole installation.';
comment on column tollgate.users.deleted_at is 'When the user was deleted. The row stays as long as the org, disabled and without name or address, because keys and requests refer to it.';
comment on column tollgate.users.limits is 'The limits in force: limits_set, and those of the role for what it does not set; null when there are none. Requests do not write the rows of other users.';
comment on column tollgate.users.limits_set is 'The limits that an operator set. A null in it follows the role.';

alter table tollgate.users enable row level security;


create table tollgate.role_limits (
  role text primary key check (role in ('member', 'admin')),
  limits tollgate.limits not null
);

comment on table tollgate.role_limits is 'The limits of each user of a role, unless the user''s own say otherwise.';

alter table tollgate.role_limits enable row level security;
