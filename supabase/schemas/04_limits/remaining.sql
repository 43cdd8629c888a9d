-- What limits leave.

create function tollgate.remaining(counters tollgate.counters, limits tollgate.limits, at_ms bigint)
returns tollgate.remaining
language plpgsql
immutable
set search_path = ''
as $$
declare
  remaining tollgate.remaining;
  -- How much of the previous bucket is still inside the window.
  minute_rest constant bigint := 60000 - at_ms % 60000;
  hour_rest constant bigint := 3600000 - at_ms % 3600000;
  day_rest constant bigint := 86400000 - at_ms % 86400000;
  in_minute bigint;
  in_hour bigint;
  in_day bigint;
begin
  if limits is null then
    return remaining;
  end if;
  if (
    counters.minute_bucket >= at_ms / 60000 and counters.hour_bucket >= at_ms / 3600000
    and counters.day_bucket >= at_ms / 86400000
  ) is not true then
    counters := tollgate.roll(counters, at_ms);
  end if;
  -- Used: the current bucket, and the part of the previous one that is still inside, rounded up.
  in_minute := limits.requests_per_minute - counters.minute_requests
    - (counters.minute_requests_before * minute_rest + 59999) / 60000;
  in_hour := limits.requests_per_hour - counters.hour_requests
    - (counters.hour_requests_before * hour_rest + 3599999) / 3600000;
  in_day := limits.requests_per_day - counters.day_requests
    - (counters.day_requests_before * day_rest + 86399999) / 86400000;
  remaining.requests_left := least(in_minute, in_hour, in_day);
  remaining.requests_limit := case remaining.requests_left
    when in_minute then limits.requests_per_minute
    when in_hour then limits.requests_per_hour
    when in_day then limits.requests_per_day
  end;
  remaining.requests_reset_ms := case remaining.requests_left
    when in_minute then 60000 + minute_rest
    when in_hour then 3600000 + hour_rest
    when in_day then 86400000 + day_rest
  end;
  in_minute := limits.tokens_per_minute - counters.minute_tokens
    - (counters.minute_tokens_before * minute_rest + 59999) / 60000;
  in_hour := limits.tokens_per_hour - counters.hour_tokens
    - (counters.hour_tokens_before * hour_rest + 3599999) / 3600000;
  in_day := limits.tokens_per_day - counters.day_tokens
    - (counters.day_tokens_before * day_rest + 86399999) / 86400000;
  remaining.tokens_left := least(in_minute, in_hour, in_day);
  remaining.tokens_limit := case remaining.tokens_left
    when in_minute then limits.tokens_per_minute
    when in_hour then limits.tokens_per_hour
    when in_day then limits.tokens_per_day
  end;
  remaining.tokens_reset_ms := case remaining.tokens_left
    when in_minute then 60000 + minute_rest
    when in_hour then 3600000 + hour_rest
    when in_day then 86400000 + day_rest
  end;
  return remaining;
end
$$;

comment on function tollgate.remaining(tollgate.counters, tollgate.limits, bigint) is
  'How many requests and how many tokens fit into every window at a time. A request fits when one request and its tokens are left; what is taken at that time lowers all windows alike, so a batch calls this once. In bigint, since no limit is above 10^11.';


create function tollgate.tighter(one tollgate.remaining, other tollgate.remaining) returns tollgate.remaining
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

comment on function tollgate.tighter(tollgate.remaining, tollgate.remaining) is 'For each measure, whichever has less left.';


create function tollgate.windows(counters tollgate.counters, limits tollgate.limits, at_ms bigint) returns jsonb
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
      'used', u.used,
      'remaining', case when l.most is not null then greatest(0, l.most - u.used) end,
      'resets_at', tollgate.utc(to_timestamp((at_ms - at_ms % l.span + l.span * case
        when l.current > 0 then 2
        when l.before > 0 then 1
      end) / 1000.0))
    ) as shown
    from tollgate.roll(counters, at_ms) c,
    lateral (values
      ('requests', 'minute', 60000, limits.requests_per_minute, c.minute_requests, c.minute_requests_before),
      ('requests', 'hour', 3600000, limits.requests_per_hour, c.hour_requests, c.hour_requests_before),
      ('requests', 'day', 86400000, limits.requests_per_day, c.day_requests, c.day_requests_before),
      ('tokens', 'minute', 60000, limits.tokens_per_minute, c.minute_tokens, c.minute_tokens_before),
      ('tokens', 'hour', 3600000, limits.tokens_per_hour, c.hour_tokens, c.hour_tokens_before),
      ('tokens', 'day', 86400000, limits.tokens_per_day, c.day_tokens, c.day_tokens_before)
    ) l (measure, name, span, most, current, before),
    lateral (select l.current + (l.before * (l.span - at_ms % l.span) + l.span - 1) / l.span as used) u
  ) w
$$;

comment on function tollgate.windows(tollgate.counters, tollgate.limits, bigint) is
  'The six windows one by one, counted as remaining() counts them: what is used, what remains of the limit (null without one), and when the window will be empty if no more requests come (null when it is empty).';


create function tollgate.of_requests(limits tollgate.limits) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  select row(
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day, null, null, null
  )::tollgate.limits
$$;

comment on function tollgate.of_requests(tollgate.limits) is 'The limits of requests, without those of tokens.';


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


create function tollgate.in_flight_refusal(most bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(429, 'too_many_in_flight', jsonb_build_object(
    'limit', most, 'in_flight', open_requests, 'of', 'org'
  ))
$$;

comment on function tollgate.in_flight_refusal(bigint, bigint) is
  'The refusal of an org that has as many requests open as it may.';
