-- Why:  what was used must be known over any time, told apart by whatever one asks for.
-- What: the functions that read tallies, latencies and the requests not rolled up yet as one; aggregates, series,
--       latencies, and what each key used.
-- Care: reads only, but for what recognise() notes of a key's use.
--
-- How usage is read, for migrations that build on this one:
--
--   tollgate.usage_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns setof tollgate.usage
--     by       any of minute, hour, day, month, org, user, key, model, upstream; '{}' is one row of everything, or none
--     since    counted from here; null is from the beginning
--     until    to before here; null is until now
--     filters  org_id, user_id, key_id, model, upstream, each optional
--   A row: start (of the minute, hour, day or month, UTC), org_id, user_id, key_id, model, upstream (null unless asked
--   for), requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at.
--
--   tollgate.latency_between(kind text, since timestamptz, until timestamptz, filters jsonb) returns tollgate.latency
--     kind     whole | first_token
--     filters  org_id, user_id, key_id, model, upstream
--   A row: requests, average_ms, p50_ms, p90_ms, p95_ms, p99_ms, within 5 %.
--
-- Both are stable and so see one moment: rolled rows and those not rolled yet add up exactly. A request counts at the
-- time it was made, from the moment it is admitted, with what is known of it. Whole days and months are cheap, and all
-- time is; minutes are read from the requests themselves, as is whatever no whole hour covers.

create type tollgate.usage as (
  start timestamptz,
  org_id text,
  user_id text,
  key_id text,
  model text,
  upstream text,
  requests bigint,
  errors bigint,
  streamed bigint,
  estimated bigint,
  prompt_tokens bigint,
  completion_tokens bigint,
  charge_nanos bigint,
  cost_nanos bigint,
  last_at timestamptz
);

comment on type tollgate.usage is 'What was used, by whatever was asked for; the rest of start … upstream is null.';


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
  'The filters and the org that they lead to, by whose index its requests are found.';


create type tollgate.piece as (of_what text, beginning timestamptz, ending timestamptz);

comment on type tollgate.piece is 'A part of a time, and what to read of it: request, late, hour, day or month.';


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

  -- From outside inwards: the whole units within, and on either side of them what is left, in the unit before.
  foreach unit in array units loop
    within.of_what := unit;
    within.beginning := tollgate.first_of(unit, piece.beginning);
    -- A day that is running is a row of what is rolled up of it, so up to there it is a whole one too.
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
  'A time in pieces that lie side by side: the coarsest of the units (of hour, day, month, the finest first) in its middle, finer ones toward its ends, requests themselves where no unit fits or nothing is rolled up; and `late`, over all that units cover: those which they do not count yet. Where requests were dropped, both ends move on to the next full hour, so that times side by side never share one.';


create function tollgate.wanted(filters jsonb, columns text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(string_agg(format(' and t.%I = %L', f.key, f.value), '' order by f.key), '')
  from jsonb_each_text(filters) f
  where f.key = any (columns)
$$;

comment on function tollgate.wanted(jsonb, text[]) is 'The filters on these columns as a condition on `t`.';


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
  'A piece as a condition on `t`, which is requests or, of a unit, the tallies or latencies of that grain.';


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
      t.prompt_tokens::bigint, t.completion_tokens::bigint, t.charge_nanos::bigint, t.cost_nanos::bigint, t.created_at as last_at
    from tollgate.requests t where $raw$;
  tallied constant text := $tallied$
    select t.start, t.org_id, t.user_id, t.key_id, t.model, t.upstream, t.requests, t.errors, t.streamed, t.estimated,
      t.prompt_tokens, t.completion_tokens, t.charge_nanos, t.cost_nanos, t.last_at
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
        coalesce(sum(t.charge_nanos), 0)::bigint, coalesce(sum(t.cost_nanos), 0)::bigint, max(t.last_at)
      from (%2$s) t
      group by %3$s
    $query$,
    selected, parts, case when by = '{}' then '()' else '1, 2, 3, 4, 5, 6' end
  );
end
$$;

comment on function tollgate.usage_by(text[], timestamptz, timestamptz, jsonb) is
  'What was used from a time until before another, by any of minute, hour, day, month, org, user, key, model, upstream. Rolled hours, days and months where whole ones lie between, requests themselves at the edges, after what was rolled up, and where they are late: every request is counted exactly once. Where requests were dropped, an hour counts when it begins in the time asked for.';


