-- What operators and the upkeep do with the cache.

create function tollgate.cache_shown(since date, org_id text default null) returns jsonb
language sql
stable
set search_path = ''
as $$
  with looked as materialized (
    select d.model, sum(d.hits) as hits, sum(d.misses) as misses, sum(d.saved_nanos) as saved_nanos
    from tollgate.cache_days d
    where d.day >= since and (cache_shown.org_id is null or d.org_id = cache_shown.org_id)
    group by d.model
  )
  select jsonb_build_object(
    'entries', s.entries,
    'bytes', s.bytes,
    'hits', coalesce(l.hits, 0),
    'misses', coalesce(l.misses, 0),
    'saved_nanos', coalesce(l.saved_nanos, 0),
    'models', (
      select coalesce(jsonb_agg(to_jsonb(m) order by m.hits + m.misses desc, m.model), '[]')
      from (select k.* from looked k order by k.hits + k.misses desc, k.model limit 50) m
    )
  )
  from (
    select coalesce(sum(z.entries), 0) as entries, coalesce(sum(z.bytes), 0) as bytes
    from tollgate.cache_sizes z
    where cache_shown.org_id is null or z.org_id = cache_shown.org_id
  ) s
  cross join (select sum(k.hits) as hits, sum(k.misses) as misses, sum(k.saved_nanos) as saved_nanos from looked k) l
$$;

comment on function tollgate.cache_shown(date, text) is
  'The size of the cache now, and its hits and misses since a day (UTC), in all and for the 50 models with most look-ups; of one org, or of all.';


create function public.tollgate_cache_stats(caller jsonb, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  days constant integer := filters ->> 'days';
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.cache_shown((now() at time zone 'utc')::date - days + 1, filters ->> 'org_id');
end
$$;

comment on function public.tollgate_cache_stats(jsonb, jsonb) is
  'As cache_shown(), over so many `days` (UTC) including today; `filters` may have org_id. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_cache_stats(jsonb, jsonb)');


create function public.tollgate_clear_cache(caller jsonb, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  org text;
  gone bigint;
  cleared bigint := 0;
begin
  for org in
    select o.id from tollgate.orgs o
    where o.id in (
      select e.org_id from tollgate.cache_entries e
      where (filters ->> 'org_id' is null or e.org_id = filters ->> 'org_id')
        and (filters ->> 'model' is null or e.model = filters ->> 'model')
        and (filters ->> 'key_id' is null or e.key_id = filters ->> 'key_id')
    )
    order by o.id
    for no key update
  loop
    gone := tollgate.drop_entries(org, array(
      select e.cache_key from tollgate.cache_entries e
      where e.org_id = org
        and (filters ->> 'model' is null or e.model = filters ->> 'model')
        and (filters ->> 'key_id' is null or e.key_id = filters ->> 'key_id')
    ));
    cleared := cleared + gone;
  end loop;
  perform tollgate.record(actor, 'cache.cleared', filters ->> 'org_id', 'cache', filters || jsonb_build_object('cleared', cleared));
  return jsonb_build_object('caller', tollgate.identity(actor), 'cleared', cleared);
end
$$;

comment on function public.tollgate_clear_cache(jsonb, jsonb) is
  'Deletes the entries of an org, a model, an API key, of several of these, or all. It takes effect at once and everywhere: an answer that is on its way is not stored either. For admins. Refuses: as recognise(). Locks the orgs of these entries in id order.';

select tollgate.expose('public.tollgate_clear_cache(jsonb, jsonb)');


create function public.tollgate_newest_cached(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'org_id', n.org_id,
      'cache_key', n.cache_key,
      'request_id', n.request_id,
      'answer', n.answer,
      'filled_at', n.filled_at,
      'expires_in_seconds', ceil(extract(epoch from n.expires_at - clock_timestamp()))
    ) order by n.filled_at desc), '[]')
    from (
      select e.* from tollgate.cache_entries e
      where e.request_id is not null and e.expires_at > clock_timestamp()
        and (filters ->> 'org_id' is null or e.org_id = filters ->> 'org_id')
        and (filters ->> 'model' is null or e.model = filters ->> 'model')
        and (filters ->> 'before' is null or e.filled_at < (filters ->> 'before')::timestamptz)
      order by e.filled_at desc
      limit page_size
    ) n
  ));
end
$$;

comment on function public.tollgate_newest_cached(jsonb, jsonb, integer) is
  'The answers that were stored last, of an org, a model or all, `before` a time, for the second level of the cache. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_newest_cached(jsonb, jsonb, integer)');


create function public.tollgate_drop_expired_cached(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  org text;
  keys text[];
  found_keys bigint := 0;
begin
  for org in
    select o.id from tollgate.orgs o
    where o.id in (
      select e.org_id from tollgate.cache_entries e
      where e.expires_at <= clock_timestamp()
      order by e.expires_at
      limit page_size
    )
    for no key update skip locked
  loop
    keys := array(
      select e.cache_key from tollgate.cache_entries e
      where e.org_id = org and e.expires_at <= clock_timestamp()
      order by e.expires_at
      limit greatest(page_size - found_keys, 0)
    );
    perform tollgate.drop_entries(org, keys);
    found_keys := found_keys + cardinality(keys);
  end loop;
  return jsonb_build_object('entries', found_keys, 'more', found_keys >= page_size);
end
$$;

comment on function public.tollgate_drop_expired_cached(integer) is
  'Deletes a batch of entries that have expired; to be called again while it answers "more". Refuses nothing. Locks the orgs of these entries, skipping locked ones.';

select tollgate.expose('public.tollgate_drop_expired_cached(integer)');
