-- The audit of all books.

create function public.tollgate_audit_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with faults as (
    select * from tollgate.ledger_faults()
    union all
    select * from tollgate.charge_faults()
    union all
    select * from tollgate.origin_faults()
    union all
    select * from tollgate.total_faults()
    union all
    select * from tollgate.org_faults()
    union all
    select * from tollgate.chain_faults()
  )
  select jsonb_build_object(
    'orgs', (select count(*) from tollgate.orgs),
    'transfers', (select count(*) from tollgate.transfers),
    'requests', (select count(*) from tollgate.requests),
    'open_holds', (select count(*) from tollgate.holds),
    'accounts_nanos', coalesce((
      select jsonb_object_agg(a.account, a.nanos) from (
        select e.account, sum(e.nanos) as nanos from (
          select t.debit as account, -t.amount_nanos as nanos from tollgate.transfers t
          union all
          select t.credit, t.amount_nanos from tollgate.transfers t
        ) e group by e.account
      ) a
    ), '{}'::jsonb),
    'fault_count', (select count(*) from faults),
    'faults', coalesce((
      select jsonb_agg(jsonb_build_object('fault', f.fault, 'id', f.id, 'facts', f.facts))
      from (select * from faults limit 1000) f
    ), '[]'::jsonb)
  )
$$;

comment on function public.tollgate_audit_books() is
  'Proves the books of one moment from the tables alone: that the ledger agrees with itself, with requests, with the operations and audit events that moved credits, with the tallies and flows and with its hash chain, and that the audit trail agrees with its own. Names the rows that do not agree, at most 1,000. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_audit_books()');
