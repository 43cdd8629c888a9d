-- The hash chain of the audit events.

create function tollgate.event_text(e tollgate.audit_events) returns bytea
language sql
stable
set search_path = ''
as $$
  select convert_to(row(
    e.id, extract(epoch from e.occurred_at), e.actor_kind, e.actor_key_id, e.actor_user_id, e.actor_name, e.org_id, e.action,
    e.target_id, e.outcome, e.ip, e.user_agent, e.request_id, e.details
  )::text, 'UTF8')
$$;

comment on function tollgate.event_text(tollgate.audit_events) is
  'The bytes of an audit event that are hashed: all its columns as the text of a row, the time in seconds since the epoch.';


create function tollgate.link_event() returns trigger
language plpgsql
security definer -- it runs at commit, when no other security definer function is running
set search_path = ''
as $$
declare
  last tollgate.event_links;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_event_chain', 0));
  select l.* into last from tollgate.event_links l order by l.position desc limit 1;
  insert into tollgate.event_links (position, event_id, chain)
  values (coalesce(last.position, 0) + 1, new.id, sha256(coalesce(last.chain, '') || tollgate.event_text(new)));
  return null;
end
$$;

comment on function tollgate.link_event() is
  'Trigger of the audit trail, deferred to the commit: links each event to the previous one. Locks the chain, always as the last lock of a transaction, so that it cannot deadlock.';

create constraint trigger audit_events_linked
after insert on tollgate.audit_events
deferrable initially deferred
for each row execute function tollgate.link_event();
