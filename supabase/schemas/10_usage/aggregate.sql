-- Usage by time, org, user, key, model or upstream.

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
  since constant timestamptz := filters ->> 'from';
  until constant timestamptz := filters ->> 'to';
  scope constant jsonb := tollgate.own_or_all(actor, filters, everyone);
  refunds constant jsonb := tollgate.refunds_of(groups, since, until, scope);
  answer jsonb;
begin
  with used as materialized (
    select u.*,
      case when sort like '%:asc' then -1 else 1 end * case split_part(sort, ':', 1)
        when 'start' then extract(epoch from u.start)
        when 'requests' then u.requests when 'errors' then u.errors when 'tokens' then u.prompt_tokens + u.completion_tokens
        when 'charge' then u.charge_nanos when 'cost' then u.cost_nanos when 'margin' then u.charge_nanos - u.cost_nanos
      end as measure
    from tollgate.usage_by(groups, since, until, scope) u
    where u.requests > 0
  ),
  past as (
    select case when filters ? 'cursor' then (
      select p.place
      from (
        select tollgate.group_id(u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream) as id,
          row_number() over (
            order by u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
          ) as place
        from used u
      ) p
      where p.id = filters ->> 'cursor'
    ) else coalesce((filters ->> 'offset')::bigint, 0) end as place
  ),
  page as (
    select tollgate.group_shown(u::tollgate.usage, groups, everyone) as shown,
      tollgate.group_id(u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream) as id, row_number() over () as place
    from (
      select u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream, u.requests, u.errors, u.streamed, u.estimated,
        u.prompt_tokens, u.completion_tokens, u.charge_nanos, u.cost_nanos, u.last_at, u.cached_tokens, u.reasoning_tokens
      from used u
      order by u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
      offset (select p.place from past p)
      limit page_size
    ) u
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', (select coalesce(jsonb_agg(p.shown || tollgate.refunded(refunds, p.id) order by p.place), '[]') from page p),
    'next_cursor', (
      select p.id from page p
      where p.place = page_size and past.place + page_size < (select count(*) from used)
    ),
    'total', (select count(*) from used),
    'totals', tollgate.measures((
      select row(null, null, null, null, null, null, sum(u.requests), sum(u.errors), sum(u.streamed), sum(u.estimated),
        sum(u.prompt_tokens), sum(u.completion_tokens), sum(u.charge_nanos), sum(u.cost_nanos), null,
        sum(u.cached_tokens), sum(u.reasoning_tokens))::tollgate.usage from used u
    ), everyone) || jsonb_build_object('refunded_nanos', tollgate.sum_of(refunds)),
    'unknown', past.place is null
  ) into answer
  from past;
  if (answer -> 'unknown')::boolean then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
  end if;
  return answer - 'unknown';
end
$$;

comment on function public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean) is
  'Usage by any of day, month, model, key, user, org, upstream, a page of groups and the totals of all: everyone''s for admins, or of the caller''s org without what it cost us. `filters`: org_id, user_id, key_id, model, upstream, from, to, cursor, offset, sort (start, requests, errors, tokens, charge, cost or margin). Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean)');


