-- Faults of charges and of the other transfers.

create function tollgate.charge_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with charges as (
    -- For each request: its charge, and the correction of a late settlement.
    select tollgate.request_of(t) as request_id, min(t.org_id) as org_id, max(t.org_id) as other_org_id,
      count(*) filter (where t.kind = 'charge' and t.reference not like '%:late') as charges,
      count(*) filter (where t.reference like '%:late') as corrections,
      sum(case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end) as nanos
    from tollgate.transfers t
    where t.kind = 'charge' or (t.kind = 'refund' and t.reference like '%:late')
    group by 1
  )
  select 'charge', r.id, jsonb_build_object(
    'state', r.state, 'charge_nanos', r.charge_nanos, 'org_id', r.org_id,
    'transfers', coalesce(c.charges + c.corrections, 0), 'amount_nanos', c.nanos, 'charged_org', c.org_id
  )
  from tollgate.requests r
  left join charges c on c.request_id = r.id
  where r.state in ('settled', 'released') and (
    r.charge_nanos is null
    or r.state = 'released' and r.charge_nanos <> 0
    or r.charge_nanos > 0 and c.charges is distinct from 1
    or r.charge_nanos = 0 and c.charges > 0 and c.corrections = 0
    or coalesce(c.nanos, 0) <> r.charge_nanos
    or c.org_id <> r.org_id or c.other_org_id <> r.org_id
  )
  union all
  select 'stray_charge', tollgate.transfer_id(t.position), jsonb_build_object('reference', t.reference, 'state', r.state)
  from tollgate.transfers t
  left join tollgate.requests r on r.id = tollgate.request_of(t)
  left join tollgate.dropped d on d.org_id = t.org_id and d.charges > 0
  where (t.kind = 'charge' or (t.kind = 'refund' and t.reference like '%:late'))
    and coalesce(r.state not in ('settled', 'released'), d.org_id is null)
  union all
  select 'dropped_charges', d.org_id, jsonb_build_object(
    'dropped', d.charges, 'dropped_nanos', d.charge_nanos, 'transfers', c.charges, 'amount_nanos', c.nanos
  )
  from tollgate.dropped d
  cross join lateral (
    select coalesce(sum(g.charges), 0) as charges, coalesce(sum(g.nanos), 0) as nanos
    from charges g
    where g.org_id = d.org_id and not exists (select from tollgate.requests r where r.id = g.request_id)
  ) c
  where d.charges <> c.charges or d.charge_nanos <> c.nanos
  union all
  -- For requests that an upstream answered. The cost was rounded up to a whole nano, so the charge may be less by its
  -- markup; estimates and corrections by late settlements are at most the hold.
  select 'cost', r.id, jsonb_build_object(
    'state', r.state, 'cost_nanos', r.cost_nanos, 'charge_nanos', r.charge_nanos, 'markup_ppm', r.markup_ppm,
    'usage_cost', r.usage -> 'cost'
  )
  from tollgate.requests r
  where (r.usage is not null or r.generation_id is not null)
    and not exists (
      select from tollgate.audit_events a
      where a.target_id = r.id and a.action = 'settlement.late' and a.outcome = 'success' and r.charge_nanos <= r.hold_nanos
    )
    and case r.state
    when 'released' then r.cost_nanos > 0
    when 'settled' then case when r.is_byok then
      r.cost_nanos <> 0 or r.charge_nanos <> (r.price ->> 'byok_fee_nanos')::bigint
    else
      r.charge_nanos > ceil((r.cost_nanos + 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
      or r.charge_nanos < floor((r.cost_nanos - 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
        and not (r.estimated and r.charge_nanos = r.hold_nanos)
      or r.upstream = 'openrouter' and not r.quarantined and not r.estimated and r.usage -> 'is_byok' is distinct from 'true'
        and case when r.usage ->> 'cost' ~ '^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$'
          then ceil((r.usage ->> 'cost')::numeric * 1000000000) <> r.cost_nanos
        end
    end
  end
$$;

comment on function tollgate.charge_faults() is
  'Where requests and charges do not agree: every charge must be one transfer of the request''s org, with the correction of a late settlement; the cost with its markup; and the cost must be what the upstream said. Charges whose requests retention dropped must agree, in number and sum, with tollgate.dropped.';


create function tollgate.origin_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with moved as (
    select tollgate.transfer_id(t.position) as id, t.*,
      case t.kind when 'grant' then 'credits.granted' when 'refund' then 'credits.refunded' else 'credits.adjusted' end as action
    from tollgate.transfers t
    where t.kind <> 'charge' and not (t.kind = 'refund' and t.reference like '%:late')
  ),
  told as (
    select a.* from tollgate.audit_events a
    where a.action in ('credits.granted', 'credits.refunded', 'credits.adjusted', 'credits.overdrawn') and a.outcome = 'success'
  ),
  compared as (
    select coalesce(m.id, a.target_id) as id, m.position, a.id as event_id, a.details ? 'idempotency_key' as operated,
      (m.org_id, m.amount_nanos::text, m.debit::text)
        is not distinct from (a.org_id, a.details ->> 'amount_nanos', coalesce(a.details ->> 'debit', a.details ->> 'source'))
        and m.credit = coalesce(a.details ->> 'credit', m.credit) as agrees
    from moved m
    full join (select t.* from told t where t.action <> 'credits.overdrawn') a on a.target_id = m.id and a.action = m.action
  )
  select 'audit_event', c.id, jsonb_build_object('transfer', c.position is not null, 'audit_event_id', c.event_id)
  from compared c where c.agrees is not true
  union all
  select 'audit_event', c.id, jsonb_build_object('audit_events', count(*))
  from compared c where c.agrees group by c.id having count(*) > 1
  union all
  select 'operation', coalesce(c.id, tollgate.transfer_id(o.position)), jsonb_build_object(
    'operator', o.operator, 'asked', o.asked, 'audit_event_id', c.event_id
  )
  from (select c.* from compared c where c.operated) c
  full join tollgate.credit_operations o on o.position = c.position
  left join moved m on m.position = o.position
  where c.event_id is null or o.position is null or m.position is null
    or abs((o.asked ->> 'amount_nanos')::numeric) <> m.amount_nanos
    or case m.kind
      when 'refund' then m.reference not like o.request_id || '/%'
      else o.asked ->> 'source' not in (m.debit, m.credit) or o.asked ->> 'org_id' <> m.org_id
    end
  union all
  select 'audit_event', a.target_id, jsonb_build_object(
    'audit_event_id', a.id, 'charge_nanos', a.details -> 'charge_nanos', 'amount_nanos', t.amount_nanos
  )
  from told a
  left join tollgate.transfers t on t.kind = 'charge' and t.reference = a.target_id
  where a.action = 'credits.overdrawn' and (a.details ->> 'charge_nanos' = t.amount_nanos::text and a.org_id = t.org_id) is not true
  union all
  select 'audit_event', tollgate.transfer_id(t.position), jsonb_build_object('reference', t.reference, 'amount_nanos', t.amount_nanos)
  from tollgate.transfers t
  where t.reference like '%:late' and not exists (
    select from tollgate.audit_events a
    where a.target_id = tollgate.request_of(t) and a.action = 'settlement.late' and a.org_id = t.org_id
      and a.details ->> 'corrected_by_nanos' = (case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end)::text
  )
$$;

comment on function tollgate.origin_faults() is
  'Where credits moved without their origin: every transfer except charges must have one audit event with its org, amount and accounts, every such event its transfer, every operation both; every overdrawing charge and every late correction must agree with its event.';
