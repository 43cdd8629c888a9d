-- Credits granted, charged and refunded, summed up.

create function tollgate.moved_since(since timestamptz) returns table (kind text, debit text, credit text, nanos numeric)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  first_hour constant timestamptz := tollgate.first_of('hour', since);
  summed constant bigint := (select r.flowed_until from tollgate.rolled r);
begin
  return query
  select m.kind::text, m.debit::text, m.credit::text, sum(m.amount_nanos)
  from (
    select f.kind, f.debit, f.credit, f.amount_nanos from tollgate.flows f where f.hour >= first_hour
    union all
    select t.kind, t.debit, t.credit, t.amount_nanos from tollgate.transfers t
    where t.position <= summed and t.created_at >= since and t.created_at < first_hour
    union all
    select t.kind, t.debit, t.credit, t.amount_nanos from tollgate.transfers t
    where t.position > summed and t.created_at >= since
  ) m
  group by 1, 2, 3;
end
$$;

comment on function tollgate.moved_since(timestamptz) is
  'The sums of transfers between accounts from a moment on. Each transfer counts once; whole hours are read from the flows.';


create function public.tollgate_credit_summary(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  moment constant timestamptz := clock_timestamp();
  today constant timestamptz := date_trunc('day', moment at time zone 'utc') at time zone 'utc';
  flows jsonb;
  outstanding jsonb;
begin
  -- One statement, so that all figures are of one moment.
  with moved as (
    select m.kind, m.debit, m.credit,
      coalesce(sum(m.nanos) filter (where s.name = 'today'), 0) as today_nanos,
      coalesce(sum(m.nanos) filter (where s.name = 'week'), 0) as last_7_days_nanos,
      coalesce(sum(m.nanos) filter (where s.name = 'month'), 0) as last_30_days_nanos,
      sum(m.nanos) filter (where s.name = 'all') as all_nanos
    from (values
      ('today', today), ('week', moment - interval '7 days'), ('month', moment - interval '30 days'), ('all', '-infinity')
    ) s (name, since)
    cross join lateral tollgate.moved_since(s.since) m
    group by m.kind, m.debit, m.credit
  ),
  wallets as (
    select count(*) as orgs,
      coalesce(sum(o.balance_nanos), 0) as credits_nanos,
      coalesce(sum(o.held_nanos), 0) as held_nanos,
      count(*) filter (where o.balance_nanos < 0) as overdrawn_orgs,
      coalesce(-sum(o.balance_nanos) filter (where o.balance_nanos < 0), 0) as overdrawn_nanos
    from tollgate.orgs o
  )
  select coalesce((select jsonb_agg(to_jsonb(m) order by m.kind, m.debit, m.credit) from moved m), '[]'),
    (select to_jsonb(w) from wallets w)
  into flows, outstanding;

  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(moment),
    'flows', flows,
    'accounts', (
      select coalesce(jsonb_agg(to_jsonb(a) order by a.account), '[]')
      from (
        select s.account,
          sum(s.sign * (f ->> 'today_nanos')::numeric) as today_nanos,
          sum(s.sign * (f ->> 'last_7_days_nanos')::numeric) as last_7_days_nanos,
          sum(s.sign * (f ->> 'last_30_days_nanos')::numeric) as last_30_days_nanos,
          sum(s.sign * (f ->> 'all_nanos')::numeric) as all_nanos
        from jsonb_array_elements(flows) f, lateral (values (f ->> 'debit', -1), (f ->> 'credit', 1)) s (account, sign)
        group by s.account
      ) a
    ),
    'outstanding', outstanding
  );
end
$$;

comment on function public.tollgate_credit_summary(jsonb) is
  'The sums of transfers between accounts, today (UTC), in the last 7 and 30 days and in all; the balance of each account, which add up to zero; and the balances and holds of all orgs now. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_credit_summary(jsonb)');
