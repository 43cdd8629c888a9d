-- Channels, where alerts and events are told, and what was told.

create domain tollgate.channel_kind as text check (value is not null and value in ('webhook', 'slack', 'pagerduty', 'email'));
create domain tollgate.channel_address as text check (value is not null and length(value) <= 2000 and value ~ '^[!-~]+$');
create domain tollgate.severity as text check (value is not null and value in ('info', 'warning', 'critical'));
create domain tollgate.channel_settings as jsonb check (
  value is not null and jsonb_typeof(value) = 'object' and length(value::text) <= 8192
);
create domain tollgate.matched as text[] check (cardinality(value) <= 100 and tollgate.all_match(value, '^[!-~]{1,200}$'));

create table tollgate.channels (
  id text primary key check (id ~ '^chn_[a-z0-9]{1,64}$'),
  org_id text references tollgate.orgs (id) on delete cascade,
  kind tollgate.channel_kind not null,
  name tollgate.name not null,
  address tollgate.channel_address not null,
  settings tollgate.channel_settings not null default '{}',
  severity tollgate.severity not null default 'info',
  rules tollgate.matched,
  org_ids tollgate.matched,
  events tollgate.matched,
  state tollgate.enabled_state not null default 'active',
  failures integer not null default 0,
  failed_at timestamptz,
  last_error text check (length(last_error) <= 500),
  told_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index channels_org_id on tollgate.channels (org_id, created_at);

comment on table tollgate.channels is 'Where alerts and events are told. Its secret is in tollgate.secrets, of the kind channel, so that it is encrypted again with the others.';
comment on column tollgate.channels.org_id is 'Whose events are told; null is an operator''s channel, which is told of alerts.';
comment on column tollgate.channels.address is 'A URL; of Slack without its secret path; of email, host and port of the mail server.';
comment on column tollgate.channels.severity is 'The least severity that is told.';
comment on column tollgate.channels.rules is 'Only alerts of these rules; null is all.';
comment on column tollgate.channels.org_ids is 'Only alerts about these orgs; null is all alerts.';
comment on column tollgate.channels.events is 'Of an org''s channel, only these events; null is all.';
comment on column tollgate.channels.failures is 'How many attempts have failed since one succeeded.';

alter table tollgate.channels enable row level security;


create table tollgate.deliveries (
  id text primary key default tollgate.new_id('dlv'),
  channel_id text not null references tollgate.channels (id) on delete cascade,
  event text not null check (length(event) <= 100),
  content jsonb not null,
  state text not null default 'waiting' check (state in ('waiting', 'sent', 'failed')),
  tries integer not null default 0,
  attempts jsonb not null default '[]',
  due_at timestamptz not null default clock_timestamp(),
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz
);

create index deliveries_due on tollgate.deliveries (due_at) where state = 'waiting';
create index deliveries_channel on tollgate.deliveries (channel_id, created_at desc, id desc);
create index deliveries_age on tollgate.deliveries (created_at, id);

comment on table tollgate.deliveries is 'What is told over a channel: one row for each telling, kept for 30 days. Written in the transaction that finds what is told, so that it is told once however many instances look.';
comment on column tollgate.deliveries.attempts is 'The last ten attempts: at, status, error, answer, took_ms.';
comment on column tollgate.deliveries.due_at is 'When it is sent next. A sender moves it ahead while it sends, so that no other sends it too.';

alter table tollgate.deliveries enable row level security;