create type tollgate.latency as (
  requests bigint,
  average_ms numeric,
  p50_ms bigint,
  p90_ms bigint,
  p95_ms bigint,
  p99_ms bigint
);

comment on type tollgate.latency is 'How long requests took; nulls where there were none.';


create function tollgate.latency_between(
  kind text,
  since timestamptz default null,
  until timestamptz default null,
  filters jsonb default '{}'
) returns tollgate.latency
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  models constant boolean := filters ?| '{model,upstream}';
  units constant text[] := case when filters ?| '{org_id,user_id,key_id}' then '{}' when models then '{day}'
    else '{hour,day}' end;
  measured constant text := case kind when 'whole' then 'duration_ms' else 'first_token_ms' end;
  raw constant text := format($raw$
    select floor(ln(greatest(t.%1$I, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      1 as requests, t.%1$I::bigint as total_ms
    from tollgate.requests t
    where t.%1$I is not null and t.settled_at is not null 
      and (t.error_code is not null or t.status >= 400) is not true %2$s $raw$,
    measured,
    tollgate.wanted(tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream'])
  );
  rolled constant text := format(
    'select t.bucket, t.requests, t.total_ms from tollgate.latencies t where t.kind = %L %s',
    kind,
    tollgate.wanted(filters, array['model', 'upstream'])
  );
  parts text;
  found_latency tollgate.latency;
begin
  select string_agg(
    case p.of_what when 'request' then raw when 'late' then raw else rolled end
    || ' and ' || tollgate.in_piece(p, case when models then '_model' else '' end),
    ' union all '
  ) into parts
  from tollgate.pieces(since, until, units) p;
  execute format(
    $query$
      with buckets as (
        select t.bucket, sum(t.requests) as requests, sum(t.total_ms) as total_ms
        from (
          %s
        ) t
        group by t.bucket
      ),
      ranked as (
        select b.*, sum(b.requests) over (order by b.bucket) as up_to, sum(b.requests) over () as of_all,
          round(b.total_ms / b.requests) as ms
        from buckets b
      )
      select
        coalesce(max(r.of_all), 0), round(sum(r.total_ms) / max(r.of_all), 1),
        min(r.ms) filter (where r.up_to >= 0.50 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.90 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.95 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.99 * r.of_all)
      from ranked r
    $query$,
    parts
  ) into found_latency;
  return found_latency;
end
$$;

comment on function tollgate.latency_between(text, timestamptz, timestamptz, jsonb) is
  'How long requests without an error took, whole or until their first token, within 5 %: a percentile is the mean of the bucket it lies in. From rolled hours and days, by model or upstream from whole days only; of an org, user or key from its requests themselves, for which the caller bounds the span.';


create function tollgate.credits_of(nanos bigint) returns numeric
language sql
immutable
set search_path = ''
as $$
  select trim_scale(nanos / 1000000000.0)
$$;

comment on function tollgate.credits_of(bigint) is 'Nanos as credits, for people to read.';


create function tollgate.own_or_all(actor tollgate.caller, filters jsonb, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when everyone then filters else filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')) end
$$;

comment on function tollgate.own_or_all(tollgate.caller, jsonb, boolean) is
  'The filters, over the caller''s own org unless it asks for everyone''s.';


create function tollgate.measures(used tollgate.usage, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', used.requests,
    'errors', used.errors,
    'streamed', used.streamed,
    'estimated', used.estimated,
    'prompt_tokens', used.prompt_tokens,
    'completion_tokens', used.completion_tokens,
    'charge_nanos', used.charge_nanos,
    'charge_credits', tollgate.credits_of(used.charge_nanos)
  ) || case when everyone then jsonb_build_object(
    'cost_nanos', used.cost_nanos,
    'cost_credits', tollgate.credits_of(used.cost_nanos),
    'margin_nanos', used.charge_nanos - used.cost_nanos,
    'margin_credits', tollgate.credits_of(used.charge_nanos - used.cost_nanos)
  ) else '{}' end
$$;

comment on function tollgate.measures(tollgate.usage, boolean) is
  'What was used, as answers tell it; cost and margin only where it is everyone''s.';


create function tollgate.group_id(start timestamptz, org_id text, user_id text, key_id text, model text, upstream text) returns text
language sql
immutable
set search_path = ''
as $$
  select md5(jsonb_build_array(start, org_id, user_id, key_id, model, upstream)::text)
$$;

comment on function tollgate.group_id(timestamptz, text, text, text, text, text) is 'By what a cursor finds its place among groups.';


create function public.tollgate_usage_aggregate(
  caller jsonb,
  by jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean
) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  groups text[] := array(select jsonb_array_elements_text(by));
  sort constant text := filters ->> 'sort';
  answer jsonb;
begin
  with used as materialized (
    select u.*,
      case when sort = 'start' then u.start end as at,
      case sort
        when 'requests' then u.requests
        when 'errors' then u.errors
        when 'tokens' then u.prompt_tokens + u.completion_tokens
        when 'charge' then u.charge_nanos
        when 'cost' then u.cost_nanos
        when 'margin' then u.charge_nanos - u.cost_nanos
      end as measure
    from tollgate.usage_by(
      groups, (filters ->> 'from')::timestamptz, (filters ->> 'to')::timestamptz,
      tollgate.own_or_all(actor, filters, everyone)
    ) u
    where u.requests > 0
  ),
  past as (
    select case when filters ? 'cursor' then (
      select p.place
      from (
        select tollgate.group_id(u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream) as id,
          row_number() over (
            order by u.at, u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
          ) as place
        from used u
      ) p
      where p.id = filters ->> 'cursor'
    ) else 0 end as place
  ),
  page as (
    select u.*, row_number() over () as place
    from (
      select u.* from used u
      order by u.at, u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
      offset (select p.place from past p)
      limit page_size
    ) u
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(
        (
          select jsonb_object_agg(d.name, d.value)
          from (values
            ('day', 'start', tollgate.utc(p.start)),
            ('month', 'start', tollgate.utc(p.start)),
            ('org', 'org_id', p.org_id),
            ('org', 'org_name', (select o.name from tollgate.orgs o where o.id = p.org_id)),
            ('user', 'user_id', p.user_id),
            ('user', 'user_email', (select u.email from tollgate.users u where u.id = p.user_id)),
            ('key', 'key_id', p.key_id),
            ('key', 'key_name', (select k.name from tollgate.api_keys k where k.id = p.key_id)),
            ('model', 'model', p.model),
            ('upstream', 'upstream', p.upstream)
          ) d (of_group, name, value)
          where d.of_group = any (groups)
        )
        || tollgate.measures(
          row(null, null, null, null, null, null, p.requests, p.errors, p.streamed, p.estimated, p.prompt_tokens,
            p.completion_tokens, p.charge_nanos, p.cost_nanos, p.last_at)::tollgate.usage,
          everyone
        )
        || jsonb_build_object('last_request_at', tollgate.utc(p.last_at))
        order by p.place
      )
      from page p
    ), '[]'),
    'next_cursor', (
      select tollgate.group_id(p.start, p.org_id, p.user_id, p.key_id, p.model, p.upstream) from page p
      where p.place = page_size and past.place + page_size < (select count(*) from used)
    ),
    'total', (select count(*) from used),
    'totals', (
      select tollgate.measures(
        row(null, null, null, null, null, null, coalesce(sum(u.requests), 0), coalesce(sum(u.errors), 0),
          coalesce(sum(u.streamed), 0), coalesce(sum(u.estimated), 0), coalesce(sum(u.prompt_tokens), 0),
          coalesce(sum(u.completion_tokens), 0), coalesce(sum(u.charge_nanos), 0), coalesce(sum(u.cost_nanos), 0),
          max(u.last_at))::tollgate.usage,
        everyone
      )
      from used u
    ),
    'unknown', past.place is null
  ) into answer
  from past;
  if (answer -> 'unknown')::boolean then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
  end if;
  return answer - 'unknown';
end
$$;

comment on function public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean) is
  'Usage by any of day, month, model, key, user, org, upstream, a page of groups and the totals of all: everyone''s for admins, or of the caller''s org without what it cost us. `filters`: org_id, user_id, key_id, model, upstream, from, to, cursor, sort (start, or the most requests, errors, tokens, charge, cost, margin first). Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_usage_series(caller jsonb, bucket text, filters jsonb, everyone boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  beginning timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(
          row(null, null, null, null, null, null, coalesce(u.requests, 0), coalesce(u.errors, 0),
            coalesce(u.streamed, 0), coalesce(u.estimated, 0), coalesce(u.prompt_tokens, 0),
            coalesce(u.completion_tokens, 0), coalesce(u.charge_nanos, 0), coalesce(u.cost_nanos, 0),
            null)::tollgate.usage,
          everyone
        )
        order by s.start
      ), '[]')
    )
    from generate_series(beginning, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
    left join tollgate.usage_by(
      array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
    ) u on u.start = s.start
  );
