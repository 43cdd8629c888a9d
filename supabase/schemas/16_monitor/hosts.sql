-- The figures of hosts of our own.

create function tollgate.paid_call_rates(host_id text) returns jsonb
language sql
stable
set search_path = ''
as $$
  with calls as (
    select r.created_at, r.prompt_tokens, r.completion_tokens, r.duration_ms, r.first_token_ms
    from tollgate.requests r
    left join tollgate.upstreams u on u.id = r.upstream
    where r.created_at > now() - interval '5 minutes' and r.settled_at is not null
      and (paid_call_rates.host_id is null or u.host_id = paid_call_rates.host_id)
  )
  select jsonb_build_object(
    'req_per_sec', count(*) filter (where c.created_at > now() - interval '1 minute') / 60.0,
    'prompt_tokens_per_sec',
      coalesce(sum(c.prompt_tokens) filter (where c.created_at > now() - interval '1 minute'), 0) / 60.0,
    'generation_tokens_per_sec',
      coalesce(sum(c.completion_tokens) filter (where c.created_at > now() - interval '1 minute'), 0) / 60.0,
    'latency_p50_ms', percentile_cont(0.5) within group (order by c.duration_ms),
    'latency_p95_ms', percentile_cont(0.95) within group (order by c.duration_ms),
    'ttft_p50_ms', percentile_cont(0.5) within group (order by c.first_token_ms),
    'ttft_p95_ms', percentile_cont(0.95) within group (order by c.first_token_ms)
  )
  from calls c
$$;

comment on function tollgate.paid_call_rates(text) is
  'All paid calls, or those that a host answered: rates of the last minute, percentiles of the last five.';


create function public.tollgate_fleet(caller jsonb, host_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  found_ones jsonb;
begin
  select jsonb_agg(tollgate.host_shown(h) order by h.id) into found_ones from tollgate.hosts h
  where case when tollgate_fleet.host_id is null then h.state <> 'retired' else h.id = tollgate_fleet.host_id end;
  if found_ones is null and host_id is not null then
    perform tollgate.refuse_missing('host', host_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'hosts', coalesce(found_ones, '[]'),
    'throughput', tollgate.paid_call_rates(host_id)
  );
end
$$;

comment on function public.tollgate_fleet(jsonb, text) is
  'All hosts that are not retired, or one, each with its last sample; and the rates of all paid calls, or of those that the one host answers. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_fleet(jsonb, text)');


create function public.tollgate_host_trends(caller jsonb, host_id text, minutes integer, step_seconds integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  wanted constant text := tollgate.host_named(host_id);
begin
  if not exists (select from tollgate.hosts h where h.id = wanted) then
    perform tollgate.refuse_missing('host', wanted);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'host_id', wanted, 'samples', coalesce((
    select jsonb_agg(b.sample || jsonb_build_object('ts', b.ts) order by b.ts)
    from (
      select distinct on (1) floor(extract(epoch from s.sampled_at) / step_seconds)::bigint * step_seconds as ts, s.sample
      from tollgate.host_samples s
      where s.host_id = wanted and s.sampled_at > now() - make_interval(mins => minutes)
      order by 1, s.sampled_at desc
    ) b
  ), '[]'));
end
$$;

comment on function public.tollgate_host_trends(jsonb, text, integer, integer) is
  'The samples of a host, or of the only one, in the last minutes, the last one of each step, with the beginning of the step in seconds since the epoch. For admins. Refuses: as recognise() and host_named(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_host_trends(jsonb, text, integer, integer)');
