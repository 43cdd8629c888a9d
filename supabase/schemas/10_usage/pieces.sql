-- Usage of any span of time, read from as few rows as possible: months, days, hours, then requests.
--
-- tollgate.usage_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns setof tollgate.usage
--   by       any of minute, hour, day, month, org, user, key, model, upstream; '{}' is one row of everything, or none
--   since    counted from here; null is from the beginning
--   until    to before here; null is until now
--   filters  org_id, user_id, key_id, model, upstream, each optional
-- A row: start (of the minute, hour, day or month, UTC), org_id, user_id, key_id, model, upstream (null unless asked
-- for), requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at,
-- cached_tokens (of the prompt), reasoning_tokens (of the completion).
--
-- It is stable, so it reads one snapshot: rolled up rows and the others add up exactly. A request counts at the time of its
-- admission, from then on, with what is known of it. Whole days and months are cheap, and so is all time; minutes and
-- parts of hours are read from the requests.

create function tollgate.pieces(since timestamptz, until timestamptz, units text[]) returns setof tollgate.piece
language plpgsql
stable
set search_path = ''
as $$
declare
  state tollgate.rolled;
  piece tollgate.piece := row('request', coalesce(since, '-infinity'), coalesce(until, 'infinity'));
  unit text;
  within tollgate.piece;
begin
  select r.* into state from tollgate.rolled r;
  if piece.beginning < state.dropped_until then
    piece.beginning := tollgate.first_of('hour', piece.beginning);
  end if;
  if piece.ending < state.dropped_until then
    piece.ending := tollgate.first_of('hour', piece.ending);
  end if;

  -- From the ends inwards: whole units in the middle, and on both sides the rest, in the next finer unit.
  foreach unit in array units loop
    within.of_what := unit;
    within.beginning := tollgate.first_of(unit, piece.beginning);
    -- The current day has a row of what is rolled up, so up to there it counts as a whole unit.
    within.ending := case when piece.ending >= state.rolled_until then state.rolled_until
      else date_trunc(unit, piece.ending, 'UTC') end;
    exit when within.beginning >= within.ending;
    return query select p.* from (values
      (piece.of_what, piece.beginning, within.beginning),
      (piece.of_what, within.ending, piece.ending),
      (case piece.of_what when 'request' then 'late' end, within.beginning, within.ending)
    ) p (of_what, beginning, ending)
    where p.of_what is not null and p.beginning < p.ending;
    piece := within;
  end loop;
  return next piece;
end
$$;

comment on function tollgate.pieces(timestamptz, timestamptz, text[]) is
  'Divides a span of time into adjacent pieces: the coarsest unit (of hour, day, month; `units` lists the finest first) in the middle, finer units toward the ends, and requests where no unit fits or nothing is rolled up. The piece `late` covers the rolled up part: requests that it does not count yet. Where requests were dropped, both ends move to the next full hour, so that adjacent spans never count an hour twice.';


create function tollgate.in_piece(piece tollgate.piece, grain text) returns text
language sql
immutable
set search_path = ''
as $$
  select case piece.of_what
    when 'request' then format('t.created_at >= %L and t.created_at < %L', piece.beginning, piece.ending)
    when 'late' then format(
      't.id = any (array(select l.request_id from tollgate.late_requests l where l.created_at >= %L and l.created_at < %L))',
      piece.beginning, piece.ending
    )
    else format('t.cut = %L and t.start >= %L and t.start < %L', piece.of_what || grain, piece.beginning, piece.ending)
  end
$$;

comment on function tollgate.in_piece(tollgate.piece, text) is
  'A piece as a condition on `t`: on requests or, for a unit, on the tallies or latencies of that grain.';


