-- Looks answers up, and stores them. In all of these functions, the caller holds the lock of the org.

create function tollgate.drop_entries(org_id text, cache_keys text[]) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  gone bigint;
begin
  with dropped as (
    delete from tollgate.cache_entries e
    where e.org_id = drop_entries.org_id and e.cache_key = any (cache_keys)
    returning e.answer is not null as is_filled, e.bytes
  ),
  summed as (
    select count(*) filter (where d.is_filled) as entries, coalesce(sum(d.bytes), 0) as bytes from dropped d
  ),
  resized as (
    update tollgate.cache_sizes s set entries = s.entries - d.entries, bytes = s.bytes - d.bytes
    from summed d
    where s.org_id = drop_entries.org_id
  )
  select d.entries into gone from summed d;
  return gone;
end
$$;

comment on function tollgate.drop_entries(text, text[]) is
  'Deletes entries of an org, and returns how many had an answer. A request that was to fill one of them fills nothing.';


create function tollgate.look_up_answer(org_id text, wish jsonb, moment timestamptz) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  entry tollgate.cache_entries;
  charge bigint;
begin
  select e.* into entry from tollgate.cache_entries e
  where e.org_id = look_up_answer.org_id and e.cache_key = wish ->> 'key';
  if entry.expires_at <= moment then
    perform tollgate.drop_entries(org_id, array[entry.cache_key]);
    return '{}';
  elsif (wish ->> 'reads')::boolean is not true then
    return '{}';
  elsif entry.request_id is not null then
    charge := ceil(entry.charge_nanos::numeric * (wish ->> 'hit_share_ppm')::integer / 1000000);
    return jsonb_build_object('hit', jsonb_build_object(
      'request_id', entry.request_id,
      'charge_nanos', charge,
      'saved_nanos', entry.charge_nanos - charge,
      'served_model', entry.served_model,
      'age_seconds', floor(extract(epoch from moment - entry.filled_at)),
      'expires_in_seconds', ceil(extract(epoch from entry.expires_at - moment)),
      'answer', case when entry.request_id is distinct from wish ->> 'held' then entry.answer end
    ));
  elsif entry.filler_until > moment and (wish ->> 'waits')::boolean
    and coalesce(wish ->> 'waited_for', entry.filler_id) = entry.filler_id
  then
    return jsonb_build_object('wait', jsonb_build_object('request_id', entry.filler_id));
  end if;
  return '{}';
end
$$;

comment on function tollgate.look_up_answer(text, jsonb, timestamptz) is
  'What the cache has for a request: a hit with its answer, or without it where the server holds that of the same request already; the request to wait for, once; or neither. `wish` has key, reads, waits, waited_for, held, hit_share_ppm.';


create function tollgate.begin_entry(org_id text, key_id text, item jsonb, moment timestamptz) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.cache_entries as e (
    org_id, cache_key, endpoint, model, key_id, begun_at, filler_id, filler_until, expires_at
  ) values (
    org_id, item -> 'cache' ->> 'key', item ->> 'endpoint', item ->> 'model', key_id, moment, item ->> 'id',
    moment + make_interval(secs => (item -> 'cache' ->> 'wait_seconds')::double precision),
    moment + make_interval(secs => (item ->> 'ttl_seconds')::double precision)
  )
  on conflict on constraint cache_entries_pkey do update set
    filler_id = excluded.filler_id,
    filler_until = excluded.filler_until,
    expires_at = case when e.request_id is null then excluded.expires_at else e.expires_at end
$$;

comment on function tollgate.begin_entry(text, text, jsonb, timestamptz) is
  'Stores which request will fill an entry. An answer that is there stays until then. An entry that is never filled expires with the hold of the request.';


create function tollgate.leave_entry(org_id text, cache_key text, request_id text) returns void
language sql
set search_path = ''
as $$
  update tollgate.cache_entries e set filler_until = null
  where e.org_id = leave_entry.org_id and e.cache_key = leave_entry.cache_key and e.filler_id = leave_entry.request_id
$$;

comment on function tollgate.leave_entry(text, text, text) is
  'A request has ended without an answer to store: nobody waits for it any longer.';


create function tollgate.make_room(org_id text, most_bytes bigint) returns void
language plpgsql
set search_path = ''
as $$
declare
  excess constant bigint := (select s.bytes from tollgate.cache_sizes s where s.org_id = make_room.org_id) - most_bytes;
  oldest text[];
