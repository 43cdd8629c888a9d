-- What orgs and keys spend beside what is usual for them.

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
        select count(distinct t.start) as used, min(t.start) as since, sum(t.charge_nanos) as nanos
        from tollgate.tallies t
        where t.cut = 'day_key' and %1$s and t.start = any (array(
          select date_trunc('day', $1, 'UTC') - make_interval(days => d) from generate_series(1, 15) d
        ))
      ),
      hours as (
        select t.start, sum(t.charge_nanos) as nanos
        from tollgate.tallies t
        where t.cut = 'hour' and %1$s and t.start = any (array(
          select $1 - make_interval(days => d, hours => h) from generate_series(1, 28) d, generate_series(-1, 1) h
          where d <= 15 or d %% 7 = 0
        ))
        group by t.start
      ),
      peaks as (
        select d, max(h.nanos) as nanos
        from generate_series(1, 28) d
        join hours h on h.start between $1 - make_interval(days => d, hours => 1) and $1 - make_interval(days => d, hours => -1)
        group by d
      )
      select greatest(
        (select p.nanos from peaks p where p.d <= 15 order by p.nanos desc offset least(d.used / 5, 2) limit 1),
        (select p.nanos from peaks p where p.d %% 7 = 0 order by p.nanos desc offset 1 limit 1),
        d.nanos / (24 * d.used)
      )
      from days d
      where d.used >= 3 and d.since <= $1 - interval '7 days'
    $query$,
    whose
  ) into usual using hour;
  return usual;
end
$$;

comment on function tollgate.usual_spend(tollgate.usage, timestamptz) is
  'What an org or one of its keys may spend in an hour by its habit: the third highest peak at this time of day in 15 days, the second highest at this hour of the week in four weeks (an hour before or after included), and at least its mean hour. So one or two odd days make no habit, and a weekly peak does. Null without three days of use, the first a week ago. Read by the primary key: by time first.';


create function tollgate.highest_spend(of_org text, hour timestamptz) returns numeric
language sql
stable
set search_path = ''
as $$
  select greatest(max(h.nanos), 3e9)
  from (
    select t.start, sum(t.charge_nanos) as nanos
    from tollgate.tallies t
    where t.cut = 'hour' and t.org_id = of_org and t.start = any (array(
      select highest_spend.hour - make_interval(hours => h) from generate_series(24, 191) h
    ))
    group by t.start
  ) h
  having count(distinct date_trunc('day', h.start, 'UTC')) >= 3
$$;

comment on function tollgate.highest_spend(text, timestamptz) is
  'The most that an org spent in one hour of the week that ended a day before, and at least 3 credits; null unless it was used on three days of it.';


create function tollgate.spend_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  this_hour constant timestamptz := date_trunc('hour', as_of, 'UTC');
  least_nanos constant numeric := 1e9; -- what an hour may cost without a look
  newcomer_nanos constant numeric := 20e9; -- the usual hour of who has none yet
  busy tollgate.usage;
  of_org tollgate.usage;
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
    of_org := busy;
    of_org.key_id := null;
    usual := coalesce(
      tollgate.usual_spend(busy, busy.start),
      case when busy.key_id is null then tollgate.highest_spend(busy.org_id, busy.start) end,
      greatest(case when busy.key_id is not null then tollgate.usual_spend(of_org, busy.start) end, newcomer_nanos)
    );
    signal := case when busy.key_id is null then 'org_spend_times_usual' else 'key_spend_times_usual' end;
    subject := coalesce(busy.key_id, busy.org_id);
    value := round(busy.charge_nanos / greatest(usual, least_nanos), 2);
    return next;
  end loop;
end
$$;

comment on function tollgate.spend_readings(timestamptz) is
  'How many times its usual spend each org and key spent in this clock hour and in the one before: of the 100 that spent most, and at least a credit. Usual for a new key is what is usual for its org, for an org without a habit of a week the most that it spent in an hour before, and for a new one 20 credits.';
