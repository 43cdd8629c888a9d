-- Lists of requests.

create function tollgate.cached_tokens(usage jsonb) returns numeric
language sql
immutable
set search_path = ''
as $$
  select coalesce(sum(c.value::text::numeric), 0)
  from (values
    (usage #> '{prompt_tokens_details,cached_tokens}'),
    (usage #> '{input_tokens_details,cached_tokens}'),
    (usage #> '{cache_read_input_tokens}')
  ) c (value)
  where jsonb_typeof(c.value) = 'number'
$$;

comment on function tollgate.cached_tokens(jsonb) is
  'How many tokens of the prompt the upstream found in its cache, in whichever of three places it says so.';


create function tollgate.requests_wanted(filters jsonb) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.wanted(
      filters,
      array['org_id', 'user_id', 'key_id', 'model', 'upstream', 'endpoint', 'state', 'streamed', 'estimated']
    )
    || case
      when filters ->> 'status' like '_xx' then format(' and t.status / 100 = %L', left(filters ->> 'status', 1))
      when filters ? 'status' then format(' and t.status = %L', filters ->> 'status')
      else ''
    end
    || case when filters ? 'cached' then format(' and (tollgate.cached_tokens(t.usage) > 0) = %L', filters ->> 'cached')
      else ''
    end
$$;

comment on function tollgate.requests_wanted(jsonb) is
  'The filters of a list of requests as a condition on `t`. status is a code, or 4xx for all of its hundred.';


create function tollgate.how_many(filters jsonb) returns bigint
language sql
stable
set search_path = ''
as $$
  select (tollgate.usage_by(
    '{}',
    greatest((filters ->> 'from')::timestamptz, r.dropped_until),
    (filters ->> 'to')::timestamptz,
    filters
  )).requests
  from tollgate.rolled r
  where filters - '{from,to,sort,cursor,org_id,user_id,key_id,model,upstream}'::text[] = '{}'
$$;

comment on function tollgate.how_many(jsonb) is
  'How many requests a list has, where the tallies know it; null where counting would mean reading them all.';


create function tollgate.request_page(
  filters jsonb,
  page_size integer,
  everyone boolean,
  most_read integer default 50000
) returns json
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  direction constant text := case filters ->> 'sort' when 'created_at:asc' then 'asc' else 'desc' end;
  whose constant jsonb := tollgate.with_org(filters);
  beginning constant timestamptz := greatest(
    coalesce((filters ->> 'from')::timestamptz, '-infinity'), (select r.dropped_until from tollgate.rolled r)
  );
  ending constant timestamptz := coalesce((filters ->> 'to')::timestamptz, 'infinity');
  past tollgate.requests;
  read text;
  rows json;
  next_cursor text;
begin
  if filters ? 'cursor' then
    select r.* into past from tollgate.requests r
    where r.id = filters ->> 'cursor' and (everyone or r.org_id = filters ->> 'org_id');
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;
  read := format(
    $read$
      select t.* from tollgate.requests t
      where t.created_at >= %1$L and t.created_at < %2$L %3$s %4$s
      order by t.created_at %5$s, t.id %5$s
      limit %6$s
    $read$,
    beginning, ending, tollgate.wanted(whose, array['org_id']),
    case when past.id is not null then
      format('and (t.created_at, t.id) %s (%L, %L)', case direction when 'asc' then '>' else '<' end, past.created_at, past.id)
    end,
    direction, most_read
  );
  execute format(
    $query$
      select json_agg(p) from (
        select t.id, tollgate.utc(t.created_at) as created_at, t.org_id, t.user_id, t.key_id, t.endpoint, t.model,
          t.served_model, t.upstream, t.state, t.status, t.error_code, t.streamed, t.estimated, t.quarantined,
          t.prompt_tokens, t.completion_tokens, tollgate.cached_tokens(t.usage) as cached_tokens,
          t.charge_nanos, tollgate.credits_of(t.charge_nanos) as charge_credits, %1$s
          t.duration_ms, t.first_token_ms, tollgate.utc(t.settled_at) as settled_at
        from (%2$s) t
        where true %3$s
        order by t.created_at %4$s, t.id %4$s
        limit %5$s
      ) p
    $query$,
    case when everyone then 't.cost_nanos, tollgate.credits_of(t.cost_nanos) as cost_credits, t.generation_id,' end,
    read, tollgate.requests_wanted(whose), direction, page_size + 1
  ) into rows;

  if json_array_length(rows) > page_size then
    select json_agg(r.value order by r.place), max(r.value ->> 'id') filter (where r.place = page_size)
    into rows, next_cursor
    from json_array_elements(rows) with ordinality r (value, place)
    where r.place <= page_size;
  else
    execute format('select t.id from (%s) t offset %s', read, most_read - 1) into next_cursor;
  end if;
  return json_build_object('data', coalesce(rows, '[]'), 'next_cursor', next_cursor);
end
$$;

comment on function tollgate.request_page(jsonb, integer, boolean, integer) is
  'A page of requests, newest first unless sorted by created_at:asc; with cost and generation where they are everyone''s. Looks at most_read requests at most: where too few of them are wanted, the page is short, even empty, and next_cursor is the last one looked at. Refuses an unknown cursor.';


create function public.tollgate_requests(
  caller jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean,
  counted boolean
) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  wanted jsonb := tollgate.own_or_all(actor, filters, everyone);
  page json := tollgate.request_page(wanted, page_size, everyone);
begin
  return json_build_object(
    'caller', tollgate.identity(actor),
    'data', page -> 'data',
    'next_cursor', page -> 'next_cursor',
    'total', case when counted then tollgate.how_many(wanted) end
  );
end
$$;

comment on function public.tollgate_requests(jsonb, jsonb, integer, boolean, boolean) is
  'A page of requests: everyone''s for admins, or those of the caller''s org without what they cost us. `filters`: model, key_id, user_id, org_id, upstream, endpoint, status (a code, or 4xx), state, streamed, estimated, cached, from, to, cursor, sort (created_at:desc or created_at:asc). A page may be short, or empty, while next_cursor says that there is more to look through. `total` is null unless wanted and cheap. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_requests(jsonb, jsonb, integer, boolean, boolean)');
