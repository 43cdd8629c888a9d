-- Why:  books that were changed consistently, by somebody who can write past the triggers, agreed with themselves.
-- What: tollgate_audit_books() anew, in parts: the ledger, its origins, requests, totals, and the hash chains; and
--       tollgate_sight_chains() and tollgate_chains_at(), from which a head is made that can be kept elsewhere.
-- Care: replaces a function by one that answers the same and more. Reads only.

set lock_timeout = '1s';

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
  select 'running_balance', 'trf_' || s.position, jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
  from (
    select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
    from tollgate.transfers t
  ) s
  where s.before + s.change <> s.balance_after_nanos
$$;

comment on function tollgate.ledger_faults() is
  'Where the ledger does not agree with itself: every balance is its transfers, every held sum and every count of open requests its open holds, every open request one hold, every refund within its charges, every running balance the one before and its change.';


create function tollgate.charge_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with charges as (
    -- Of each request: its charge, and what a late settlement charged more or gave back.
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
  select 'stray_charge', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'state', r.state)
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
  -- Of requests that an upstream answered. The cost was rounded up to a whole nano, so the charge may be less by its
  -- markup; an estimate ends at the hold, and so does what a late settlement corrected.
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
    when 'settled' then
      r.charge_nanos > ceil((r.cost_nanos + 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
      or r.charge_nanos < floor((r.cost_nanos - 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
        and not (r.estimated and r.charge_nanos = r.hold_nanos)
      or r.upstream = 'openrouter' and not r.quarantined and not r.estimated and r.usage -> 'is_byok' is distinct from 'true'
        and case when r.usage ->> 'cost' ~ '^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$'
          then ceil((r.usage ->> 'cost')::numeric * 1000000000) <> r.cost_nanos
        end
  end
$$;

comment on function tollgate.charge_faults() is
  'Where requests and charges do not agree: every charge is one transfer of the request''s org, with what a late settlement corrected of it, every charge is the cost and its markup, every cost what the upstream said; charges of an org whose requests retention dropped are, in number and sum, what it noted then.';


create function tollgate.origin_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with moved as (
    select tollgate.transfer_id(t) as id, t.*,
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
  select 'operation', coalesce(c.id, 'trf_' || o.position), jsonb_build_object(
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
  select 'audit_event', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'amount_nanos', t.amount_nanos)
  from tollgate.transfers t
  where t.reference like '%:late' and not exists (
    select from tollgate.audit_events a
    where a.target_id = tollgate.request_of(t) and a.action = 'settlement.late' and a.org_id = t.org_id
      and a.details ->> 'corrected_by_nanos' = (case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end)::text
  )
$$;

comment on function tollgate.origin_faults() is
  'Where credits moved without their origin: every transfer but charges has one audit event of its org, amount and accounts, every such event its transfer, every operation both; every overdrawing charge and every late correction is what its event says.';


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
  'Where rows do not agree with what was counted of them: every hour of an org''s requests with its tally, what is missing of an org''s requests with what retention noted that it dropped, every hour of transfers with its flow.';


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
  'Orgs that are gone though they had a balance, or though nobody deleted them.';


create function tollgate.chain_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with transfers as (
    select coalesce(t.org_id, l.org_id) as org_id, coalesce(t.position, l.position) as position, t, l.chain,
      lag(l.chain) over (partition by coalesce(t.org_id, l.org_id) order by coalesce(t.position, l.position)) as before
    from tollgate.transfers t
    full join tollgate.transfer_links l on l.org_id = t.org_id and l.position = t.position
  ),
  events as (
    select l.position, l.event_id, l.chain, lag(l.chain) over (order by l.position) as before,
      l.position - lag(l.position, 1, 0::bigint) over (order by l.position) as step
    from tollgate.event_links l
  )
  (
    select distinct on (c.org_id) 'chain', 'trf_' || c.position, jsonb_build_object(
      'org_id', c.org_id, 'row', (c.t).position is not null, 'link', c.chain is not null
    )
    from transfers c
    where (c.chain = sha256(coalesce(c.before, '') || tollgate.text_of(c.t))) is not true
      and not (c.chain is null and c.position <= (select s.position from tollgate.chain_starts s where s.chain = 'transfers'))
    order by c.org_id, c.position
  )
  union all
  (
    select 'chain', c.event_id, jsonb_build_object('position', c.position, 'row', a.id is not null, 'link', true)
    from events c
    left join tollgate.audit_events a on a.id = c.event_id
    where (c.step = 1 and c.chain = sha256(coalesce(c.before, '') || tollgate.text_of(a))) is not true
    order by c.position
    limit 1
  )
  union all
  (
    select 'chain', a.id, jsonb_build_object('row', true, 'link', false)
    from tollgate.audit_events a
    where not exists (select from tollgate.event_links l where l.event_id = a.id)
      and a.occurred_at > (select s.started_at from tollgate.chain_starts s where s.chain = 'audit_events')
    order by a.occurred_at, a.id
    limit 1
  )
  union all
  select 'chain', c.name, '{"row": true, "link": false}'
  from (values ('transfers'), ('audit_events')) c (name)
  where not exists (select from tollgate.chain_starts s where s.chain = c.name)
$$;

comment on function tollgate.chain_faults() is
  'Where a hash chain is broken: the first broken transfer of each org, the first broken link of the audit trail, the first event without one. Rows that were there before the chain need none.';


create or replace function public.tollgate_audit_books() returns jsonb
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
  'Proves the books from the tables alone, of one moment: that the ledger agrees with itself, with requests, with the operations and audit events that moved credits, with what was counted of it and with its hash chains, and that the audit trail agrees with its own. Names the rows that do not fit, at most 1,000 of them. Refuses nothing, locks nothing.';


-- As before, but for fewer rows: the audit reads more of them.
create or replace function tollgate.report_on_books(wanted boolean) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  rows bigint := (
    select sum(greatest(c.reltuples, 0)) from pg_catalog.pg_class c
    where c.oid in ('tollgate.requests'::regclass, 'tollgate.transfers'::regclass)
  );
  books jsonb;
begin
  if not coalesce(wanted, rows <= 200000) then
    return jsonb_build_object('audited', false, 'agree', null, 'faults', '[]'::jsonb, 'fault_count', null, 'reason', case
      when wanted is null then format('The books have about %s rows, too many to read in one call. Run `python -m tollgate audit`.', rows)
      else 'The audit was left out.'
    end);
  end if;
  books := public.tollgate_audit_books();
  return jsonb_build_object(
    'audited', true,
    'agree', books -> 'faults' = '[]',
    'fault_count', books -> 'fault_count',
    'faults', jsonb_path_query_array(books, '$.faults[0 to 99]'),
    'orgs', books -> 'orgs',
    'transfers', books -> 'transfers',
    'requests', books -> 'requests',
    'open_holds', books -> 'open_holds',
    'reason', null
  );
end
$$;


create function public.tollgate_sight_chains() returns jsonb
language sql
security definer
set search_path = ''
as $$
  -- Read before this transaction has an id of its own, and drawn by transactions that had theirs: they lock the org first.
  with newest as materialized (
    select case when s.is_called then s.last_value else 0 end as position from tollgate.transfers_position_seq s
  )
  select jsonb_build_object('position', n.position, 'transaction', pg_current_xact_id()::text) from newest n
$$;

comment on function public.tollgate_sight_chains() is
  'The newest transfer, and a transaction id: when none before it runs any more, every transfer up to that one is there to be seen. Refuses nothing, locks nothing.';


create function public.tollgate_chains_at(sighted jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with here as (
    select (sighted ->> 'position')::bigint as position,
      coalesce(
        (sighted ->> 'event_position')::bigint,
        (select max(l.position) from tollgate.event_links l),
        0
      ) as event_position,
      (sighted ->> 'transaction')::xid8 <= pg_snapshot_xmin(pg_current_snapshot()) is not false as is_complete
  ),
  heads as (
    select distinct on (l.org_id) l.org_id, l.chain
    from tollgate.transfer_links l
    where l.position <= (select h.position from here h)
    order by l.org_id, l.position desc
  )
  select jsonb_build_object('complete', h.is_complete) || case when h.is_complete then jsonb_build_object(
    'at', tollgate.utc(now()),
    'schema_version', tollgate.schema_version(),
    'position', h.position,
    'transfers', (select count(*) from tollgate.transfer_links l where l.position <= h.position),
    'transfers_digest', (
      select encode(sha256(coalesce(string_agg(s.chain, '' order by s.org_id collate "C"), '')), 'hex') from heads s
    ),
    'orgs', (select count(*) from heads),
    'event_position', h.event_position,
    'events', (select count(*) from tollgate.event_links l where l.position <= h.event_position),
    'events_digest', coalesce((
      select encode(l.chain, 'hex') from tollgate.event_links l where l.position = h.event_position
    ), ''),
    'starts', (
      select jsonb_object_agg(s.chain, jsonb_build_object('position', s.position, 'at', tollgate.utc(s.started_at)))
      from tollgate.chain_starts s
    )
  ) else '{}' end
  from here h
$$;

comment on function public.tollgate_chains_at(jsonb) is
  'The chains up to a transfer and an audit event: how many rows, one digest over the orgs'' last links, the last link of the trail. `sighted`: what tollgate_sight_chains() answered, or the position and event_position of an earlier head. Answers {"complete": false} while a transaction before the sighting still runs. Refuses nothing, locks nothing.';


select tollgate.expose('public.tollgate_audit_books()');
select tollgate.expose('public.tollgate_sight_chains()');
select tollgate.expose('public.tollgate_chains_at(jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000220'
$$;

revoke execute on all functions in schema tollgate from public;