end
$$;

comment on function public.tollgate_usage_series(jsonb, text, jsonb, boolean) is
  'Usage in every minute, hour or day from a time, moved back to where its bucket begins, until before another, empty ones included; the caller bounds how many. Everyone''s for admins, or the caller''s org''s without what it cost us. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';


create function public.tollgate_latency(caller jsonb, kind text, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return to_jsonb(tollgate.latency_between(
    kind, (filters ->> 'from')::timestamptz, (filters ->> 'to')::timestamptz, filters
  )) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_latency(jsonb, text, jsonb) is
  'How long requests took, whole or until their first token (`kind`: whole, first_token). For admins. `filters`: from, to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';


create function tollgate.used(used tollgate.usage) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'tokens', coalesce(used.prompt_tokens + used.completion_tokens, 0),
    'charge_nanos', coalesce(used.charge_nanos, 0),
    'charge_credits', tollgate.credits_of(coalesce(used.charge_nanos, 0))
  )
$$;

comment on function tollgate.used(tollgate.usage) is 'What was used, in short.';


create function public.tollgate_keys_usage(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  past tollgate.api_keys;
  own constant jsonb := jsonb_build_object('org_id', actor.org_id);
begin
  if filters ? 'cursor' then
    select k.* into past from tollgate.api_keys k where k.id = filters ->> 'cursor' and k.org_id = actor.org_id;
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;
  return (
    with page as (
      select k.*, row_number() over (order by k.created_at desc, k.id desc) as place
      from tollgate.api_keys k
      where k.org_id = actor.org_id and (past.id is null or (k.created_at, k.id) < (past.created_at, past.id))
      order by k.created_at desc, k.id desc
      limit page_size + 1
    )
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object(
          'id', p.id,
          'name', p.name,
          'key', p.prefix || '…' || p.last_four,
          'user_id', p.user_id,
          'environment', p.environment,
          'status', case when p.revoked_at is not null then 'revoked' when p.disabled_at is not null then 'disabled'
            when p.expires_at <= now() then 'expired' else 'active' end,
          'created_at', tollgate.utc(p.created_at),
          'last_used_at', tollgate.utc(p.last_used_at),
          'today', tollgate.used(today),
          'last_30_days', tollgate.used(month),
          'all_time', tollgate.used(always)
        )
        order by p.place
      ) filter (where p.place <= page_size), '[]'),
      'next_cursor', case when count(*) > page_size then min(p.id) filter (where p.place = page_size) end,
      'total', (select count(*) from tollgate.api_keys k where k.org_id = actor.org_id)
    )
    from page p
    left join tollgate.usage_by('{key}', date_trunc('day', now(), 'UTC'), null, own) today on today.key_id = p.id
    left join tollgate.usage_by('{key}', date_trunc('hour', now()) - interval '30 days', null, own) month
      on month.key_id = p.id
    left join tollgate.usage_by('{key}', null, null, own) always on always.key_id = p.id
  );
end
$$;

comment on function public.tollgate_keys_usage(jsonb, jsonb, integer) is
  'The keys of the caller''s org, newest first, with what each used today (UTC), in 30 days and ever. `filters`: cursor. Refuses: as recognise(), invalid_request. Locks nothing.';


select tollgate.expose('public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean)');
select tollgate.expose('public.tollgate_usage_series(jsonb, text, jsonb, boolean)');
select tollgate.expose('public.tollgate_latency(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_keys_usage(jsonb, jsonb, integer)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001610'
$$;

revoke execute on all functions in schema tollgate from public;
