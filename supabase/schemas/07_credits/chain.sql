-- The hash chain of each org's transfers.

create function tollgate.chain_after(head bytea, t tollgate.transfers) returns bytea
language plpgsql
immutable
set search_path = ''
as $$
begin
  return sha256(coalesce(head, '') || convert_to(row(
    t.position, t.org_id, t.debit, t.credit, t.amount_nanos, t.kind, t.reference, t.reason,
    t.balance_after_nanos, extract(epoch from t.created_at)
  )::text, 'UTF8'));
end
$$;

comment on function tollgate.chain_after(bytea, tollgate.transfers) is
  'The chain of a transfer: the hash of the chain of its org''s previous transfer and of the transfer as a row of Postgres. Its time is in seconds since the epoch, so that no setting of a session changes the text.';


create function tollgate.link_transfer() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  head bytea;
begin
  select t.chain into head from tollgate.transfers t where t.org_id = new.org_id order by t.position desc limit 1;
  new.chain := tollgate.chain_after(head, new);
  update tollgate.orgs o set chain_head = new.chain where o.id = new.org_id;
  return new;
end
$$;

comment on function tollgate.link_transfer() is
  'Trigger of the ledger: links a transfer to the previous one of its org. Relies on the org''s lock, which every writer of transfers holds.';

-- tollgate_settle() links its transfers itself: it has read the orgs'' heads and writes the orgs anyway.
create trigger transfers_linked
before insert on tollgate.transfers
for each row when (new.chain is null) execute function tollgate.link_transfer();
