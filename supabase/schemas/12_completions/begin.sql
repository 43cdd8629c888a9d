-- The rows of requests that begin.

create function tollgate.begin_requests(all_admitted tollgate.admitted[], moment timestamptz) returns void
language plpgsql
set search_path = ''
as $$
begin
  with requests as (
    insert into tollgate.requests (
      id, org_id, key_id, user_id, state, endpoint, model, streamed, hold_nanos, markup_ppm,
      output_bound, reserved_tokens, price, idempotency_key, created_at, expires_at, is_byok, alias, cached
    )
    select
      a.id, a.org_id, a.key_id, a.user_id, 'held', a.item ->> 'endpoint', a.item ->> 'model',
      (a.item ->> 'streamed')::boolean, a.hold_nanos, a.markup_ppm, a.output_bound, a.reserved_tokens,
      a.item -> 'price', a.item ->> 'idempotency_key', moment,
      moment + make_interval(secs => (a.item ->> 'ttl_seconds')::double precision),
      coalesce((a.item ->> 'is_byok')::boolean, false), a.item ->> 'alias', (a.item ->> 'cached')::boolean
    from unnest(all_admitted) a
    returning id, expires_at
  )
  insert into tollgate.holds (request_id, next_sweep_at) select r.id, r.expires_at from requests r;
end
$$;

comment on function tollgate.begin_requests(tollgate.admitted[], timestamptz) is
  'Writes admitted requests and their holds. The orgs are locked by the caller.';
