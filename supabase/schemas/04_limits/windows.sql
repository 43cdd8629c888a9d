-- Sliding windows of requests and tokens: three lengths, two buckets each.
--
-- The current bucket counts in full, and the previous one by the part that is still inside the window. With calendar
-- windows, twice the limit would pass around the turn of an hour. Each window is written out, because a loop over arrays
-- costs twice as much on the hot path. For the same reason the functions call roll() only when a window has turned.

create function tollgate.roll(counters tollgate.counters, at_ms bigint) returns tollgate.counters
language plpgsql
immutable
set search_path = ''
as $$
declare
  minute constant bigint := at_ms / 60000;
  hour constant bigint := at_ms / 3600000;
  day constant bigint := at_ms / 86400000;
  follows boolean; -- whether the bucket in the counters is the previous one
begin
  -- When the clock goes back, the later buckets stay the current ones.
  if (counters.minute_bucket >= minute) is not true then
    follows := counters.minute_bucket = minute - 1;
    counters.minute_requests_before := case when follows then counters.minute_requests else 0 end;
    counters.minute_tokens_before := case when follows then counters.minute_tokens else 0 end;
    counters.minute_bucket := minute;
    counters.minute_requests := 0;
    counters.minute_tokens := 0;
  end if;
  if (counters.hour_bucket >= hour) is not true then
    follows := counters.hour_bucket = hour - 1;
    counters.hour_requests_before := case when follows then counters.hour_requests else 0 end;
    counters.hour_tokens_before := case when follows then counters.hour_tokens else 0 end;
    counters.hour_bucket := hour;
    counters.hour_requests := 0;
    counters.hour_tokens := 0;
  end if;
  if (counters.day_bucket >= day) is not true then
    follows := counters.day_bucket = day - 1;
    counters.day_requests_before := case when follows then counters.day_requests else 0 end;
    counters.day_tokens_before := case when follows then counters.day_tokens else 0 end;
    counters.day_bucket := day;
    counters.day_requests := 0;
    counters.day_tokens := 0;
  end if;
  return counters;
end
$$;

comment on function tollgate.roll(tollgate.counters, bigint) is 'The counters as they stand at a time, before anything is taken.';


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
  spare bigint := most - current - need;
begin
  if need > most then
    return null;
  elsif before = 0 and spare >= 0 then
    return 0;
  elsif spare >= 0 then
    return greatest(0, span - floor(spare::numeric * span / before) - at_ms % span);
  end if;
  -- Only after the next turn, when the current bucket has become the previous one.
  return span - at_ms % span + greatest(0, span - floor((most - need)::numeric * span / current));
end
$$;

comment on function tollgate.window_wait(bigint, bigint, bigint, bigint, bigint, bigint) is
  'Milliseconds until `need` fits into a window if nothing else comes; 0 when it fits now, null when it never will.';


create function tollgate.take(counters tollgate.counters, at_ms bigint, requests bigint, tokens bigint)
returns tollgate.counters
language plpgsql
immutable
set search_path = ''
as $$
begin
  if (
    counters.minute_bucket >= at_ms / 60000 and counters.hour_bucket >= at_ms / 3600000
    and counters.day_bucket >= at_ms / 86400000
  ) is not true then
    counters := tollgate.roll(counters, at_ms);
  end if;
  counters.minute_requests := counters.minute_requests + requests;
  counters.minute_tokens := counters.minute_tokens + tokens;
  counters.hour_requests := counters.hour_requests + requests;
  counters.hour_tokens := counters.hour_tokens + tokens;
  counters.day_requests := counters.day_requests + requests;
  counters.day_tokens := counters.day_tokens + tokens;
  return counters;
end
$$;

comment on function tollgate.take(tollgate.counters, bigint, bigint, bigint) is 'Counts in every window at once.';


