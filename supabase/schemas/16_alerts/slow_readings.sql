-- Readings that cost more, taken every five minutes and kept.

create function tollgate.usual_spend(busy tollgate.usage, hour timestamptz) returns numeric
language plpgsql
stable
set search_path = ''
as $$
declare
  whose constant text := format('t.org_id = %L', busy.org_id)
    || case when busy.key_id is not null then format(' and t.user_id = %L and t.key_id = %L', busy.user_id, busy.key_id) else '' end;
  usual numeric;
begin
  execute format(
    $query$
      with days as (
        select count(distinct t.start) as used, sum(t.charge_nanos) as nanos
        from tollgate.tallies t
        where t.cut = 'day_key' and %1$s and t.start = any (array(
          select date_trunc('day', $1, 'UTC') - make_interval(hours => 24 * d) from generate_series(1, 15) d
        ))
      ),
      hours as (
        select sum(t.charge_nanos) as nanos
        from tollgate.tallies t
        where t.cut = 'hour' and %1$s and t.start = any (array(
          select $1 - make_interval(hours => 24 * d + h) from generate_series(1, 15) d, generate_series(-1, 1) h
        ))
        group by t.start
      )
      select greatest(max(h.nanos), max(d.nanos) / (24 * max(d.used))) from days d left join hours h on true where d.used >= 3
    $query$,
    whose
  ) into usual using hour;
  return usual;
end
$$;

comment on function tollgate.usual_spend(tollgate.usage, timestamptz) is
  'What an org or one of its keys may spend in an hour by its habit of 15 days: the most that it spent at this time of day, or an hour before or after, and at least its mean hour. Null without three days of use. Read by the primary key: by time first.';


create function tollgate.spend_readings(as_of timestamptz) returns setof tollgate.reading
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  this_hour constant timestamptz := date_trunc('hour', as_of, 'UTC');
  least_nanos constant numeric := 1e9; -- what an hour may cost without a look
  busy tollgate.usage;
  usual numeric;
begin
  for busy in
    select u.* from tollgate.usage_by('{hour,org}', this_hour - interval '1 hour', as_of) u
    where u.charge_nanos >= least_nanos
    union all
    select u.* from tollgate.usage_by('{hour,org,user,key}', this_hour - interval '1 hour', as_of) u
    where u.charge_nanos >= least_nanos
    order by charge_nanos desc
    limit 100
  loop
    usual := tollgate.usual_spend(busy, busy.start);
    if usual is not null then
      return query select case when busy.key_id is null then 'org_spend_times_usual' else 'key_spend_times_usual' end,
        coalesce(busy.key_id, busy.org_id), round(busy.charge_nanos / greatest(usual, least_nanos), 2);
    end if;
  end loop;
end
$$;

comment on function tollgate.spend_readings(timestamptz) is
  'How many times its usual spend each org and key spent in this clock hour and in the one before: of the 100 that spent most, and at least a credit.';


create function tollgate.wallet_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
set jit = off
as $$
  with spent as materialized (
    select u.org_id, sum(u.charge_nanos) / greatest(extract(epoch from as_of - date_trunc('day', as_of, 'UTC')) / 86400 + 1, 1) as day_nanos
    from tollgate.usage_by('{org}', date_trunc('day', as_of, 'UTC') - interval '1 day', as_of) u
    where u.charge_nanos > 0
    group by u.org_id
  )
  select 'balance_days_left', o.id::text, round(greatest(o.balance_nanos - o.held_nanos, 0) / greatest(s.day_nanos, 1), 2)
  from spent s
  join tollgate.orgs o on o.id = s.org_id
  union all
  select 'margin_percent', coalesce(u.model, 'installation'), round(100.0 * (u.charge_nanos - u.cost_nanos) / greatest(u.charge_nanos, 1), 2)
  from (
    select u.model, sum(u.charge_nanos) as charge_nanos, sum(u.cost_nanos) as cost_nanos
    from tollgate.usage_by('{model}', date_trunc('hour', as_of, 'UTC') - interval '1 hour', as_of) u
    group by grouping sets ((), (u.model))
  ) u
  where u.cost_nanos >= 100000000
$$;

comment on function tollgate.wallet_readings(timestamptz) is
  'For how many days the credits of each org last, by its spend since yesterday began; and the margin of the installation and of each model that cost a tenth of a credit in this clock hour and the one before.';


create function tollgate.key_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'key_budget_percent', k.id::text, round(100.0 * k.budget_spent_nanos / greatest(k.budget_nanos, 1), 2)
  from tollgate.api_keys k
  where k.budget_nanos is not null and k.revoked_at is null and k.last_used_at > as_of - interval '31 days'
    and k.budget_period = tollgate.budget_period(k.budget_reset, as_of)
    and k.budget_spent_nanos >= 0.5 * k.budget_nanos
  union all
  select 'key_days_left', k.id::text, round(extract(epoch from k.expires_at - as_of) / 86400, 2)
  from tollgate.api_keys k
  where k.expires_at > as_of and k.expires_at < as_of + interval '31 days' and k.expires_at > k.created_at + interval '14 days'
    and k.revoked_at is null and k.disabled_at is null and k.rotated_to is null
  union all
  select 'key_networks', n.key_id, count(*) from tollgate.key_networks n
  where n.last_seen_at > as_of - interval '24 hours'
  group by n.key_id
  having count(*) >= 5
  union all
  select 'key_new_networks', n.key_id, count(*) filter (where n.first_seen_at > as_of - interval '1 hour') from tollgate.key_networks n
  group by n.key_id
  having count(*) filter (where n.first_seen_at > as_of - interval '1 hour') > 0
    and min(n.first_seen_at) < as_of - interval '1 day'
$$;

comment on function tollgate.key_readings(timestamptz) is
  'How much of its budget each key has used, from a half; in how many days keys expire, of those that had two weeks or more; from how many networks keys were used in a day, from five; and how many new ones in an hour, of keys known for a day.';


create function tollgate.account_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
set jit = off
as $$
  select 'openrouter_days_left', 'installation', round(greatest(o.value, 0) / u.cost_nanos, 2)
  from tollgate.observed_readings(as_of) o
  cross join tollgate.usage_by('{}', as_of - interval '24 hours', as_of, '{"upstream": "openrouter"}') u
  where o.signal = 'openrouter_credit_nanos' and u.cost_nanos > 0
  union all
  select 'books_faults', 'installation', f.faults::numeric
  from tollgate.faults_of_last_audit() f (faults)
  where f.faults is not null
  union all
  select 'database_bytes', 'installation', pg_database_size(current_database())::numeric
$$;

comment on function tollgate.account_readings(timestamptz) is
  'For how many days our credit at OpenRouter lasts at the cost of the last 24 hours, the faults that the last audit of the books found, and the size of the database.';


create function tollgate.take_slow_readings(as_of timestamptz) returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.readings o where o.process = 'database';
  insert into tollgate.readings (process, signal, subject, value, at)
  select 'database', r.signal, r.subject, max(r.value), as_of
  from (
    select * from tollgate.spend_readings(as_of)
    union all
    select * from tollgate.wallet_readings(as_of)
    union all
    select * from tollgate.key_readings(as_of)
    union all
    select * from tollgate.account_readings(as_of)
  ) r
  group by r.signal, r.subject;
  update tollgate.alert_scan set slow_at = as_of;
end
$$;

comment on function tollgate.take_slow_readings(timestamptz) is
  'Replaces the slow readings by those of this moment. Locks them, and the row of tollgate.alert_scan.';
