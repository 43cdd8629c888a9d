-- Lists of requests.

create function tollgate.request_shown(r tollgate.requests) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', r.id,
    'created_at', tollgate.utc(r.created_at),
    'org_id', r.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = r.org_id),
    'user_id', r.user_id,
    'key_id', r.key_id,
    'endpoint', r.endpoint,
    'model', r.model,
    'alias', r.alias,
    'served_model', r.served_model,
    'upstream', r.upstream,
    'state', r.state,
    'status', r.status,
    'error_code', r.error_code,
    'streamed', r.streamed,
    'estimated', r.estimated,
    'quarantined', r.quarantined,
    'is_byok', r.is_byok,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'cached', r.cached,
    'cached_tokens', tollgate.cached_tokens(r.usage, r.prompt_tokens),
    'reasoning_tokens', tollgate.reasoning_tokens(r.usage, r.completion_tokens),
    'charge_nanos', r.charge_nanos,
    'cost_nanos', r.cost_nanos,
    'generation_id', r.generation_id,
    'duration_ms', r.duration_ms,
    'first_token_ms', r.first_token_ms,
    'settled_at', tollgate.utc(r.settled_at)
  );
end
$$;

comment on function tollgate.request_shown(tollgate.requests) is 'A request as operators see it.';


create function tollgate.own_request_shown(r tollgate.requests) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return tollgate.request_shown(r) - array['cost_nanos', 'org_name'];
end
$$;

comment on function tollgate.own_request_shown(tollgate.requests) is
  'A request as its org sees it: without what it cost us.';


create function tollgate.request_page(
  filters jsonb,
  page_size integer,
  everyone boolean,
  most_read integer default 50000
) returns jsonb
language sql
stable
set search_path = ''
as $$
  select tollgate.page(
    'tollgate.requests',
    case when everyone then 'tollgate.request_shown' else 'tollgate.own_request_shown' end::regproc,
    $where$
      ($1 ->> 'id' is null or e.id = $1 ->> 'id')
      and ($1 ->> 'generation_id' is null or e.generation_id = $1 ->> 'generation_id')
      and ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and ($1 ->> 'key_id' is null or e.key_id = $1 ->> 'key_id')
      and ($1 ->> 'model' is null or e.model = $1 ->> 'model')
      and ($1 ->> 'upstream' is null or e.upstream = $1 ->> 'upstream')
      and ($1 ->> 'endpoint' is null or e.endpoint = $1 ->> 'endpoint')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'streamed' is null or e.streamed = ($1 ->> 'streamed')::boolean)
      and ($1 ->> 'estimated' is null or e.estimated = ($1 ->> 'estimated')::boolean)
      and ($1 ->> 'cached' is null or coalesce(e.cached, false) = ($1 ->> 'cached')::boolean)
      and (
        $1 ->> 'prompt_cached' is null
        or (tollgate.cached_tokens(e.usage, e.prompt_tokens) > 0) = ($1 ->> 'prompt_cached')::boolean
      )
      and case
        when $1 ->> 'status' is null then true
        when $1 ->> 'status' like '_xx' then e.status / 100 = left($1 ->> 'status', 1)::integer
        else e.status = ($1 ->> 'status')::integer
      end
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    tollgate.with_org(filters) || jsonb_build_object('kept_from', r.dropped_until),
    page_size,
    within => $where$
      ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and e.created_at >= greatest(($1 ->> 'from')::timestamptz, ($1 ->> 'kept_from')::timestamptz)
      and ($1 ->> 'to' is null or e.created_at < ($1 ->> 'to')::timestamptz)
      and ($1 ->> 'quarantined' is distinct from 'true' or e.quarantined)
      and ($1 ->> 'quarantined' is distinct from 'false' or not e.quarantined)
    $where$,
    counted => false,
    most_read => most_read
  )
  from tollgate.rolled r
$$;

comment on function tollgate.request_page(jsonb, integer, boolean, integer) is
  'A page of requests. `filters` as for tollgate_requests(). Reads at most most_read requests: where too few of them are wanted, the page is short, even empty, and next_cursor is the last one that was read. Refuses: as page().';


create function public.tollgate_requests(
  caller jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
begin
  return tollgate.request_page(tollgate.own_or_all(actor, filters, everyone), page_size, everyone)
    || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_requests(jsonb, jsonb, integer, boolean) is
  'A page of requests: everyone''s for admins, or those of the caller''s org without what they cost us. `filters`: model, key_id, user_id, org_id, upstream, endpoint, status (a code, or 4xx), state, streamed, estimated, quarantined, cached, prompt_cached, from, to, sort (created_at), cursor, offset. A page may be short, or empty, while next_cursor says that there is more to read. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_requests(jsonb, jsonb, integer, boolean)');
