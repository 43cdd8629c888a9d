-- Why:  the books must be proved with the corrections that late settlements post, and with the counts of open requests.
-- What: tollgate_audit_books(), refunds and retention that know of late charges and refunds (references <request id>:late).
-- Care: replaces functions.

set lock_timeout = '1s';


create or replace function tollgate.request_of(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select case t.kind
    when 'charge' then regexp_replace(t.reference, ':late$', '')
    when 'refund' then regexp_replace(t.reference, '(/[0-9]+|:late)$', '')
  end
$$;

comment on function tollgate.request_of(tollgate.transfers) is
  'The request that a charge or a refund is about. The n-th refund of a request has the reference <request id>/<n>, so that the ledger itself cannot hold two n-th ones; what a late settlement corrects has <request id>:late.';


create function tollgate.charged(request_id text) returns bigint
language sql
stable
set search_path = ''
as $$
  select coalesce(sum(case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end), 0)
  from tollgate.transfers t
  where (t.kind = 'charge' and t.reference in (request_id, request_id || ':late'))
    or (t.kind = 'refund' and t.reference = request_id || ':late')
$$;

comment on function tollgate.charged(text) is
  'What a request was charged, with what a late settlement corrected of it; refunds of operators left out.';


create or replace function public.tollgate_refund_charge(caller jsonb, operation jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'refund', operation);
  charge tollgate.transfers;
  charged bigint;
  refunds bigint;
  refunded bigint;
  draft tollgate.transfers;
begin
  if answer is null then
    select t.* into charge from tollgate.transfers t
    where t.kind = 'charge' and t.reference = operation ->> 'request_id';
    if not found then
      perform tollgate.refuse_refund(operation ->> 'request_id');
    end if;
    draft.org_id := (tollgate.lock_payer(jsonb_build_object('org_id', charge.org_id))).id;

    -- Read under the org's lock, which every refund and correction of the charge takes.
    charged := tollgate.charged(charge.reference);
    select count(*), coalesce(sum(t.amount_nanos), 0) into refunds, refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = charge.reference;
    draft.amount_nanos := case
      when operation ->> 'amount_nanos' is not null then tollgate.check_amount(operation, 1)
      else nullif(charged - refunded, 0)
    end;
    if (draft.amount_nanos <= charged - refunded) is not true then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'param', 'amount_nanos',
        'request_id', charge.reference,
        'charge_nanos', charged,
        'refunded_nanos', refunded,
        'refundable_nanos', charged - refunded
      ));
    end if;
    draft.kind := 'refund';
    draft.debit := 'revenue';
    draft.credit := 'wallet';
    draft.reference := charge.reference || '/' || refunds + 1;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_refund_charge(jsonb, jsonb) is
  'Gives a request''s charge back, in part or what is left of it, once per idempotency key of the operator; all refunds of a charge together never exceed it. `operation`: request_id, amount_nanos or null for what is left, reason, idempotency_key. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, conflict. Locks the operator, the org, the key.';


