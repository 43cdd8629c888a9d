-- Sliding windows of requests and tokens: three lengths, two buckets each.
--
-- The current bucket counts whole, and the one before it by the part that is still inside the window: calendar windows
-- would let twice the limit through at the turn. The counters of an org or key are fifteen numbers, five for each of
-- minute, hour and day: bucket, requests, tokens, requests before, tokens before. Functions that look at all three
-- know their spans in milliseconds, because a call of another function for each is slow on the hot path.

create function tollgate.roll(counters bigint[], at_ms bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  rolled bigint[] := coalesce(counters, array_fill(0::bigint, array[15]));
  bucket bigint;
  place integer;
begin
  if rolled[1] >= at_ms / 60000 and rolled[6] >= at_ms / 3600000 and rolled[11] >= at_ms / 86400000 then
    return rolled; -- the usual case, and a clock that went back: then the later buckets stay the current ones
  end if;
  for window_place in 1..3 loop
    place := (window_place - 1) * 5;
    bucket := at_ms / spans[window_place];
    if rolled[place + 1] >= bucket then
      continue;
    elsif rolled[place + 1] = bucket - 1 then
      rolled[place + 4] := rolled[place + 2];
      rolled[place + 5] := rolled[place + 3];
    else
      rolled[place + 4] := 0;
      rolled[place + 5] := 0;
    end if;
    rolled[place + 1] := bucket;
    rolled[place + 2] := 0;
    rolled[place + 3] := 0;
  end loop;
  return rolled;
end
$$;

comment on function tollgate.roll(bigint[], bigint) is 'The counters as they stand at a time, before anything is taken.';


create function tollgate.window_wait(
  current bigint,
  before bigint,
  span bigint,
  at_ms bigint,
  need bigint,
  most bigint
) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
declare
  room bigint := most - current - need;
begin
  if need > most then
    return null;
  elsif before = 0 and room >= 0 then
    return 0;
  elsif room >= 0 then
    return greatest(0, span - floor(room::numeric * span / before) - at_ms % span);
  end if;
  -- Only after the turn, when the current bucket is the one before and slides out in its turn.
  return span - at_ms % span + greatest(0, span - floor((most - need)::numeric * span / current));
end
$$;

comment on function tollgate.window_wait(bigint, bigint, bigint, bigint, bigint, bigint) is
  'Milliseconds until `need` fits into a window if nothing else comes; 0 when it fits now, null when it never will.';


create function tollgate.take(counters bigint[], at_ms bigint, requests bigint, tokens bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  r bigint[] := counters;
begin
  if (
    r[1] >= at_ms / 60000 and r[6] >= at_ms / 3600000 and r[11] >= at_ms / 86400000
  ) is not true then
    r := tollgate.roll(r, at_ms);
  end if;
  return array[
    r[1], r[2] + requests, r[3] + tokens, r[4], r[5],
    r[6], r[7] + requests, r[8] + tokens, r[9], r[10],
    r[11], r[12] + requests, r[13] + tokens, r[14], r[15]
  ];
end
$$;

comment on function tollgate.take(bigint[], bigint, bigint, bigint) is 'Counts in every window at once.';


create function tollgate.correct(counters bigint[], taken_at_ms bigint, at_ms bigint, tokens bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  corrected bigint[] := counters;
  age bigint;
begin
  if (
    corrected[1] >= at_ms / 60000 and corrected[6] >= at_ms / 3600000 and corrected[11] >= at_ms / 86400000
  ) is not true then
    corrected := tollgate.roll(corrected, at_ms);
  end if;
  if corrected[1] = taken_at_ms / 60000 and corrected[6] = taken_at_ms / 3600000
    and corrected[11] = taken_at_ms / 86400000
  then -- the usual case: it was taken in the buckets that are current
    return array[
      corrected[1], corrected[2], greatest(0, corrected[3] + tokens), corrected[4], corrected[5],
      corrected[6], corrected[7], greatest(0, corrected[8] + tokens), corrected[9], corrected[10],
      corrected[11], corrected[12], greatest(0, corrected[13] + tokens), corrected[14], corrected[15]
    ];
  end if;
  for place in 1..3 loop
    age := corrected[place * 5 - 4] - taken_at_ms / spans[place];
    if age = 0 then
      corrected[place * 5 - 2] := greatest(0, corrected[place * 5 - 2] + tokens);
    elsif age = 1 then
      corrected[place * 5] := greatest(0, corrected[place * 5] + tokens);
    end if;
  end loop;
  return corrected;
end
$$;

comment on function tollgate.correct(bigint[], bigint, bigint, bigint) is
  'Adds the difference between tokens reserved at one time and tokens used, in the buckets that reserved them.';


create function tollgate.limit_exceeded(counters bigint[], limits tollgate.limits, at_ms bigint, tokens bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  most bigint[];
  rolled bigint[] := tollgate.roll(counters, at_ms);
  worst jsonb;
  longest bigint := 0;
  wait bigint;
  place integer;
  measure integer;
  need bigint;
begin
  most := array[
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day,
    limits.tokens_per_minute, limits.tokens_per_hour, limits.tokens_per_day
  ];
  for limit_place in 1..6 loop
    continue when most[limit_place] is null;
    place := (limit_place - 1) % 3 * 5;
    measure := (limit_place - 1) / 3;
    need := case measure when 0 then 1 else tokens end;
    wait := tollgate.window_wait(
      rolled[place + 2 + measure], rolled[place + 4 + measure],
      spans[(limit_place - 1) % 3 + 1], at_ms, need, most[limit_place]
    );
    if wait is null or wait > longest then
      worst := jsonb_build_object(
        'window', (array['minute', 'hour', 'day'])[(limit_place - 1) % 3 + 1],
        'measure', (array['requests', 'tokens'])[measure + 1],
        'limit', most[limit_place],
        'needed', need,
        'retry_after_ms', wait
      );
      exit when wait is null;
      longest := wait;
    end if;
  end loop;
  return worst;
end
$$;

comment on function tollgate.limit_exceeded(bigint[], tollgate.limits, bigint, bigint) is
  'Null when one more request of so many tokens fits into every window; otherwise the window to wait longest for, with retry_after_ms, or null there when no wait would help. Says why room() is short.';
