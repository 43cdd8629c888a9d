create table tollgate.security_events (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind text not null check (kind in (
    'key_created', 'key_rotated', 'key_revoked', 'authentication_failed', 'limit_exceeded', 'ip_refused',
    'org_overdrawn', 'org_paid_suspended', 'usage_quarantined', 'many_networks', 'usage_spike', 'many_failures'
  )),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  subject_kind text not null check (subject_kind in ('org', 'key', 'user', 'address')),
  subject text not null check (length(subject) between 1 and 140),
  org_id text,
  key_id text,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  count bigint not null check (count > 0),
  hour timestamptz not null,
  count_in_hour bigint not null,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
  acknowledged_at timestamptz,
  acknowledged_by text,
  note text check (length(note) <= 1000),
  check ((acknowledged_at is null) = (acknowledged_by is null))
);

create unique index security_events_open on tollgate.security_events (kind, subject_kind, subject)
  where acknowledged_at is null;
create index security_events_subject on tollgate.security_events (subject, kind);
create index security_events_age on tollgate.security_events (last_seen_at, id);

comment on table tollgate.security_events is 'What an operator should look at: one row for a kind and a subject until it is acknowledged, with how often and when it happened.';
comment on column tollgate.security_events.subject is 'The id of an org, key or user, or an address: `unknown` where there is none, `others` for those beyond the first ten thousand.';
comment on column tollgate.security_events.count_in_hour is 'How often it happened within the hour (UTC) of last_seen_at.';

alter table tollgate.security_events enable row level security;


create table tollgate.key_networks (
  key_id text not null,
  network cidr not null,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  primary key (key_id, network)
);

comment on table tollgate.key_networks is 'The networks from which keys were used: at most 200 of a key, /24 or /48, for 30 days. last_seen_at changes at most once an hour.';

alter table tollgate.key_networks enable row level security;


create table tollgate.pattern_scan (
  one boolean primary key default true check (one),
  scanned_at timestamptz not null default '-infinity',
  quarantined_until timestamptz not null default now() - interval '30 days'
);

comment on table tollgate.pattern_scan is 'How far patterns were looked for: one row, which the writer locks.';
comment on column tollgate.pattern_scan.quarantined_until is 'Requests that were quarantined before it have raised their event.';

alter table tollgate.pattern_scan enable row level security;

insert into tollgate.pattern_scan default values;


create table tollgate.refused_calls (
  id text primary key default tollgate.new_id('ref'),
  hour timestamptz not null,
  org_id text not null,
  user_id text not null,
  key_id text not null,
  model text not null,
  code text not null,
  count bigint not null check (count > 0),
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  request_id text,
  facts jsonb not null default '{}' check (jsonb_typeof(facts) = 'object'),
  unique (org_id, hour, key_id, code, model)
);

create index refused_calls_age on tollgate.refused_calls (hour, id);
create index refused_calls_seen on tollgate.refused_calls (last_seen_at);

comment on table tollgate.refused_calls is 'Paid calls refused with 402, 403 or 429, by hour, key, model and code, for 30 days. request_id and facts are those of the last.';
comment on column tollgate.refused_calls.key_id is 'Empty, like user_id and model, for those beyond a hundred rows of an org in an hour.';

alter table tollgate.refused_calls enable row level security;


create table tollgate.spreads (
  kind text not null check (kind in (
    'missing_ids', 'models_read', 'reused_keys', 'repeated_from', 'failed_addresses', 'failed_credentials'
  )),
  subject text not null check (length(subject) between 1 and 140),
  hour timestamptz not null,
  about text not null default '',
  org_id text not null default '',
  times bigint not null check (times > 0),
  marks bit(512) not null,
  last_seen_at timestamptz not null,
  primary key (kind, subject, hour, about)
);

create index spreads_hour on tollgate.spreads (hour, kind, org_id);

comment on table tollgate.spreads is 'How often a key or an address did something in an hour (UTC), and with how many different things: for 8 days. An org has at most a hundred rows of a kind in an hour; those without an org, a thousand together.';
comment on column tollgate.spreads.subject is 'The id of a key, an address, or `installation`: for failed_addresses and failed_credentials, which count only failures of a new address with a new key or email.';
comment on column tollgate.spreads.about is 'Of repeated_from, the request that was repeated; else empty.';
comment on column tollgate.spreads.marks is 'Each different thing sets one of the bits, by its keyed hash; tollgate.different() estimates how many there were.';

alter table tollgate.spreads enable row level security;
