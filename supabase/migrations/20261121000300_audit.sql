-- Why:  every change to who may do what must be traceable, and the trace must be as certain as the change.
-- What: append-only audit_events, the type `caller` that says who acts, and record(), which other functions
--       call in the transaction of the change.
-- Care: additive. No foreign keys: history outlives what it speaks of. Details never hold a secret.

create type tollgate.caller as (
  kind text, -- key | console | system
  key_id text,
  user_id text,
  org_id text,
  role text,
  environment text,
  scopes text[],
  name text, -- the console command or the part of the system, when no key acts
  ip inet,
  user_agent text,
  request_id text
);

comment on type tollgate.caller is 'Who acts in a call: a recognised key, an operator at the console, or Tollgate itself.';


create table tollgate.audit_events (
  id text primary key default tollgate.new_id('evt'),
  occurred_at timestamptz not null default clock_timestamp(),
  actor_kind text not null check (actor_kind in ('key', 'console', 'system')),
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


create function tollgate.record(
  actor tollgate.caller,
  action text,
  org_id text,
  target_id text,
  details jsonb default '{}'
) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.audit_events (
    actor_kind, actor_key_id, actor_user_id, actor_name,
    org_id, action, target_id, outcome, ip, user_agent, request_id, details
  ) values (
    actor.kind, actor.key_id, actor.user_id, actor.name,
    org_id, action, target_id, 'success', actor.ip, actor.user_agent, actor.request_id, details
  )
$$;

comment on function tollgate.record(tollgate.caller, text, text, text, jsonb) is
  'Writes the audit event of a change, in the transaction of the change. Locks nothing.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000300'
$$;

revoke execute on all functions in schema tollgate from public;
