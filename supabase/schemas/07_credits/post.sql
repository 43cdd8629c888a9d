-- Writes the ledger. No other function inserts transfers.

create function tollgate.post(drafts tollgate.transfers[]) returns setof tollgate.transfers
language sql
set search_path = ''
as $$
  insert into tollgate.transfers (
    org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos, created_at
  )
  select
    d.org_id, d.debit, d.credit, d.amount_nanos, d.kind, d.reference, coalesce(d.reason, ''), d.balance_after_nanos,
    coalesce(d.created_at, clock_timestamp())
  from unnest(drafts) with ordinality d
  order by d.ordinality -- the order of the running balances, in which positions are drawn
  returning *
$$;

comment on function tollgate.post(tollgate.transfers[]) is
  'Inserts transfers whose running balances are known, in their order; the caller writes the balances of their orgs. Expects the orgs to be locked.';


create function tollgate.move(draft tollgate.transfers) returns tollgate.transfers
language plpgsql
set search_path = ''
as $$
declare
  posted tollgate.transfers;
begin
  update tollgate.orgs o set
    balance_nanos = o.balance_nanos
      + case draft.credit when 'wallet' then draft.amount_nanos else -draft.amount_nanos end,
    updated_at = now()
  where o.id = draft.org_id
  returning o.balance_nanos into draft.balance_after_nanos;
  select p.* into posted from tollgate.post(array[draft]) p;
  return posted;
end
$$;

comment on function tollgate.move(tollgate.transfers) is
  'Moves credits into or out of an org: changes its balance and inserts the transfer. Expects the org to be locked.';