create function tollgate.correct(counters tollgate.counters, taken_at_ms bigint, at_ms bigint, tokens bigint)
returns tollgate.counters
language plpgsql
immutable
set search_path = ''
as $$
begin
  if (
    counters.minute_bucket >= at_ms / 60000 and counters.hour_bucket >= at_ms / 3600000
    and counters.day_bucket >= at_ms / 86400000
  ) is not true then
    counters := tollgate.roll(counters, at_ms);
  end if;
  if counters.minute_bucket = taken_at_ms / 60000 then
    counters.minute_tokens := greatest(0, counters.minute_tokens + tokens);
  elsif counters.minute_bucket = taken_at_ms / 60000 + 1 then
    counters.minute_tokens_before := greatest(0, counters.minute_tokens_before + tokens);
  end if;
  if counters.hour_bucket = taken_at_ms / 3600000 then
    counters.hour_tokens := greatest(0, counters.hour_tokens + tokens);
  elsif counters.hour_bucket = taken_at_ms / 3600000 + 1 then
    counters.hour_tokens_before := greatest(0, counters.hour_tokens_before + tokens);
  end if;
  if counters.day_bucket = taken_at_ms / 86400000 then
    counters.day_tokens := greatest(0, counters.day_tokens + tokens);
  elsif counters.day_bucket = taken_at_ms / 86400000 + 1 then
    counters.day_tokens_before := greatest(0, counters.day_tokens_before + tokens);
  end if;
  return counters;
end
$$;

comment on function tollgate.correct(tollgate.counters, bigint, bigint, bigint) is
  'Adds the difference between tokens reserved at one time and tokens used, in the buckets that reserved them.';


create function tollgate.limit_exceeded(counters tollgate.counters, limits tollgate.limits, at_ms bigint, tokens bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  now_in tollgate.counters := tollgate.roll(counters, at_ms);
  most constant bigint[] := array[
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day,
    limits.tokens_per_minute, limits.tokens_per_hour, limits.tokens_per_day
  ];
  current constant bigint[] := array[
    now_in.minute_requests, now_in.hour_requests, now_in.day_requests,
    now_in.minute_tokens, now_in.hour_tokens, now_in.day_tokens
  ];
  before constant bigint[] := array[
    now_in.minute_requests_before, now_in.hour_requests_before, now_in.day_requests_before,
    now_in.minute_tokens_before, now_in.hour_tokens_before, now_in.day_tokens_before
  ];
  worst jsonb;
  longest bigint := 0;
  wait bigint;
  need bigint;
  span bigint;
  rest bigint; -- until the window turns
begin
  for place in 1..6 loop
    continue when most[place] is null;
    need := case when place <= 3 then 1 else tokens end;
    span := spans[(place - 1) % 3 + 1];
    rest := span - at_ms % span;
    wait := tollgate.window_wait(current[place], before[place], span, at_ms, need, most[place]);
    if wait is null or wait > longest then
      worst := jsonb_build_object(
        'window', (array['minute', 'hour', 'day'])[(place - 1) % 3 + 1],
        'measure', case when place <= 3 then 'requests' else 'tokens' end,
        'limit', most[place],
        'needed', need,
        'left', greatest(0, most[place] - current[place] - (before[place] * rest + span - 1) / span),
        'reset_ms', rest + case when current[place] > 0 then span else 0 end,
        'retry_after_ms', wait
      );
      exit when wait is null;
      longest := wait;
    end if;
  end loop;
  return worst;
end
$$;

comment on function tollgate.limit_exceeded(tollgate.counters, tollgate.limits, bigint, bigint) is
  'Null when one more request of so many tokens fits into every window; otherwise the window to wait longest for, with retry_after_ms, or null there when no wait would help. Explains a refusal that remaining() decided.';


create function tollgate.rate_refusal(
  counters tollgate.counters,
  limits tollgate.limits,
  at_ms bigint,
  tokens bigint,
  subject jsonb default '{"of": "org"}'
) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(
    429, 'rate_limit_exceeded', tollgate.limit_exceeded(counters, limits, at_ms, tokens) || subject
  )
$$;

comment on function tollgate.rate_refusal(tollgate.counters, tollgate.limits, bigint, bigint, jsonb) is
  'The refusal of a request of so many tokens by the windows of an org or, as `subject` says, of a user or a key.';