begin
  if excess > 0 then
    select array_agg(o.cache_key) into oldest
    from (
      select e.cache_key, sum(e.bytes) over (order by e.filled_at, e.cache_key) - e.bytes as before
      from (
        select n.cache_key, n.bytes, n.filled_at from tollgate.cache_entries n
        where n.org_id = make_room.org_id and n.filled_at is not null
        order by n.filled_at, n.cache_key
        limit 1000
      ) e
    ) o
    where o.before < excess;
    perform tollgate.drop_entries(org_id, oldest);
  end if;
end
$$;

comment on function tollgate.make_room(text, bigint) is
  'Deletes the oldest answers of an org, at most 1,000, until the rest is within most_bytes.';


create function tollgate.fill_entry(
  org_id text,
  key_id text,
  request_id text,
  began timestamptz,
  item jsonb,
  moment timestamptz
) returns void
language plpgsql
set search_path = ''
as $$
declare
  wish constant jsonb := item -> 'cache';
  size constant bigint := octet_length(wish ->> 'answer');
  before record;
begin
  select e.begun_at, e.request_id is not null as is_filled, e.bytes into before
  from tollgate.cache_entries e
  where e.org_id = fill_entry.org_id and e.cache_key = wish ->> 'key';
  if before.begun_at is null or before.begun_at > began or size > (wish ->> 'most_bytes')::bigint then
    perform tollgate.leave_entry(org_id, wish ->> 'key', request_id);
    return;
  end if;
  update tollgate.cache_entries e set
    key_id = fill_entry.key_id,
    filler_id = null,
    filler_until = null,
    request_id = fill_entry.request_id,
    answer = wish -> 'answer',
    bytes = size,
    served_model = item ->> 'served_model',
    charge_nanos = (item ->> 'charge_nanos')::bigint,
    filled_at = moment,
    expires_at = moment + make_interval(secs => (wish ->> 'ttl_seconds')::double precision)
  where e.org_id = fill_entry.org_id and e.cache_key = wish ->> 'key';
  insert into tollgate.cache_sizes as s (org_id, entries, bytes)
  values (fill_entry.org_id, 1, size)
  on conflict on constraint cache_sizes_pkey do update set
    entries = s.entries + case when before.is_filled then 0 else 1 end,
    bytes = s.bytes + size - before.bytes;
  perform tollgate.make_room(org_id, (wish ->> 'most_bytes')::bigint);
end
$$;

comment on function tollgate.fill_entry(text, text, text, timestamptz, jsonb, timestamptz) is
  'Stores the answer of a request that began at `began` in the entry that was begun for it. Nothing is stored if the entry was deleted since: clearing is final. The oldest answers of the org make room. `item` is that of a settlement; its `cache` has key, answer, ttl_seconds, most_bytes.';


create function tollgate.count_look_up(org_id text, model text, hits integer, saved_nanos bigint, moment timestamptz)
returns void
language sql
set search_path = ''
as $$
  insert into tollgate.cache_days as d (day, org_id, model, hits, misses, saved_nanos)
  values ((moment at time zone 'utc')::date, org_id, model, hits, 1 - hits, saved_nanos)
  on conflict on constraint cache_days_pkey do update set
    hits = d.hits + excluded.hits, misses = d.misses + excluded.misses, saved_nanos = d.saved_nanos + excluded.saved_nanos
$$;

comment on function tollgate.count_look_up(text, text, integer, bigint, timestamptz) is
  'Counts one hit (hits is 1) or one miss (0) of an org and a model.';


create function tollgate.note_look_up(
  org_id text,
  key_id text,
  item jsonb,
  wish jsonb,
  hit jsonb,
  moment timestamptz
) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  if hit is null and (wish ->> 'writes')::boolean then
    perform tollgate.begin_entry(org_id, key_id, item, moment);
  end if;
  if (wish ->> 'reads')::boolean is not true then
    return item;
  end if;
  perform tollgate.count_look_up(
    org_id, item ->> 'model', (hit is not null)::integer, coalesce((hit ->> 'saved_nanos')::bigint, 0), moment
  );
  return item || jsonb_build_object('cached', hit is not null);
end
$$;

comment on function tollgate.note_look_up(text, text, jsonb, jsonb, jsonb, timestamptz) is
  'Counts the look-up of a request that is admitted, and begins the entry that a miss will fill. Returns the item with `cached`, as the row has it. The org is locked by the caller.';


create function tollgate.settlement_of_hit(request_id text, hit jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', request_id, 'outcome', 'settled', 'charge_nanos', hit -> 'charge_nanos', 'cost_nanos', 0,
    'served_model', hit -> 'served_model', 'status', 200
  )
$$;

comment on function tollgate.settlement_of_hit(text, jsonb) is
  'The settlement of a request that the cache answers. It follows its admission in the same transaction.';