create function tollgate.split_series(
  bucket text, by text, since timestamptz, until timestamptz, filters jsonb, everyone boolean
) returns jsonb
language sql
stable
set search_path = ''
as $$
  -- Of thousands of orgs, keys or users, only the five largest are read by their buckets.
  with used as materialized (
    select u.*, coalesce(u.org_id, u.user_id, u.key_id, u.model, u.upstream, '') as name
    from tollgate.usage_by(array[by], since, until, filters) u
    where u.requests > 0
  ),
  ranked as (
    select u.name, least(row_number() over (order by u.charge_nanos desc, u.requests desc, u.name), 6) as place
    from used u
  ),
  groups as (
    select r.place, row(
      null,
      min(u.org_id) filter (where r.place < 6), min(u.user_id) filter (where r.place < 6),
      min(u.key_id) filter (where r.place < 6), min(u.model) filter (where r.place < 6),
      min(u.upstream) filter (where r.place < 6),
      sum(u.requests), sum(u.errors), sum(u.streamed), sum(u.estimated), sum(u.prompt_tokens), sum(u.completion_tokens),
      sum(u.charge_nanos), sum(u.cost_nanos), max(u.last_at), sum(u.cached_tokens), sum(u.reasoning_tokens)
    )::tollgate.usage as used
    from used u
    join ranked r on r.name = u.name
    group by r.place
  ),
  largest as materialized (
    select r.place, u as used
    from ranked r
    cross join lateral tollgate.usage_by(array[bucket], since, until, filters || jsonb_build_object(
      case when by in ('org', 'user', 'key') then by || '_id' else by end, r.name
    )) u
    where r.place < 6
  ),
  points as (
    select l.place, (l.used).start, l.used from largest l
    union all
    select 6, u.start, row(
      u.start, null, null, null, null, null,
      u.requests - l.requests, u.errors - l.errors, u.streamed - l.streamed, u.estimated - l.estimated,
      u.prompt_tokens - l.prompt_tokens, u.completion_tokens - l.completion_tokens,
      u.charge_nanos - l.charge_nanos, u.cost_nanos - l.cost_nanos, null,
      u.cached_tokens - l.cached_tokens, u.reasoning_tokens - l.reasoning_tokens
    )::tollgate.usage
    from tollgate.usage_by(array[bucket], since, until, filters) u
    cross join lateral (
      select coalesce(sum((l.used).requests), 0) as requests, coalesce(sum((l.used).errors), 0) as errors,
        coalesce(sum((l.used).streamed), 0) as streamed, coalesce(sum((l.used).estimated), 0) as estimated,
        coalesce(sum((l.used).prompt_tokens), 0) as prompt_tokens,
        coalesce(sum((l.used).completion_tokens), 0) as completion_tokens,
        coalesce(sum((l.used).charge_nanos), 0) as charge_nanos, coalesce(sum((l.used).cost_nanos), 0) as cost_nanos,
        coalesce(sum((l.used).cached_tokens), 0) as cached_tokens,
        coalesce(sum((l.used).reasoning_tokens), 0) as reasoning_tokens
      from largest l
      where (l.used).start = u.start
    ) l
    where exists (select from ranked r where r.place = 6)
  )
  select coalesce(jsonb_agg(tollgate.group_shown(g.used, array[by], everyone) || jsonb_build_object(
    'is_rest', g.place = 6,
    'data', (
      select jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(p.used, everyone) order by s.start
      )
      from generate_series(since, until - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
      left join points p on p.place = g.place and p.start = s.start
    )
  ) order by g.place), '[]')
  from groups g
$$;

comment on function tollgate.split_series(text, text, timestamptz, timestamptz, jsonb, boolean) is
  'The series of the five groups with the highest charge, and that of all others together.';


create function public.tollgate_usage_series(caller jsonb, bucket text, filters jsonb, everyone boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  beginning timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
  refunds constant jsonb := tollgate.refunds_of(
    array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
  );
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(u, everyone)
          || tollgate.refunded(refunds, tollgate.group_id(s.start, null, null, null, null, null)) order by s.start
      ), '[]'),
      'groups', case when filters ? 'by' then tollgate.split_series(
        bucket, filters ->> 'by', beginning, ending, tollgate.own_or_all(actor, filters, everyone), everyone
      ) end
    )
    from generate_series(beginning, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
    left join tollgate.usage_by(
      array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
    ) u on u.start = s.start
  );
end
$$;

comment on function public.tollgate_usage_series(jsonb, text, jsonb, boolean) is
  'Usage in every minute, hour or day from a time, moved back to where its bucket begins, until before another, empty ones included; the server bounds how many. Everyone''s for admins, or the caller''s org''s without what it cost us. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream, and `by` for the same by one of model, key, user, org, upstream as `groups`. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_usage_series(jsonb, text, jsonb, boolean)');
