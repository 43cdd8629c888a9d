-- Latency of any period, and what it is read from.
--
-- tollgate.latency_between(kind text, since timestamptz, until timestamptz, filters jsonb) returns tollgate.latency
--   kind     whole | first_token
--   filters  org_id, user_id, key_id, model, upstream
-- A row: requests, average_ms, p50_ms, p90_ms, p95_ms, p99_ms, within 5 %.

create function tollgate.with_buckets(own jsonb, others jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_object_agg(s.bucket, jsonb_build_array(s.requests, s.total_ms))
  from (
    select b.key as bucket, sum((b.value -> 0)::bigint) as requests, sum((b.value -> 1)::bigint) as total_ms
    from (select * from jsonb_each(own) union all select * from jsonb_each(others)) b
    group by b.key
  ) s
$$;

comment on function tollgate.with_buckets(jsonb, jsonb) is 'The sums of two columns of buckets of tollgate.key_latencies; null where both are.';


create function tollgate.add_latencies(durations tollgate.duration[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.latencies as t (cut, start, kind, model, upstream, bucket, requests, total_ms)
  select c.cut, date_trunc(c.unit, d.hour, 'UTC'), d.kind,
    case when c.models then d.model else '' end, case when c.models then d.upstream else '' end,
    d.bucket, count(*), sum(d.ms)
  from unnest(durations) d
  cross join (values ('hour', 'hour', false), ('day', 'day', false), ('day_model', 'day', true)) c (cut, unit, models)
  group by 1, 2, 3, 4, 5, 6
  order by 1, 2, 3, 4, 5, 6
  on conflict on constraint latencies_pkey do update set
    requests = t.requests + excluded.requests,
    total_ms = t.total_ms + excluded.total_ms;

  insert into tollgate.key_latencies as t (org_id, start, key_id, user_id, model, upstream, whole, first_token)
  select b.org_id, b.day, b.key_id, b.user_id, b.model, b.upstream,
    jsonb_object_agg(b.bucket, jsonb_build_array(b.requests, b.ms)) filter (where b.kind = 'whole'),
    jsonb_object_agg(b.bucket, jsonb_build_array(b.requests, b.ms)) filter (where b.kind = 'first_token')
  from (
    select d.org_id, date_trunc('day', d.hour, 'UTC') as day, d.key_id, d.user_id, d.model, d.upstream, d.kind, d.bucket,
      count(*) as requests, sum(d.ms) as ms
    from unnest(durations) d
    group by 1, 2, 3, 4, 5, 6, 7, 8
  ) b
  group by 1, 2, 3, 4, 5, 6
  order by 1, 2, 3, 5, 6
  on conflict on constraint key_latencies_pkey do update set
    whole = tollgate.with_buckets(t.whole, excluded.whole),
    first_token = tollgate.with_buckets(t.first_token, excluded.first_token);
$$;

comment on function tollgate.add_latencies(tollgate.duration[]) is
  'Adds how long requests took to the latencies of all cuts, and to those of their keys.';


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
  people constant boolean := filters ?| '{org_id,user_id,key_id}';
  units constant text[] := case when people or models then '{day}' else '{hour,day}' end;
  measured constant text := case kind when 'whole' then 'duration_ms' else 'first_token_ms' end;
  wanted constant text := tollgate.wanted(
    tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream']
  );
  raw constant text := format($raw$
    select floor(ln(greatest(t.%1$I, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      1 as requests, t.%1$I::bigint as total_ms
    from tollgate.requests t
    where t.%1$I is not null and t.settled_at is not null 
      and (t.error_code is not null or t.status >= 400) is not true %2$s $raw$, measured, wanted);
  rolled constant text := format(
    case when people then $of_keys$
      select b.key::integer, (b.value -> 0)::bigint, (b.value -> 1)::bigint
      from (select 'day' as cut, k.* from tollgate.key_latencies k) t
      cross join lateral jsonb_each(t.%1$I) b where true %2$s $of_keys$
    else 'select t.bucket, t.requests, t.total_ms from tollgate.latencies t where t.kind = %1$L %2$s' end, kind, wanted);
  parts text;
  found_latency tollgate.latency;
begin
  select string_agg(
    case p.of_what when 'request' then raw when 'late' then raw else rolled end
    || ' and ' || tollgate.in_piece(p, case when models and not people then '_model' else '' end),
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
  'How long requests without an error took, in all or until their first token, within 5 %: a percentile is the mean of its bucket. Read from rolled up hours and days, and from whole days only for a model or upstream, or for an org, user or key. Parts of days are then read from the requests: the server bounds the span.';


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

select tollgate.expose('public.tollgate_latency(jsonb, text, jsonb)');


create function public.tollgate_latency_series(caller jsonb, bucket text, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  length constant interval := '1 ' || bucket;
  beginning constant timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending constant timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(jsonb_build_object(
        'start', tollgate.utc(s.start),
        'latency', to_jsonb(tollgate.latency_between('whole', s.start, least(s.start + length, ending), filters)),
        'first_token', to_jsonb(tollgate.latency_between('first_token', s.start, least(s.start + length, ending), filters))
      ) order by s.start), '[]')
    )
    from generate_series(beginning, ending - interval '1 microsecond', length) s (start)
  );
end
$$;

comment on function public.tollgate_latency_series(jsonb, text, jsonb) is
  'How long requests took, whole and until their first token, in every hour or day of a span of time; the server bounds how many. For admins. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_latency_series(jsonb, text, jsonb)');
