-- What limits leave.

-- The counters' functions call roll() only where a window has turned, to pay for what the others do more.
create function tollgate.room(counters bigint[], limits tollgate.limits, at_ms bigint) returns tollgate.room
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  most_requests bigint[] := array[limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day];
  most_tokens bigint[] := array[limits.tokens_per_minute, limits.tokens_per_hour, limits.tokens_per_day];
  rolled bigint[] := counters;
  room tollgate.room;
  span bigint;
  slid bigint; -- how far the bucket before has slid out of the window
  remaining bigint;
begin
  if limits is null then
    return room;
  end if;
  if (
    rolled[1] >= at_ms / 60000 and rolled[6] >= at_ms / 3600000 and rolled[11] >= at_ms / 86400000
  ) is not true then
    rolled := tollgate.roll(rolled, at_ms);
  end if;
  -- Used is the current bucket and, rounded up, the part of the one before that has not slid out. In bigint, since no
  -- limit is above 10^11.
  for place in 1..3 loop
    span := spans[place];
    slid := at_ms % span;
    remaining := most_requests[place] - rolled[place * 5 - 3]
      - (rolled[place * 5 - 1] * (span - slid) + span - 1) / span;
    if remaining < room.requests_left or (room.requests_left is null and remaining is not null) then
      room.requests_limit := most_requests[place];
      room.requests_left := remaining;
      room.requests_reset_ms := 2 * span - slid;
    end if;
    remaining := most_tokens[place] - rolled[place * 5 - 2]
      - (rolled[place * 5] * (span - slid) + span - 1) / span;
    if remaining < room.tokens_left or (room.tokens_left is null and remaining is not null) then
      room.tokens_limit := most_tokens[place];
      room.tokens_left := remaining;
      room.tokens_reset_ms := 2 * span - slid;
    end if;
  end loop;
  return room;
end
$$;

comment on function tollgate.room(bigint[], tollgate.limits, bigint) is
  'How many requests and how many tokens fit into every window at a time. A request fits when one request and its tokens are left; all windows shrink alike with what is taken at that time, so one look serves a batch.';


create function tollgate.tighter(one tollgate.room, other tollgate.room) returns tollgate.room
language plpgsql
immutable
set search_path = ''
as $$
begin
  if other.requests_left < one.requests_left or one.requests_left is null then
    one.requests_limit := other.requests_limit;
    one.requests_left := other.requests_left;
    one.requests_reset_ms := other.requests_reset_ms;
  end if;
  if other.tokens_left < one.tokens_left or one.tokens_left is null then
    one.tokens_limit := other.tokens_limit;
    one.tokens_left := other.tokens_left;
    one.tokens_reset_ms := other.tokens_reset_ms;
  end if;
  return one;
end
$$;

comment on function tollgate.tighter(tollgate.room, tollgate.room) is 'Of each measure the room of whichever has less left.';


create function tollgate.windows(counters bigint[], limits tollgate.limits, at_ms bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', jsonb_object_agg(w.name, w.shown) filter (where w.measure = 'requests'),
    'tokens', jsonb_object_agg(w.name, w.shown) filter (where w.measure = 'tokens')
  )
  from (
    select l.measure, l.name, jsonb_build_object(
      'limit', l.most,
      'used', c.used,
      'remaining', case when l.most is not null then greatest(0, l.most - c.used) end,
      'resets_at', tollgate.utc(to_timestamp((at_ms - at_ms % l.span + l.span * case
        when rolled[l.counter] > 0 then 2
        when rolled[l.counter + 2] > 0 then 1
      end) / 1000.0))
    ) as shown
    from tollgate.roll(counters, at_ms) rolled,
    lateral (values
      ('requests', 'minute', 60000, limits.requests_per_minute, 2),
      ('requests', 'hour', 3600000, limits.requests_per_hour, 7),
      ('requests', 'day', 86400000, limits.requests_per_day, 12),
      ('tokens', 'minute', 60000, limits.tokens_per_minute, 3),
      ('tokens', 'hour', 3600000, limits.tokens_per_hour, 8),
      ('tokens', 'day', 86400000, limits.tokens_per_day, 13)
    ) l (measure, name, span, most, counter),
    lateral (
      select rolled[l.counter] + (rolled[l.counter + 2] * (l.span - at_ms % l.span) + l.span - 1) / l.span as used
    ) c
  ) w
$$;

comment on function tollgate.windows(bigint[], tollgate.limits, bigint) is
  'The six windows one by one, counted as room() counts them: what is used, what remains of the limit (null without one), and when nothing of it will be left in the window if nothing more comes (null when nothing is).';


create function tollgate.of_requests(limits tollgate.limits) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  select row(
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day, null, null, null
  )::tollgate.limits
$$;

comment on function tollgate.of_requests(tollgate.limits) is 'Those of the limits that count requests.';


create function tollgate.limited(windows jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_object_agg(m.key, (
    select jsonb_object_agg(w.key, case when w.value -> 'limit' <> 'null' then w.value end) from jsonb_each(m.value) w
  ))
  from jsonb_each(windows) m
$$;

comment on function tollgate.limited(jsonb) is 'What windows() tells, null in the place of each that has no limit.';


create function tollgate.concurrent(bound bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'limit', bound,
    'in_flight', open_requests,
    'remaining', case when bound is not null then greatest(0, bound - open_requests) end
  )
$$;

comment on function tollgate.concurrent(bigint, bigint) is
  'How many requests may be open at once, how many are, and how many more may be; null where there is no bound.';
