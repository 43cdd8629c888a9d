-- Why:  an audit event that can be removed without a trace proves nothing.
-- What: event_links: one hash chain over all audit events, in the order in which their transactions commit.
-- Care: makes a trigger on tollgate.audit_events, for which it waits until nobody writes there: a moment. A trail of up to
--       20,000 events is linked here, a longer one from now on. Additive. From now on transactions that write audit
--       events commit one after the other.

set lock_timeout = '1s';

create table tollgate.event_links (
  position bigint primary key,
  event_id text not null unique,
  chain bytea not null
);

comment on table tollgate.event_links is 'The hash chain of the audit trail: chain is sha256(chain of the previous link || the event as text); positions have no gaps. In a table of its own, since an event is linked when its transaction commits and never changed after it was written.';

alter table tollgate.event_links enable row level security;

create trigger event_links_append_only
before update or delete or truncate on tollgate.event_links
for each statement execute function tollgate.forbid_change();


create function tollgate.text_of(e tollgate.audit_events) returns bytea
language sql
stable
set search_path = ''
as $$
  select convert_to(row(
    e.id, extract(epoch from e.occurred_at), e.actor_kind, e.actor_key_id, e.actor_user_id, e.actor_name, e.org_id, e.action,
    e.target_id, e.outcome, e.ip, e.user_agent, e.request_id, e.details
  )::text, 'UTF8')
$$;

comment on function tollgate.text_of(tollgate.audit_events) is
  'What is hashed of an audit event: all its columns as a row of Postgres, the time in seconds since the epoch.';


create function tollgate.link_event() returns trigger
language plpgsql
security definer -- when a transaction commits, no function that may write here is running any more
set search_path = ''
as $$
declare
  last tollgate.event_links;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_event_chain', 0));
  select l.* into last from tollgate.event_links l order by l.position desc limit 1;
  insert into tollgate.event_links (position, event_id, chain)
  values (coalesce(last.position, 0) + 1, new.id, sha256(coalesce(last.chain, '') || tollgate.text_of(new)));
  return null;
end
$$;

comment on function tollgate.link_event() is
  'Trigger of the audit trail, deferred to the commit: links each event to the one before. Locks the chain, always as the last lock of a transaction, so nobody who holds it waits for anybody.';

create constraint trigger audit_events_linked
after insert on tollgate.audit_events
deferrable initially deferred
for each row execute function tollgate.link_event();

do $$
declare
  e tollgate.audit_events;
  link bytea := '';
  place bigint := 0;
begin
  if (select count(*) from (select from tollgate.audit_events limit 20001) few) > 20000 then
    insert into tollgate.chain_starts values ('audit_events', 0, clock_timestamp());
    return;
  end if;
  insert into tollgate.chain_starts values ('audit_events', 0, '-infinity');
  for e in select a.* from tollgate.audit_events a order by a.occurred_at, a.id loop
    link := sha256(link || tollgate.text_of(e));
    place := place + 1;
    insert into tollgate.event_links values (place, e.id, link);
  end loop;
end
$$;


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000210'
$$;

revoke execute on all functions in schema tollgate from public;