create or replace function public.tollgate_drop_old_requests(older_than_days integer, page_size integer) returns jsonb
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
    select o.org_id, count(*), count(*) filter (where o.charge_nanos > 0 or exists ( -- given back later
      select from tollgate.transfers t where t.kind = 'charge' and t.reference = o.id
    )), coalesce(sum(o.charge_nanos), 0)
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
    select o.id, o.balance_nanos, o.held_nanos, o.open_requests,
      coalesce((
        select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end)
        from tollgate.transfers t where t.org_id = o.id
      ), 0) as transferred,
      coalesce((
        select sum(r.hold_nanos) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ), 0) as held,
      (
        select count(*) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ) as open
    from tollgate.orgs o
  ),
  late as (
    select left(t.reference, -5) as request_id, t.org_id,
      sum(case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end) as nanos,
      sum(t.amount_nanos) filter (where t.kind = 'charge') as charged_nanos
    from tollgate.transfers t
    where t.kind in ('charge', 'refund') and t.reference like '%:late'
    group by 1, 2
  ),
  faults as (
    select 'balance' as fault, w.id, jsonb_build_object('balance_nanos', w.balance_nanos, 'transfers', w.transferred) as facts
    from wallets w where w.balance_nanos <> w.transferred
    union all
    select 'held', w.id, jsonb_build_object('held_nanos', w.held_nanos, 'open_holds', w.held)
    from wallets w where w.held_nanos <> w.held
    union all
    select 'in_flight', w.id, jsonb_build_object('open_requests', w.open_requests, 'open_holds', w.open)
    from wallets w where w.open_requests <> w.open
    union all
    select 'in_flight', k.id, jsonb_build_object('open_requests', k.open_requests, 'open_holds', c.open)
    from tollgate.api_keys k
    cross join lateral (
      select count(*) as open
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
      where r.org_id = k.org_id
        and r.key_id in (select l.id from tollgate.api_keys l where l.id = k.id or l.line = k.line)
    ) c
    where k.max_concurrent_requests is not null and k.open_requests <> c.open
    union all
    select 'hold', coalesce(r.id, h.request_id), jsonb_build_object('state', r.state, 'open', h.request_id is not null)
    from tollgate.requests r
    full join tollgate.holds h on h.request_id = r.id
    where coalesce(r.state in ('held', 'unsettled'), false) <> (h.request_id is not null)
    union all
    select 'charge', r.id, jsonb_build_object('charge_nanos', r.charge_nanos, 'amount_nanos', t.amount_nanos, 'late_nanos', l.nanos)
    from tollgate.requests r
    left join tollgate.transfers t on t.kind = 'charge' and t.reference = r.id
    left join late l on l.request_id = r.id
    where r.state = 'settled' and (
      (r.charge_nanos > 0 and t.position is null)
      or coalesce(t.amount_nanos, 0) + coalesce(l.nanos, 0) <> r.charge_nanos
    )
    union all
    select 'stray_charge', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'state', r.state)
    from tollgate.transfers t
    left join tollgate.requests r
      on r.id = case when t.reference like '%:late' then left(t.reference, -5) else t.reference end
    left join tollgate.dropped d on d.org_id = t.org_id and d.charges > 0
    where t.kind = 'charge' and r.state is distinct from 'settled' and (r.id is not null or d.org_id is null)
    union all
    select 'dropped_charges', d.org_id, jsonb_build_object(
      'dropped', d.charges, 'dropped_nanos', d.charge_nanos, 'transfers', c.charges, 'amount_nanos', c.nanos
    )
    from tollgate.dropped d
    cross join lateral (
      select count(*) as charges, coalesce(sum(t.amount_nanos + coalesce(l.nanos, 0)), 0) as nanos
      from tollgate.transfers t
      left join tollgate.requests r on r.id = t.reference
      left join late l on l.request_id = t.reference and l.org_id = t.org_id
      where t.org_id = d.org_id and t.kind = 'charge' and r.id is null and t.reference not like '%:late'
    ) c
    where d.charges <> c.charges or d.charge_nanos <> c.nanos
    union all
    select 'refund', g.request_id, jsonb_build_object(
      'refunded_nanos', g.nanos, 'charge_nanos', coalesce(c.amount_nanos, 0) + coalesce(l.charged_nanos, 0)
    )
    from (
      select t.org_id, tollgate.request_of(t) as request_id, sum(t.amount_nanos) as nanos
      from tollgate.transfers t where t.kind = 'refund'
      group by 1, 2
    ) g
    left join tollgate.transfers c on c.kind = 'charge' and c.reference = g.request_id and c.org_id = g.org_id
    left join late l on l.request_id = g.request_id and l.org_id = g.org_id
    where g.nanos > coalesce(c.amount_nanos, 0) + coalesce(l.charged_nanos, 0)
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
  'Proves the books from the tables alone: every balance is its transfers, every held sum and every count of open requests its open holds, every open request one hold, every settled charge one transfer and what a late settlement corrected of it, every refund within its charge, every running balance the one before and its change; charges of an org whose requests retention dropped are, in number and sum, what it noted then. Names each row that does not fit. Refuses nothing, locks nothing.';


create or replace function tollgate.report_on_money(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  used record;
  moved record;
begin
  select u.charge_nanos, u.cost_nanos into used from tollgate.usage_by('{}', since, until, '{}') u;
  select
    coalesce(sum(s.nanos) filter (where s.account = 'funding'), 0) as funded,
    coalesce(sum(s.nanos) filter (where s.account = 'promotion'), 0) as promoted,
    coalesce(sum(s.nanos) filter (where s.account = 'revenue'), 0) as refunded,
    coalesce(sum(s.nanos) filter (where s.account = 'writeoff'), 0) as written_off
  into moved
  from (
    select
      case t.credit when 'wallet' then t.debit else t.credit end as account,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as nanos
    from tollgate.transfers t
    where t.created_at >= since and t.created_at < until and t.kind <> 'charge'
      and not (t.kind = 'refund' and t.reference like '%:late') -- in the charge of its request already
  ) s;
  return jsonb_build_object(
    'in_nanos', moved.funded,
    'promotions_nanos', moved.promoted,
    'written_off_nanos', moved.written_off,
    'charged_nanos', coalesce(used.charge_nanos, 0),
    'refunded_nanos', moved.refunded,
    'out_nanos', coalesce(used.cost_nanos, 0),
    'margin_nanos', coalesce(used.charge_nanos, 0) - moved.refunded - coalesce(used.cost_nanos, 0)
  );
end
$$;

comment on function tollgate.report_on_money(timestamptz, timestamptz) is
  'Money in (what was funded, less what was taken back), out (what upstreams cost) and the margin: charges less refunds and cost. A charge counts at the time of its request, with what a late settlement corrected of it; everything else when it was moved.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000140'
$$;

revoke execute on all functions in schema tollgate from public;
