-- Why:  whoever can write to the tables past their triggers can change a transfer and everything that is computed from it.
-- What: transfer_links: for each transfer a hash over it and over the link before it in its org, written by a trigger;
--       chain_starts: from where on rows must have links.
-- Care: makes a trigger on tollgate.transfers, for which it waits until no settlement runs: a moment. A ledger of up to
--       20,000 rows is linked here, in about a second; a larger one is linked from now on. Additive.

set lock_timeout = '1s';

create table tollgate.chain_starts (
  chain text primary key check (chain in ('transfers', 'audit_events')),
  position bigint not null,
  started_at timestamptz not null
);

comment on table tollgate.chain_starts is 'Where a chain begins: transfers up to position, and audit events before started_at, may have no link. They were there before the chain.';

alter table tollgate.chain_starts enable row level security;

create trigger chain_starts_append_only
before update or delete or truncate on tollgate.chain_starts
for each statement execute function tollgate.forbid_change();


create table tollgate.transfer_links (
  org_id text not null,
  position bigint not null,
  chain bytea not null,
  primary key (org_id, position)
);

comment on table tollgate.transfer_links is 'The hash chain of each org''s transfers: chain is sha256(chain of the org''s previous transfer || the transfer as text). In a table of its own, since tollgate_settle() makes rows of the type of tollgate.transfers, to which no column can be added while it runs. No foreign key: it is written on the path of every request.';

alter table tollgate.transfer_links enable row level security;

create trigger transfer_links_append_only
before update or delete or truncate on tollgate.transfer_links
for each statement execute function tollgate.forbid_change();


create function tollgate.link_transfer() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.transfer_links (org_id, position, chain)
  values (new.org_id, new.position, sha256(
    coalesce((
      select l.chain from tollgate.transfer_links l where l.org_id = new.org_id order by l.position desc limit 1
    ), '') || convert_to(row(
      new.position, new.org_id, new.debit, new.credit, new.amount_nanos, new.kind, new.reference, new.reason,
      new.balance_after_nanos, extract(epoch from new.created_at)
    )::text, 'UTF8')
  ));
  return new;
end
$$;

comment on function tollgate.link_transfer() is
  'Trigger of the ledger: links each transfer to the one before it in its org. Relies on the org''s lock, which every writer of transfers holds. The text is that of tollgate.text_of(transfer), written out here because a call would double the cost.';


create function tollgate.text_of(t tollgate.transfers) returns bytea
language sql
stable -- by the type of domains only; what it gives never changes
set search_path = ''
as $$
  select convert_to(row(
    t.position, t.org_id, t.debit, t.credit, t.amount_nanos, t.kind, t.reference, t.reason,
    t.balance_after_nanos, extract(epoch from t.created_at)
  )::text, 'UTF8')
$$;

comment on function tollgate.text_of(tollgate.transfers) is
  'What is hashed of a transfer: all its columns as a row of Postgres, the time in seconds since the epoch, so that no setting of a session changes it.';


create trigger transfers_linked
before insert on tollgate.transfers
for each row execute function tollgate.link_transfer();

do $$
declare
  t tollgate.transfers;
  payer text;
  link bytea;
begin
  if (select count(*) from (select from tollgate.transfers limit 20001) few) > 20000 then
    insert into tollgate.chain_starts
    select 'transfers', max(l.position), clock_timestamp() from tollgate.transfers l;
    return;
  end if;
  insert into tollgate.chain_starts values ('transfers', 0, clock_timestamp());
  for t in select l.* from tollgate.transfers l order by l.org_id, l.position loop
    link := sha256(case when t.org_id = payer then link else '' end || tollgate.text_of(t));
    payer := t.org_id;
    insert into tollgate.transfer_links values (t.org_id, t.position, link);
  end loop;
end
$$;


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000200'
$$;

revoke execute on all functions in schema tollgate from public;
