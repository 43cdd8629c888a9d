-- The hash chain of each org's transfers.

create function tollgate.transfer_text(t tollgate.transfers) returns bytea
language sql
stable -- by the type of domains only; what it gives never changes
set search_path = ''
as $$
  select convert_to(row(
    t.position, t.org_id, t.debit, t.credit, t.amount_nanos, t.kind, t.reference, t.reason,
    t.balance_after_nanos, extract(epoch from t.created_at)
  )::text, 'UTF8')
$$;

comment on function tollgate.transfer_text(tollgate.transfers) is
  'What is hashed of a transfer: all its columns as a row of Postgres, the time in seconds since the epoch, so that no setting of a session changes it.';


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
  'Trigger of the ledger: links each transfer to the one before it in its org. Relies on the org''s lock, which every writer of transfers holds. The text is that of tollgate.transfer_text(transfer), written out here because a call would double the cost.';

create trigger transfers_linked
before insert on tollgate.transfers
for each row execute function tollgate.link_transfer();
