-- Ends open requests that were not settled in time.

create function public.tollgate_note_generations(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off -- as for tollgate_admit()
as $$
declare
  answers jsonb;
begin
  with noted as (
    update tollgate.requests r
    set generation_id = i.generation_id, upstream = i.upstream, is_byok = coalesce(i.is_byok, r.is_byok)
    from jsonb_to_recordset(items) i (id text, generation_id text, upstream text, is_byok boolean)
    where r.id = i.id and r.id = any (array(
      select o.id from tollgate.requests o
      where o.id = any (array(select a.value ->> 'id' from jsonb_array_elements(items) a))
        and o.state in ('held', 'unsettled')
      for no key update skip locked
    ))
    returning r.id
  )
  select jsonb_object_agg(i.value ->> 'id', jsonb_build_object('noted', n.id is not null)) into answers
  from jsonb_array_elements(items) i
  left join noted n on n.id = i.value ->> 'id';
  return answers;
end
$$;

comment on function public.tollgate_note_generations(jsonb) is
  'Stores the upstreams'' ids of running generations. With them the sweeper finds the costs of requests whose process died. Each item has id, generation_id, upstream, and is_byok where the org''s own key is in use. Refuses nothing. Locks the request rows, and skips locked ones, which are being settled.';

select tollgate.expose('public.tollgate_note_generations(jsonb)');


create function public.tollgate_due(page_size integer, lease_seconds integer) returns jsonb
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
    'is_byok', r.is_byok,
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
  'Leases requests that are due to one sweeper, and deletes up to 1,000 answers older than a day. Refuses nothing. Skips holds and answers that another sweeper has locked.';

select tollgate.expose('public.tollgate_due(integer, integer)');


create function public.tollgate_expire(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  overdue jsonb;
  answers jsonb;
begin
  select jsonb_agg(jsonb_build_object(
    'id', o.id,
    'outcome', 'settled',
    'charge_nanos', least(o.hold_nanos, ceil(o.prompt_nanos * (1000000 + o.markup_ppm) / 1000000)),
    'cost_nanos', case when o.is_byok then 0 else least(o.hold_nanos, ceil(o.prompt_nanos)) end,
    'estimated', true
  )) into overdue
  from (
    select r.id, r.hold_nanos, r.markup_ppm, r.is_byok, coalesce((r.price ->> 'fixed_nanos')::numeric, 0) as prompt_nanos
    from tollgate.holds h
    join tollgate.requests r on r.id = h.request_id
    where h.next_sweep_at < clock_timestamp() - interval '1 hour'
      and r.expires_at < clock_timestamp() - interval '1 hour'
      and r.state = 'held' and r.upstream is null and r.generation_id is null
    order by h.next_sweep_at
    limit page_size
  ) o;
  answers := public.tollgate_settle(coalesce(overdue, '[]'));
  return jsonb_build_object('ended', (
    select count(*) from jsonb_each(answers) a where not (a.value -> 'settled' ->> 'again')::boolean
  ));
end
$$;

comment on function public.tollgate_expire(integer) is
  'Ends holds that are overdue by an hour and have no upstream that could be asked. Charges the prompt, as the server''s own sweeper does, and marks the charge as estimated: the call may have run. Refuses nothing. Locks as tollgate_settle().';

select tollgate.expose('public.tollgate_expire(integer)');

-- For installations where no server sweeps. SQL cannot ask upstreams.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-expire', '* * * * *', 'select public.tollgate_expire(500)');
  end if;
end
$$;
