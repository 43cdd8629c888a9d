-- Faults of the ledger as a whole and of each org's balance.

create function tollgate.org_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  select 'org', m.org_id, jsonb_build_object('transfers_nanos', coalesce(b.nanos, 0))
  from (
    select t.org_id from tollgate.transfers t
    union
    select r.org_id from tollgate.requests r
    union
    select u.org_id from tollgate.users u
    union
    select k.org_id from tollgate.api_keys k
    union
    select a.target_id from tollgate.audit_events a where a.action like 'org.%' and a.outcome = 'success'
    except
    select o.id from tollgate.orgs o
  ) m
  cross join lateral (
    select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end) as nanos
    from tollgate.transfers t where t.org_id = m.org_id
  ) b
  where coalesce(b.nanos, 0) <> 0
    or not exists (select from tollgate.audit_events a where a.target_id = m.org_id and a.action = 'org.deleted')
$$;

comment on function tollgate.org_faults() is
  'Orgs that are missing although they had a balance, or without an audit event of their deletion.';


create function tollgate.ledger_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
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
  )
  select 'balance', w.id, jsonb_build_object('balance_nanos', w.balance_nanos, 'transfers', w.transferred)
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
  select 'refund', g.request_id, jsonb_build_object('refunded_nanos', g.nanos, 'charge_nanos', coalesce(c.nanos, 0))
  from (
    select t.org_id, tollgate.request_of(t) as request_id, sum(t.amount_nanos) as nanos
    from tollgate.transfers t where t.kind = 'refund'
    group by 1, 2
  ) g
  left join (
    select t.org_id, tollgate.request_of(t) as request_id, sum(t.amount_nanos) as nanos
    from tollgate.transfers t where t.kind = 'charge'
    group by 1, 2
  ) c on c.request_id = g.request_id and c.org_id = g.org_id
  where g.nanos > coalesce(c.nanos, 0)
  union all
  select 'running_balance', tollgate.transfer_id(s.position), jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
  from (
    select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
    from tollgate.transfers t
  ) s
  where s.before + s.change <> s.balance_after_nanos
$$;

comment on function tollgate.ledger_faults() is
  'Where the ledger does not agree with itself: every balance must be the sum of its transfers, every held sum and count of open requests that of its open holds; every open request must have one hold, every refund be within its charges, every running balance be the one before plus its change.';


create function tollgate.total_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with counted as (
    select c.org_id, c.hour,
      sum(c.requests) as requests, sum(c.charges) as charge_nanos, sum(c.costs) as cost_nanos,
      sum(c.tallied) as tallied, sum(c.tallied_charges) as tallied_charges, sum(c.tallied_costs) as tallied_costs
    from (
      select r.org_id, date_trunc('hour', r.created_at, 'UTC') as hour, 1 as requests,
        coalesce(r.charge_nanos, 0) as charges, coalesce(r.cost_nanos, 0) as costs,
        0 as tallied, 0 as tallied_charges, 0 as tallied_costs
      from tollgate.rolled s
      join tollgate.requests r on r.created_at < s.rolled_until and r.settled_at is not null
      where not exists (select from tollgate.late_requests l where l.request_id = r.id)
      union all
      select t.org_id, t.start, 0, 0, 0, t.requests, t.charge_nanos, t.cost_nanos
      from tollgate.tallies t where t.cut = 'hour'
    ) c
    group by c.org_id, c.hour
  )
  -- Retention drops whole hours.
  select 'tally', c.org_id || ' ' || tollgate.utc(c.hour), jsonb_build_object(
    'requests', c.requests, 'charge_nanos', c.charge_nanos, 'cost_nanos', c.cost_nanos,
    'tallied', c.tallied, 'tallied_charge_nanos', c.tallied_charges, 'tallied_cost_nanos', c.tallied_costs
  )
  from counted c
  cross join tollgate.rolled s
  where c.hour >= s.dropped_until
    and (c.requests, c.charge_nanos, c.cost_nanos) <> (c.tallied, c.tallied_charges, c.tallied_costs)
  union all
  select 'dropped', c.org_id, jsonb_build_object(
    'missing', sum(c.tallied - c.requests), 'dropped', coalesce(max(d.requests), 0),
    'missing_nanos', sum(c.tallied_charges - c.charge_nanos), 'dropped_nanos', coalesce(max(d.charge_nanos), 0)
  )
  from (select n.* from counted n union all select d.org_id, null, 0, 0, 0, 0, 0, 0 from tollgate.dropped d) c
  left join tollgate.dropped d on d.org_id = c.org_id
  group by c.org_id
  having sum(c.tallied - c.requests) <> coalesce(max(d.requests), 0)
    or sum(c.tallied_charges - c.charge_nanos) <> coalesce(max(d.charge_nanos), 0)
  union all
  select 'flow', concat_ws(' ', tollgate.utc(f.hour), f.kind, f.debit, f.credit), jsonb_build_object(
    'transfers', sum(f.transfers), 'amount_nanos', sum(f.nanos), 'summed', sum(f.summed), 'summed_nanos', sum(f.summed_nanos)
  )
  from (
    select date_trunc('hour', t.created_at, 'UTC') as hour, t.kind::text, t.debit::text, t.credit::text,
      1 as transfers, t.amount_nanos as nanos, 0 as summed, 0 as summed_nanos
    from tollgate.rolled s
    join tollgate.transfers t on t.position <= s.flowed_until
    union all
    select g.hour, g.kind::text, g.debit::text, g.credit::text, 0, 0, g.transfers, g.amount_nanos from tollgate.flows g
  ) f
  group by f.hour, f.kind, f.debit, f.credit
  having sum(f.transfers) <> sum(f.summed) or sum(f.nanos) <> sum(f.summed_nanos)
$$;

comment on function tollgate.total_faults() is
  'Where rows do not agree with their sums: every hour of an org''s requests with its tally, an org''s missing requests with tollgate.dropped, every hour of transfers with its flow.';
