-- Why:  requests need not be kept for ever, and what they were charged must be proved all the same.
-- What: tollgate_drop_old_requests(), what it notes (dropped), and the audit of the books that knows of it.
-- Care: deletes nothing by itself: only where REQUEST_RETENTION_DAYS is set. Locks no org.

create table tollgate.dropped (
  org_id text primary key,
  requests bigint not null default 0,
  charges bigint not null default 0,
  charge_nanos bigint not null default 0
);

comment on table tollgate.dropped is 'What the requests that retention dropped had been charged, so that the charges that lost their request can still be proved.';

alter table tollgate.dropped enable row level security;


create function public.tollgate_drop_old_requests(older_than_days integer, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  boundary timestamptz;
  gone text[];
begin
  -- Whole hours that are rolled up, so that what they counted stays known.
  select date_trunc('hour', least(r.rolled_until, now() - make_interval(days => greatest(older_than_days, 1))), 'UTC')
  into boundary
  from tollgate.rolled r;
  update tollgate.rolled set dropped_until = boundary where dropped_until < boundary;

  with old as (
    delete from tollgate.requests r
    where r.id = any (array(
      select o.id from tollgate.requests o
      where o.created_at < boundary and o.settled_at is not null
        and not exists (select from tollgate.late_requests l where l.request_id = o.id)
      order by o.created_at
      limit page_size
      for update skip locked
    ))
    returning r.id, r.org_id, r.charge_nanos
  ),
  noted as (
    insert into tollgate.dropped as d (org_id, requests, charges, charge_nanos)
    select o.org_id, count(*), count(*) filter (where o.charge_nanos > 0), coalesce(sum(o.charge_nanos), 0)
    from old o
    group by o.org_id
    order by o.org_id
    on conflict (org_id) do update set
      requests = d.requests + excluded.requests,
      charges = d.charges + excluded.charges,
      charge_nanos = d.charge_nanos + excluded.charge_nanos
  )
  select array_agg(o.id) into gone from old o;
  delete from tollgate.answers a where a.request_id = any (gone);
  return jsonb_build_object(
    'requests', coalesce(cardinality(gone), 0), 'more', coalesce(cardinality(gone), 0) >= page_size
  );
end
$$;

comment on function public.tollgate_drop_old_requests(integer, integer) is
  'Drops a batch of the oldest ended requests made so many days ago or more (at least one), and their answers, once they are rolled up; called again while it answers "more". What they used stays in the tallies, what they were charged in the ledger and, by org, in tollgate.dropped. Refuses nothing. Locks the dropped rows, skipping locked ones, never an org; the row of tollgate.rolled when the hour has moved on.';


create or replace function public.tollgate_audit_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with wallets as (
    select o.id, o.balance_nanos, o.held_nanos,
      coalesce((
        select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end)
        from tollgate.transfers t where t.org_id = o.id
      ), 0) as transferred,
      coalesce((
        select sum(r.hold_nanos) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ), 0) as held
    from tollgate.orgs o
  ),
  faults as (
    select 'balance' as fault, w.id, jsonb_build_object('balance_nanos', w.balance_nanos, 'transfers', w.transferred) as facts
    from wallets w where w.balance_nanos <> w.transferred
    union all
    select 'held', w.id, jsonb_build_object('held_nanos', w.held_nanos, 'open_holds', w.held)
    from wallets w where w.held_nanos <> w.held
    union all
    select 'hold', coalesce(r.id, h.request_id), jsonb_build_object('state', r.state, 'open', h.request_id is not null)
    from tollgate.requests r
    full join tollgate.holds h on h.request_id = r.id
    where coalesce(r.state in ('held', 'unsettled'), false) <> (h.request_id is not null)
    union all
    select 'charge', r.id, jsonb_build_object('charge_nanos', r.charge_nanos, 'transfers', count(t.position), 'amount_nanos', sum(t.amount_nanos))
    from tollgate.requests r
    left join tollgate.transfers t on t.kind = 'charge' and t.reference = r.id
    where r.state = 'settled'
    group by r.id
    having count(t.position) <> (case when r.charge_nanos > 0 then 1 else 0 end)
      or coalesce(sum(t.amount_nanos), 0) <> r.charge_nanos
    union all
    select 'stray_charge', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'state', r.state)
    from tollgate.transfers t
    left join tollgate.requests r on r.id = t.reference
    left join tollgate.dropped d on d.org_id = t.org_id and d.charges > 0
    where t.kind = 'charge' and r.state is distinct from 'settled' and (r.id is not null or d.org_id is null)
    union all
    select 'dropped_charges', d.org_id, jsonb_build_object(
      'dropped', d.charges, 'dropped_nanos', d.charge_nanos, 'transfers', c.charges, 'amount_nanos', c.nanos
    )
    from tollgate.dropped d
    cross join lateral (
      select count(*) as charges, coalesce(sum(t.amount_nanos), 0) as nanos
      from tollgate.transfers t
      left join tollgate.requests r on r.id = t.reference
      where t.org_id = d.org_id and t.kind = 'charge' and r.id is null
    ) c
    where d.charges <> c.charges or d.charge_nanos <> c.nanos
    union all
    select 'refund', g.request_id, jsonb_build_object('refunded_nanos', g.nanos, 'charge_nanos', coalesce(c.amount_nanos, 0))
    from (
      select t.org_id, tollgate.request_of(t) as request_id, sum(t.amount_nanos) as nanos
      from tollgate.transfers t where t.kind = 'refund'
      group by 1, 2
    ) g
    left join tollgate.transfers c on c.kind = 'charge' and c.reference = g.request_id and c.org_id = g.org_id
    where g.nanos > coalesce(c.amount_nanos, 0)
    union all
    select 'running_balance', 'trf_' || s.position, jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
    from (
      select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
        case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
      from tollgate.transfers t
    ) s
    where s.before + s.change <> s.balance_after_nanos
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
    'faults', coalesce((
      select jsonb_agg(jsonb_build_object('fault', f.fault, 'id', f.id, 'facts', f.facts)) from faults f
    ), '[]'::jsonb)
  )
$$;

comment on function public.tollgate_audit_books() is
  'Proves the books from the tables alone: every balance is its transfers, every held sum its open holds, every open request one hold, every settled charge one transfer, every refund within its charge, every running balance the one before and its change; charges of an org whose requests retention dropped are, in number and sum, what it noted then. Names each row that does not fit. Refuses nothing, locks nothing.';


select tollgate.expose('public.tollgate_drop_old_requests(integer, integer)');
select tollgate.expose('public.tollgate_audit_books()');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001630'
$$;

revoke execute on all functions in schema tollgate from public;
