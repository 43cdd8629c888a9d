-- Why:  limits must hold exactly, however many instances serve, so they are counted where money is counted.
-- What: limits and counters on orgs and keys; the arithmetic of sliding windows; room() and limit_exceeded().
-- Care: additive. `counted` is computed and stored, which rewrites api_keys once; the other columns are nullable or
--       have constant defaults, which rewrite nothing.
--
-- A window slides: it counts the current bucket whole and the one before by the part of it that is still inside.
-- Calendar windows would let twice the limit through at the turn. Counters of one subject are fifteen numbers,
-- five for each of minute, hour and day: bucket, requests, tokens, requests before, tokens before. The functions that
-- look at all three know their spans in milliseconds, rather than call another function for each on the hot path.

create domain tollgate.counters as bigint[] check (value is null or cardinality(value) = 15);

comment on domain tollgate.counters is 'For minute, hour and day: bucket, requests, tokens, requests in the bucket before, tokens in it.';

create type tollgate.limits as (
  requests_per_minute bigint,
  requests_per_hour bigint,
  requests_per_day bigint,
  tokens_per_minute bigint,
  tokens_per_hour bigint,
  tokens_per_day bigint
);

comment on type tollgate.limits is 'Six limits; null is none.';

alter table tollgate.orgs
  add column limits tollgate.limits,
  add column counters tollgate.counters;

comment on column tollgate.orgs.limits is 'The org''s own limits; null follows the plan.';

alter table tollgate.api_keys
  add column limits tollgate.limits,
  add column counters tollgate.counters,
  add column allowed_models text[],
  add column budget_nanos bigint check (budget_nanos >= 0),
  add column budget_reset text check (budget_reset in ('daily', 'weekly', 'monthly', 'never')),
  add column budget_period date,
  add column budget_spent_nanos bigint not null default 0,
  add column tokens_per_month bigint check (tokens_per_month >= 0),
  add column tokens_in_all bigint check (tokens_in_all >= 0),
  add column month_of_tokens date,
  add column tokens_used_in_month bigint not null default 0,
  add column tokens_used_in_all bigint not null default 0,
  add column counted boolean not null generated always as (
    budget_nanos is not null or tokens_per_month is not null or tokens_in_all is not null or not limits is null
  ) stored;

comment on column tollgate.api_keys.limits is 'The key''s own limits, within the org''s; null is none.';
comment on column tollgate.api_keys.allowed_models is 'Patterns (* stands for anything) of the models the key may use; null is all.';
comment on column tollgate.api_keys.budget_spent_nanos is 'Charges and open holds since budget_period began.';
comment on column tollgate.api_keys.counted is 'Whether the key has limits, a budget or a quota of its own. The row of any other is left alone by requests.';


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


create type tollgate.room as (
  requests_limit bigint,
  requests_left bigint,
  requests_reset_ms bigint,
  tokens_limit bigint,
  tokens_left bigint,
  tokens_reset_ms bigint
);

comment on type tollgate.room is 'Of each measure the window with the least left: its limit, what is left, and how long a request of this moment stays in it. Nulls where no window of the measure has a limit.';


create function tollgate.room(counters bigint[], limits tollgate.limits, at_ms bigint) returns tollgate.room
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  most_requests bigint[] := array[limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day];
  most_tokens bigint[] := array[limits.tokens_per_minute, limits.tokens_per_hour, limits.tokens_per_day];
  rolled bigint[];
  room tollgate.room;
  span bigint;
  slid bigint; -- how far the bucket before has slid out of the window
  remaining bigint;
begin
  if limits is null then
    return room;
  end if;
  rolled := tollgate.roll(counters, at_ms);
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


create function tollgate.take(counters bigint[], at_ms bigint, requests bigint, tokens bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  r bigint[] := tollgate.roll(counters, at_ms);
begin
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
  corrected bigint[] := tollgate.roll(counters, at_ms);
  age bigint;
begin
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


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001000'
$$;

revoke execute on all functions in schema tollgate from public;
