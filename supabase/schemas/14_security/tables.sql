create table tollgate.security_events (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind text not null check (kind in (
    'key_created', 'key_rotated', 'key_revoked', 'authentication_failed', 'limit_exceeded', 'ip_refused',
    'org_overdrawn', 'org_paid_suspended', 'usage_quarantined', 'many_networks', 'usage_spike', 'many_failures'
  )),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  subject_kind text not null check (subject_kind in ('org', 'key', 'address')),
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

comment on table tollgate.security_events is 'What an operator should look at: one row for a kind and a subject until it is acknowledged, counting how often and when it was seen.';
comment on column tollgate.security_events.subject is 'An org''s or key''s id, or an address: `unknown` where nothing names one, `others` for those beyond the ten thousandth.';
comment on column tollgate.security_events.count_in_hour is 'How often within the hour (UTC) in which it was last seen.';

alter table tollgate.security_events enable row level security;


create table tollgate.key_networks (
  key_id text not null,
  network cidr not null,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  primary key (key_id, network)
);

comment on table tollgate.key_networks is 'From where keys were used: at most 200 networks of a key, /24 or /48, for 30 days. last_seen_at moves once an hour.';

alter table tollgate.key_networks enable row level security;


create table tollgate.lookout (
  one boolean primary key default true check (one),
  looked_at timestamptz not null default '-infinity',
  quarantined_until timestamptz not null default now() - interval '30 days'
);

comment on table tollgate.lookout is 'How far patterns were looked for: one row, locked by whoever looks.';
comment on column tollgate.lookout.quarantined_until is 'Requests that were quarantined before have their event.';

alter table tollgate.lookout enable row level security;

insert into tollgate.lookout default values;