create function tollgate.wanted(filters jsonb, columns text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(string_agg(format(
    case f.value when '' then ' and coalesce(t.%I, '''') = %L' else ' and t.%I = %L' end, f.key, f.value
  ), '' order by f.key), '')
  from jsonb_each_text(filters) f
  where f.key = any (columns)
$$;

comment on function tollgate.wanted(jsonb, text[]) is 'The filters on these columns as an SQL condition on `t`. An empty value is that of requests without one. Values are quoted as literals.';


create function tollgate.with_org(filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select filters || jsonb_strip_nulls(jsonb_build_object('org_id', coalesce(
    filters ->> 'org_id',
    (select k.org_id from tollgate.api_keys k where k.id = filters ->> 'key_id'),
    (select u.org_id from tollgate.users u where u.id = filters ->> 'user_id')
  )))
$$;

comment on function tollgate.with_org(jsonb) is
  'The filters, and the org of their key or user: its index finds the requests.';


create function tollgate.usage_by(
  by text[],
  since timestamptz default null,
  until timestamptz default null,
  filters jsonb default '{}'
) returns setof tollgate.usage
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  unit constant text := (select u from unnest(array['minute', 'hour', 'day', 'month']) u where u = any (by) limit 1);
  units constant text[] := case unit when 'minute' then '{}' when 'hour' then '{hour}' when 'day' then '{hour,day}'
    else '{hour,day,month}' end;
  people constant boolean := by && '{org,user,key}' or filters ?| '{org_id,user_id,key_id}';
  models constant boolean := by && '{model,upstream}' or filters ?| '{model,upstream}';
  wanted constant text := tollgate.wanted(
    tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream']
  );
  raw constant text := $raw$
    select t.created_at as start, t.org_id, t.user_id, t.key_id, t.model, coalesce(t.upstream, '') as upstream,
      1 as requests, ((t.error_code is not null or t.status >= 400) is true)::integer as errors,
      t.streamed::integer as streamed, t.estimated::integer as estimated,
      t.prompt_tokens::bigint, t.completion_tokens::bigint, t.charge_nanos::bigint, t.cost_nanos::bigint, t.created_at as last_at,
      tollgate.cached_tokens(t.usage, t.prompt_tokens) as cached_tokens,
      tollgate.reasoning_tokens(t.usage, t.completion_tokens) as reasoning_tokens
    from tollgate.requests t where $raw$;
  tallied constant text := $tallied$
    select t.start, t.org_id, t.user_id, t.key_id, t.model, t.upstream, t.requests, t.errors, t.streamed, t.estimated,
      t.prompt_tokens, t.completion_tokens, t.charge_nanos, t.cost_nanos, t.last_at, t.cached_tokens, t.reasoning_tokens
    from tollgate.tallies t where $tallied$;
  selected constant text := concat_ws(', ',
    case when unit is null then 'null::timestamptz' else format('date_trunc(%L, t.start, ''UTC'')', unit) end,
    case when 'org' = any (by) then 't.org_id' else 'null::text' end,
    case when 'user' = any (by) then 't.user_id' else 'null::text' end,
    case when 'key' = any (by) then 't.key_id' else 'null::text' end,
    case when 'model' = any (by) then 't.model' else 'null::text' end,
    case when 'upstream' = any (by) then 'nullif(t.upstream, '''')' else 'null::text' end
  );
  parts text;
begin
  select string_agg(
    case p.of_what when 'request' then raw when 'late' then raw else tallied end
    || tollgate.in_piece(p, case when not people then '_model' when models or p.of_what = 'hour' then '' else '_key' end)
    || wanted,
    ' union all '
  ) into parts
  from tollgate.pieces(since, until, units) p;
  return query execute format(
    $query$
      select %1$s,
        coalesce(sum(t.requests), 0)::bigint, coalesce(sum(t.errors), 0)::bigint,
        coalesce(sum(t.streamed), 0)::bigint, coalesce(sum(t.estimated), 0)::bigint,
        coalesce(sum(t.prompt_tokens), 0)::bigint, coalesce(sum(t.completion_tokens), 0)::bigint,
        coalesce(sum(t.charge_nanos), 0)::bigint, coalesce(sum(t.cost_nanos), 0)::bigint, max(t.last_at),
        coalesce(sum(t.cached_tokens), 0)::bigint, coalesce(sum(t.reasoning_tokens), 0)::bigint
      from (%2$s) t
      group by %3$s
    $query$,
    selected, parts, case when by = '{}' then '()' else '1, 2, 3, 4, 5, 6' end
  );
end
$$;

comment on function tollgate.usage_by(text[], timestamptz, timestamptz, jsonb) is
  'What was used in a span of time, by any of minute, hour, day, month, org, user, key, model, upstream. Reads rolled up hours, days and months where whole ones lie within, and requests at the ends, after what was rolled up, and where they are late: each request counts exactly once. Where requests were dropped, an hour counts when it begins within the span.';
