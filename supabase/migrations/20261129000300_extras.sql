-- Why:  a cost that was not believed when it was stated is final only when the upstream's own record confirms it.
-- What: tollgate_due() tells the sweeper the usage that the answer stated.
-- Care: additive: one more field in each row.

set lock_timeout = '1s';


create or replace function public.tollgate_due(page_size integer, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  due jsonb;
begin
  delete from tollgate.answers a
  where (a.org_id, a.idempotency_key) in (
    select o.org_id, o.idempotency_key from tollgate.answers o
    where o.created_at < clock_timestamp() - interval '24 hours'
    order by o.created_at
    limit 1000
    for update skip locked
  );

  with taken as (
    update tollgate.holds h set
      sweeps = h.sweeps + 1,
      next_sweep_at = clock_timestamp() + make_interval(secs => lease_seconds)
    where h.request_id in (
      select o.request_id from tollgate.holds o
      where o.next_sweep_at <= clock_timestamp()
      order by o.next_sweep_at
      limit page_size
      for update skip locked
    )
    returning *
  )
  select jsonb_agg(jsonb_build_object(
    'id', r.id,
    'org_id', r.org_id,
    'state', r.state,
    'endpoint', r.endpoint,
    'model', r.model,
    'streamed', r.streamed,
    'upstream', r.upstream,
    'generation_id', r.generation_id,
    'hold_nanos', r.hold_nanos,
    'markup_ppm', r.markup_ppm,
    'price', r.price,
    'usage', r.usage,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'output_bound', r.output_bound,
    'reserved_tokens', r.reserved_tokens,
    'sweeps', t.sweeps,
    'created_at', tollgate.utc(r.created_at),
    'age_seconds', extract(epoch from clock_timestamp() - r.created_at)::bigint,
    'expires_in_seconds', extract(epoch from r.expires_at - clock_timestamp())::bigint,
    'expired', r.expires_at <= clock_timestamp()
  ) order by r.created_at, r.id) into due
  from taken t
  join tollgate.requests r on r.id = t.request_id;
  return jsonb_build_object('data', coalesce(due, '[]'::jsonb));
end
$$;

comment on function public.tollgate_due(integer, integer) is
  'Takes requests whose time has come for one sweeper, for the length of the lease, and forgets up to 1,000 answers older than a day. Refuses nothing. Skips holds and answers that another sweeper has locked.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000300'
$$;

revoke execute on all functions in schema tollgate from public;
