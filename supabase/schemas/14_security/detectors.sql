-- Readings of the detectors: patterns in what is counted, each with a rule of its own in 16_alerts. A habit is no
-- pattern: what a key, an address or the installation does every day is compared with, not counted.

create function tollgate.spread_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  with lately as materialized (
    select s.kind, s.subject, sum(s.times) as times, tollgate.different(bit_or(s.marks)) as different
    from tollgate.spreads s
    where s.hour in (date_trunc('hour', as_of, 'UTC'), date_trunc('hour', as_of, 'UTC') - interval '1 hour')
    group by s.kind, s.subject, s.about
    having sum(s.times) >= 4
  ),
  wide as (
    select l.* from lately l
    where l.kind in ('missing_ids', 'models_read', 'failed_addresses', 'failed_credentials') and l.different >= 10
      and not (l.kind = 'models_read' and exists (
        select from tollgate.api_keys k where k.id = l.subject and k.created_at > as_of - interval '24 hours'
      ))
    order by l.different desc
    limit 500
  ),
  unusual as materialized (
    select w.* from wide w where w.different >= 3 * tollgate.usual_spread(w.kind, w.subject, as_of)
  )
  select u.kind, u.subject, u.different::numeric from unusual u where u.kind in ('missing_ids', 'models_read')
  union all
  select 'stuffing_addresses', u.subject, min(u.different)
  from unusual u
  where u.kind in ('failed_addresses', 'failed_credentials')
  group by u.subject
  having count(*) = 2
  union all
  select 'idempotency_keys_reused', l.subject, l.times from lately l where l.kind = 'reused_keys'
  union all
  select 'idempotency_networks', l.subject, max(l.different)
  from lately l
  where l.kind = 'repeated_from'
  group by l.subject
$$;

comment on function tollgate.spread_readings(timestamptz) is
  'Of this clock hour and the one before: ids that did not exist and models that were read, by key or address, and addresses that failed with as many credentials, each where it is three times the habit, of the 500 widest, but no models that a key read in its first day; refused reuses of Idempotency-Keys by key; and the most networks that repeated one request of a key.';


create function tollgate.network_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  with met as (
    select n.key_id, min(n.first_seen_at) as since,
      count(*) filter (where n.first_seen_at > as_of - interval '1 hour') as in_hour,
      count(*) filter (where n.first_seen_at > as_of - interval '24 hours') as in_day,
      count(*) filter (where n.first_seen_at > as_of - interval '8 days' and n.first_seen_at <= as_of - interval '24 hours') as before
    from tollgate.key_networks n
    group by n.key_id
  ),
  usual as (
    select m.*, case when m.since > as_of - interval '2 days' or m.since > as_of - interval '7 days' and m.before >= 5
      then 50 -- of who has no habit yet
      else m.before / least(extract(epoch from as_of - m.since) / 86400 - 1, 7) end as a_day
    from met m
  )
  select r.signal, u.key_id, r.value::numeric
  from usual u
  cross join lateral (values
    ('key_networks', u.in_day, u.in_day >= 5),
    ('key_new_networks', u.in_hour, u.in_hour > 0 and u.since < as_of - interval '24 hours')
  ) r (signal, value, told)
  where r.told and u.in_day >= 3 * u.a_day
$$;

comment on function tollgate.network_readings(timestamptz) is
  'From how many networks that it was never used from before a key was used in a day, from five, and, of keys known for a day, in an hour; not of keys that met a third as many on each day of the week before. A key may meet 50 a day in its first two days, and in its first week if it has met five before.';


create function tollgate.asking_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
set jit = off
as $$
  select 'models_asked', a.key_id, a.models::numeric
  from (
    select u.org_id, u.user_id, u.key_id, count(*) as models
    from tollgate.usage_by('{org,user,key,model}', date_trunc('hour', as_of, 'UTC') - interval '1 hour', as_of) u
    group by u.org_id, u.user_id, u.key_id
    having count(*) >= 20
    order by models desc
    limit 100
  ) a
  where a.models >= 2 * coalesce((
    select max(d.models)
    from (
      select count(distinct t.model) as models
      from tollgate.tallies t
      where t.cut = 'day' and t.org_id = a.org_id and t.user_id = a.user_id and t.key_id = a.key_id and t.start = any (array(
        select date_trunc('day', as_of, 'UTC') - make_interval(days => n) from generate_series(1, 7) n
      ))
      group by t.start
    ) d
  ), 25) -- of who has no habit yet
$$;

comment on function tollgate.asking_readings(timestamptz) is
  'How many different models a key asked in this clock hour and the one before, from 20, of the 100 keys that asked most; not of keys that asked half as many on one of the seven days before. A key that was not used then may ask 50.';
