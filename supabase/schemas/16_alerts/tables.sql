-- Rules, the alerts that they raise, silences, and what processes observed.

create domain tollgate.rule_id as text check (value is not null and value ~ '^[a-z][a-z0-9_-]{0,62}$');
create domain tollgate.signal as text check (value is not null and value ~ '^[a-z][a-z0-9_]{0,62}$');
create domain tollgate.comparison as text check (value is not null and value in ('at_least', 'below'));
create domain tollgate.threshold as numeric check (value is not null and abs(value) < 1e18);
create domain tollgate.clear_threshold as numeric check (abs(value) < 1e18);
create domain tollgate.rule_seconds as integer check (value is not null and value between 0 and 604800);

create table tollgate.alert_rules (
  id tollgate.rule_id primary key,
  signal tollgate.signal not null,
  comparison tollgate.comparison not null,
  threshold tollgate.threshold not null,
  clear_threshold tollgate.clear_threshold,
  for_seconds tollgate.rule_seconds not null default 0,
  clear_seconds tollgate.rule_seconds not null default 0,
  severity tollgate.severity not null default 'warning',
  subjects tollgate.matched,
  state tollgate.enabled_state not null default 'active',
  description tollgate.description not null default '',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.alert_rules is 'A signal with a threshold: which readings raise an alert.';
comment on column tollgate.alert_rules.clear_threshold is 'A firing alert clears once the reading is on the other side of this; null is the threshold.';
comment on column tollgate.alert_rules.for_seconds is 'How long readings are beyond the threshold before the alert fires.';
comment on column tollgate.alert_rules.clear_seconds is 'How long they are clear before it is resolved.';
comment on column tollgate.alert_rules.subjects is 'Only readings of these subjects; null is all.';

alter table tollgate.alert_rules enable row level security;


create table tollgate.alerts (
  id text primary key default tollgate.new_id('alt') check (id ~ '^alt_[a-z0-9]{1,64}$'),
  rule_id text not null references tollgate.alert_rules (id) on delete cascade,
  subject text not null check (length(subject) between 1 and 300),
  org_id text,
  severity tollgate.severity not null,
  state text not null check (state in ('pending', 'firing', 'resolved')),
  value numeric not null,
  pending_at timestamptz not null,
  firing_at timestamptz,
  clear_since timestamptz,
  resolved_at timestamptz,
  told_at timestamptz,
  incident_id text,
  acknowledged_at timestamptz,
  acknowledged_by text,
  note text check (length(note) <= 1000)
);

create unique index alerts_open on tollgate.alerts (rule_id, subject) where state <> 'resolved';
create index alerts_age on tollgate.alerts (pending_at, id);

comment on table tollgate.alerts is 'The state of a rule for a subject. A rule is ok for a subject without an open alert. A pending alert whose reading clears is deleted; resolved ones are kept for 90 days.';
comment on column tollgate.alerts.org_id is 'The org that the subject is, or belongs to.';
comment on column tollgate.alerts.value is 'The last reading.';
comment on column tollgate.alerts.told_at is 'When operators'' channels were told that it fires; null while a silence matches.';
comment on column tollgate.alerts.incident_id is 'Shared by the alerts that began to fire in one round.';

alter table tollgate.alerts enable row level security;


create table tollgate.alert_changes (
  position bigint generated always as identity primary key,
  alert_id text not null references tollgate.alerts (id) on delete cascade,
  state text not null,
  value numeric not null,
  at timestamptz not null
);

create index alert_changes_alert on tollgate.alert_changes (alert_id, position);

comment on table tollgate.alert_changes is 'The history of alerts: each change of a state once.';

alter table tollgate.alert_changes enable row level security;


create table tollgate.silences (
  id text primary key default tollgate.new_id('sil') check (id ~ '^sil_[a-z0-9]{1,64}$'),
  reason text not null check (length(reason) between 1 and 1000),
  rules tollgate.matched,
  subjects tollgate.matched,
  org_ids tollgate.matched,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  created_by text,
  created_at timestamptz not null default now(),
  check (starts_at < ends_at)
);

create index silences_ends_at on tollgate.silences (ends_at, id);

comment on table tollgate.silences is 'Times in which matching alerts are not told to operators. A maintenance window is one that starts later. Null matches all.';

alter table tollgate.silences enable row level security;


create table tollgate.readings (
  process text not null check (length(process) between 1 and 100),
  signal text not null,
  subject text not null check (length(subject) between 1 and 300),
  value numeric not null,
  at timestamptz not null,
  primary key (process, signal, subject)
);

comment on table tollgate.readings is 'Readings that only a process knows, the last of each process; and those that the database takes every five minutes, of the process `database`.';

alter table tollgate.readings enable row level security;


create table tollgate.alert_scan (
  single boolean primary key default true check (single),
  scanned_at timestamptz not null default '-infinity',
  slow_at timestamptz not null default '-infinity'
);

comment on table tollgate.alert_scan is 'When rules were last evaluated, and when the slow readings were taken: one row, which the evaluating transaction locks.';

alter table tollgate.alert_scan enable row level security;

insert into tollgate.alert_scan default values;


create type tollgate.reading as (signal text, subject text, value numeric);

comment on type tollgate.reading is 'The value of a signal for a subject at a moment.';
