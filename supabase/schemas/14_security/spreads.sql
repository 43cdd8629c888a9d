-- How widely keys and addresses did something in an hour: with how many different ids, models, requests, networks.
--
-- A row has a bit for each of 512 hashes instead of the things themselves, so it has the same size whatever a client
-- sends, and the counts of several servers add up to those of one.

create function tollgate.different(marks bit) returns integer
language sql
immutable
set search_path = ''
as $$
  select round(-length(marks) * ln(1 - least(bit_count(marks), length(marks) - 0.5) / length(marks)))::integer
$$;

comment on function tollgate.different(bit) is
  'How many different things set these marks, by linear counting: within a tenth up to a thousand, about 3,500 when all are set.';


create function tollgate.count_spreads(spreads jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  moment constant timestamptz := clock_timestamp();
  seen record;
begin
  for seen in
    select g.kind, coalesce(k.id, g.address) as subject, date_trunc('hour', least(g.last_seen, moment), 'UTC') as hour,
      coalesce(g.about, '') as about, coalesce(k.org_id, '') as org_id, sum(greatest(g.times, 1)) as times,
      bit_or(('x' || g.marks)::bit(512)) as marks, max(least(g.last_seen, moment)) as last_seen
    from jsonb_to_recordset(spreads) g (
      kind text, key_id text, digest text, address text, about text, times bigint, marks text, last_seen timestamptz
    )
    left join lateral (
      select k.id, k.org_id from tollgate.api_keys k
      where k.id = g.key_id or (g.key_id is null and k.digest = decode(g.digest, 'hex'))
    ) k on true
    where coalesce(k.id, g.address) is not null
    group by 1, 2, 3, 4, 5
    order by 1, 2, 3, 4
  loop
    insert into tollgate.spreads as s (kind, subject, hour, about, org_id, times, marks, last_seen_at)
    select seen.kind, seen.subject, seen.hour, seen.about, seen.org_id, seen.times, seen.marks, seen.last_seen
    where exists (
      select from tollgate.spreads o
      where o.kind = seen.kind and o.subject = seen.subject and o.hour = seen.hour and o.about = seen.about
    ) or (
      select count(*) from tollgate.spreads o
      where o.hour = seen.hour and o.kind = seen.kind and o.org_id = seen.org_id
    ) < case seen.org_id when '' then 1000 else 100 end
    on conflict (kind, subject, hour, about) do update set
      times = s.times + excluded.times,
      marks = s.marks | excluded.marks,
      last_seen_at = greatest(s.last_seen_at, excluded.last_seen_at);
  end loop;
end
$$;

comment on function tollgate.count_spreads(jsonb) is
  'Adds to the spreads: kind, key_id or digest or address, about, times, marks (128 hexadecimal digits), last_seen. Those beyond the most rows of an hour are left out. Locks the rows, in order.';


create function tollgate.drop_old_spreads(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.spreads s where s.ctid = any (array(
    select o.ctid from tollgate.spreads o
    where o.hour < as_of - interval '8 days'
    order by o.hour
    limit 10000
    for update skip locked
  ))
$$;

comment on function tollgate.drop_old_spreads(timestamptz) is 'Deletes up to 10,000 spreads that are older than 8 days.';


create function tollgate.usual_spread(kind text, subject text, as_of timestamptz) returns integer
language sql
stable
set search_path = ''
as $$
  with hours as materialized (
    select s.hour, tollgate.different(s.marks) as different
    from tollgate.spreads s
    where s.kind = usual_spread.kind and s.subject = usual_spread.subject and s.about = ''
      and s.hour < as_of - interval '20 hours' and s.hour >= as_of - interval '8 days'
  )
  select greatest(
    (select h.different from hours h order by h.different desc offset 7 limit 1),
    (
      select max(h.different) from hours h
      where usual_spread.subject <> 'installation'
        and (extract(hour from h.hour at time zone 'UTC') - extract(hour from as_of at time zone 'UTC') + 25)::integer % 24 <= 2
    ),
    0
  )
$$;

comment on function tollgate.usual_spread(text, text, timestamptz) is
  'With how many different things a subject does this in an hour by its habit of a week: in all but its seven widest hours, so that an attack makes no habit; and of a key or address, at most at this time of day, so that a nightly job does. The last 20 hours are no habit yet.';
