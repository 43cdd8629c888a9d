-- Paid calls that were refused with 402, 403 or 429, counted by hour, key, model and code.
--
-- A refused call writes nothing, so the server counts refusals in memory and writes sums, a few seconds apart.

create function tollgate.count_refused_calls(refused jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  most_rows constant integer := 100; -- of an org in an hour
  moment constant timestamptz := clock_timestamp();
  seen record;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_refused_calls', 0));
  delete from tollgate.refused_calls c
  where c.id in (
    select o.id from tollgate.refused_calls o where o.last_seen_at < moment - interval '30 days' limit 1000
  );
  for seen in
    select
      k.org_id, k.user_id, k.id as key_id, left(coalesce(g.model, ''), 200) as model, g.code,
      greatest(g.times, 1) as times, least(g.first_seen, moment) as first_seen, least(g.last_seen, moment) as last_seen,
      date_trunc('hour', least(g.last_seen, moment), 'UTC') as hour, g.request_id, coalesce(g.facts, '{}') as facts
    from jsonb_to_recordset(refused) g (
      code text, key_id text, digest text, model text, times bigint, first_seen timestamptz, last_seen timestamptz,
      request_id text, facts jsonb
    )
    join tollgate.api_keys k on k.id = g.key_id or (g.key_id is null and k.digest = decode(g.digest, 'hex'))
  loop
    if not exists (
      select from tollgate.refused_calls c
      where c.org_id = seen.org_id and c.hour = seen.hour and c.key_id = seen.key_id and c.code = seen.code
        and c.model = seen.model
    ) and (
      select count(*) from tollgate.refused_calls c where c.org_id = seen.org_id and c.hour = seen.hour
    ) >= most_rows then
      seen.user_id := '';
      seen.key_id := '';
      seen.model := '';
    end if;
    insert into tollgate.refused_calls as c (
      hour, org_id, user_id, key_id, model, code, count, first_seen_at, last_seen_at, request_id, facts
    ) values (
      seen.hour, seen.org_id, seen.user_id, seen.key_id, seen.model, seen.code, seen.times, seen.first_seen,
      seen.last_seen, seen.request_id, seen.facts
    )
    on conflict (org_id, hour, key_id, code, model) do update set
      count = c.count + excluded.count,
      first_seen_at = least(c.first_seen_at, excluded.first_seen_at),
      last_seen_at = greatest(c.last_seen_at, excluded.last_seen_at),
      request_id = excluded.request_id,
      facts = excluded.facts;
  end loop;
end
$$;

comment on function tollgate.count_refused_calls(jsonb) is
  'Adds to the counts of refused calls: code, key_id or digest, model, times, first_seen, last_seen, and of the last one request_id and facts. An org has at most a hundred rows in an hour, besides one for each code, without key and model, that counts all others. Deletes rows older than 30 days, at most 1,000. Takes an advisory lock, so that two writers cannot wait for each other.';


create function tollgate.refused_calls_shown(refused tollgate.refused_calls) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', refused.id,
    'start', tollgate.utc(refused.hour),
    'org_id', refused.org_id,
    'user_id', nullif(refused.user_id, ''),
    'key_id', nullif(refused.key_id, ''),
    'model', nullif(refused.model, ''),
    'code', refused.code,
    'count', refused.count,
    'first_seen_at', tollgate.utc(refused.first_seen_at),
    'last_seen_at', tollgate.utc(refused.last_seen_at),
    'last', jsonb_build_object('request_id', refused.request_id, 'facts', refused.facts)
  )
$$;

comment on function tollgate.refused_calls_shown(tollgate.refused_calls) is 'A count of refused calls, with the last of them.';


create function public.tollgate_refused_calls(caller jsonb, filters jsonb, page_size integer, everyone boolean)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.refused_calls',
    'tollgate.refused_calls_shown',
    $where$
      ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and ($1 ->> 'key_id' is null or e.key_id = $1 ->> 'key_id')
      and ($1 ->> 'model' is null or e.model = $1 ->> 'model')
      and ($1 ->> 'code' is null or e.code = $1 ->> 'code')
      and ($1 ->> 'from' is null or e.last_seen_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.first_seen_at < ($1 ->> 'to')::timestamptz)
    $where$,
    '{"start": "e.hour"}',
    coalesce(filters ->> 'sort', 'start:desc'),
    tollgate.own_or_all(actor, filters, everyone),
    page_size,
    within => $where$ ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id') $where$,
    counted => false
  );
end
$$;

comment on function public.tollgate_refused_calls(jsonb, jsonb, integer, boolean) is
  'A page of counts of refused calls: everyone''s for admins, or those of the caller''s org. `filters`: org_id, user_id, key_id, model, code, from, to, sort (start), cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_refused_calls(jsonb, jsonb, integer, boolean)');


create function public.tollgate_refused_call(caller jsonb, row_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.refused_calls;
begin
  select e.* into found_one from tollgate.refused_calls e where e.id = tollgate_refused_call.row_id;
  if not found then
    perform tollgate.refuse_missing('refused_calls', row_id);
  end if;
  return tollgate.refused_calls_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_refused_call(jsonb, text) is
  'One count of refused calls. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_refused_call(jsonb, text)');
