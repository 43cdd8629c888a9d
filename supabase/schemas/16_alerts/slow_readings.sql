-- Readings that cost more, taken every five minutes and kept.

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
$$;

comment on function tollgate.key_readings(timestamptz) is
  'How much of its budget each key has used, from a half; in how many days keys expire, of those that had two weeks or more.';


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
    union all
    select * from tollgate.network_readings(as_of)
    union all
    select * from tollgate.asking_readings(as_of)
  ) r
  group by r.signal, r.subject;
  update tollgate.alert_scan set slow_at = as_of;
end
$$;

comment on function tollgate.take_slow_readings(timestamptz) is
  'Replaces the slow readings by those of this moment. Locks them, and the row of tollgate.alert_scan.';
