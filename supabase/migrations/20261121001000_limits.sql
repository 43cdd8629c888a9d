-- Why:  limits must hold exactly, however many instances serve, so they are counted where money is counted.
-- What: limits and counters on orgs and keys; the arithmetic of sliding windows; limit_exceeded().
-- Care: additive: nullable columns and columns with constant defaults, which rewrite nothing.
--
-- A window slides: it counts the current bucket whole and the one before by the part of it that is still inside.
-- Calendar windows would let twice the limit through at the turn. Counters of one subject are fifteen numbers,
-- five for each of minute, hour and day: bucket, requests, tokens, requests before, tokens before.

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
  add column tokens_used_in_all bigint not null default 0;

comment on column tollgate.api_keys.limits is 'The key''s own limits, within the org''s; null is none.';
comment on column tollgate.api_keys.allowed_models is 'Patterns (* stands for anything) of the models the key may use; null is all.';
comment on column tollgate.api_keys.budget_spent_nanos is 'Charges and open holds since budget_period began.';


create function tollgate.window_span(place integer) returns bigint
language sql
immutable
set search_path = ''
as $$
  select (array[60000, 3600000, 86400000])[place]::bigint
$$;

comment on function tollgate.window_span(integer) is 'Milliseconds of the first, second and third window: minute, hour, day.';


create function tollgate.roll(counters bigint[], at_ms bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  rolled bigint[] := coalesce(counters, array_fill(0::bigint, array[15]));
  bucket bigint;
  place integer;
begin
  if rolled[1] >= at_ms / 60000 and rolled[6] >= at_ms / 3600000 and rolled[11] >= at_ms / 86400000 then
    return rolled; -- the usual case, and a clock that went back: then the later buckets stay the current ones
  end if;
  for window_place in 1..3 loop
    place := (window_place - 1) * 5;
    bucket := at_ms / tollgate.window_span(window_place);
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


create function tollgate.limit_exceeded(counters bigint[], limits tollgate.limits, at_ms bigint, tokens bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  most bigint[];
  rolled bigint[] := tollgate.roll(counters, at_ms);
  worst jsonb;
  longest bigint := 0;
  wait bigint;
  place integer;
  measure integer;
  need bigint;
begin
  -- The usual case, in one expression: used is the current bucket and, rounded up, the part of the one before that
  -- has not slid out. In bigint, since no limit is above 10^11.
  if coalesce(rolled[2] + (rolled[4] * (60000 - at_ms % 60000) + 59999) / 60000 + 1 <= limits.requests_per_minute, true)
    and coalesce(rolled[7] + (rolled[9] * (3600000 - at_ms % 3600000) + 3599999) / 3600000 + 1 <= limits.requests_per_hour, true)
    and coalesce(rolled[12] + (rolled[14] * (86400000 - at_ms % 86400000) + 86399999) / 86400000 + 1 <= limits.requests_per_day, true)
    and coalesce(rolled[3] + (rolled[5] * (60000 - at_ms % 60000) + 59999) / 60000 + tokens <= limits.tokens_per_minute, true)
    and coalesce(rolled[8] + (rolled[10] * (3600000 - at_ms % 3600000) + 3599999) / 3600000 + tokens <= limits.tokens_per_hour, true)
    and coalesce(rolled[13] + (rolled[15] * (86400000 - at_ms % 86400000) + 86399999) / 86400000 + tokens <= limits.tokens_per_day, true)
  then
    return null;
  end if;
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
      tollgate.window_span((limit_place - 1) % 3 + 1), at_ms, need, most[limit_place]
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
  'Null when one more request of so many tokens fits into every window; otherwise the window to wait longest for, with retry_after_ms, or null there when no wait would help.';


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
  corrected bigint[] := tollgate.roll(counters, at_ms);
  place integer;
  age bigint;
begin
  for window_place in 1..3 loop
    place := (window_place - 1) * 5;
    age := corrected[place + 1] - taken_at_ms / tollgate.window_span(window_place);
    if age = 0 then
      corrected[place + 3] := greatest(0, corrected[place + 3] + tokens);
    elsif age = 1 then
      corrected[place + 5] := greatest(0, corrected[place + 5] + tokens);
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
