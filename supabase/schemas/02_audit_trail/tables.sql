create type tollgate.caller as (
  kind text, -- key | session | console | system
  key_id text,
  user_id text,
  org_id text,
  role text,
  environment text,
  scopes text[],
  name text, -- the console command or the part of the system, when no key acts
  ip inet,
  user_agent text,
  request_id text,
  session_id text,
  signed_in_at timestamptz
);

comment on type tollgate.caller is 'Who makes a call: a recognised key or session, an operator at the command line, or Tollgate itself.';


create table tollgate.audit_events (
  id text primary key default tollgate.new_id('evt'),
  occurred_at timestamptz not null default clock_timestamp(),
  actor_kind text not null check (actor_kind in ('key', 'session', 'console', 'system')),
  actor_key_id text,
  actor_user_id text,
  actor_name text,
  org_id text,
  action text not null check (action ~ '^[a-z_]+\.[a-z_]+$'),
  target_id text not null,
  outcome text not null check (outcome in ('success', 'refused')),
  ip inet,
  user_agent text,
  request_id text,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object')
);

create index audit_events_time on tollgate.audit_events (occurred_at desc, id desc);
create index audit_events_org on tollgate.audit_events (org_id, occurred_at desc, id desc);
create index audit_events_target on tollgate.audit_events (target_id, occurred_at desc, id desc);

comment on table tollgate.audit_events is 'Who did what to which thing, from where. Append-only.';
comment on column tollgate.audit_events.org_id is 'The org that the target belongs to.';

alter table tollgate.audit_events enable row level security;

create trigger audit_events_append_only
before update or delete or truncate on tollgate.audit_events
for each statement execute function tollgate.forbid_change();


create table tollgate.chain_starts (
  chain text primary key check (chain in ('transfers', 'audit_events')),
  position bigint not null,
  started_at timestamptz not null
);

comment on table tollgate.chain_starts is 'Where a chain begins: transfers up to position, and audit events before started_at, are older than the chain and may have no link.';

alter table tollgate.chain_starts enable row level security;

create trigger chain_starts_append_only
before update or delete or truncate on tollgate.chain_starts
for each statement execute function tollgate.forbid_change();

insert into tollgate.chain_starts (chain, position, started_at) values
  ('transfers', 0, clock_timestamp()),
  ('audit_events', 0, '-infinity');


create table tollgate.event_links (
  position bigint primary key,
  event_id text not null unique,
  chain bytea not null
);

comment on table tollgate.event_links is 'The hash chain of the audit trail: chain is sha256(chain of the previous link || the event as text); positions have no gaps. A table of its own, because an event is linked when its transaction commits, and rows of audit_events never change.';

alter table tollgate.event_links enable row level security;

create trigger event_links_append_only
before update or delete or truncate on tollgate.event_links
for each statement execute function tollgate.forbid_change();
