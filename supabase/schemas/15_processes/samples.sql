-- Process samples: written in the sweeper's round, shown to operators, read by rules.

create function public.tollgate_record_process(process text, sample jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  dropped bigint;
begin
  insert into tollgate.process_samples (process, sample)
  select tollgate_record_process.process, tollgate_record_process.sample
  where sample is not null and not exists (
    select from tollgate.process_samples s
    where s.process = tollgate_record_process.process and s.sampled_at > now() - interval '50 seconds'
  )
  on conflict do nothing;
  delete from tollgate.process_samples s where (s.process, s.sampled_at) in (
    select o.process, o.sampled_at from tollgate.process_samples o where o.sampled_at < now() - interval '24 hours'
    order by o.sampled_at limit page_size for update skip locked
  );
  get diagnostics dropped = row_count;
  return jsonb_build_object('dropped', dropped, 'more', dropped >= page_size);
end
$$;

comment on function public.tollgate_record_process(text, jsonb, integer) is
  'Adds a sample of a process, unless its last is of this minute or the sample is null, and deletes samples that are older than a day; called again while it answers "more". Refuses nothing. Skips rows that are locked.';

select tollgate.expose('public.tollgate_record_process(text, jsonb, integer)');


create function tollgate.process_readings(as_of timestamptz)
returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  with last_ones as (
    select distinct on (s.process) s.process, s.sample
    from tollgate.process_samples s
    where s.sampled_at > as_of - interval '3 minutes' and s.sampled_at <= as_of
    order by s.process, s.sampled_at desc
  )
  select r.signal, l.process, round(100 * r.used / nullif(r.total, 0), 1)
  from last_ones l
  cross join lateral (values
    ('process_memory_percent', (l.sample ->> 'memory_used_bytes')::numeric, (l.sample ->> 'memory_total_bytes')::numeric),
    ('process_disk_percent', (l.sample ->> 'disk_used_bytes')::numeric, (l.sample ->> 'disk_total_bytes')::numeric)
  ) r (signal, used, total)
  where r.used is not null and r.total > 0
$$;

comment on function tollgate.process_readings(timestamptz) is
  'How full the memory and the disk of each process are, by its last sample of the three minutes before.';


create function public.tollgate_processes(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'processes', coalesce((
    select jsonb_agg(jsonb_build_object('process', l.process, 'sampled_at', l.sampled_at, 'sample', l.sample)
      order by l.process)
    from (
      select distinct on (s.process) s.process, s.sampled_at, s.sample
      from tollgate.process_samples s where s.sampled_at > now() - interval '10 minutes'
      order by s.process, s.sampled_at desc
    ) l
  ), '[]'));
end
$$;

comment on function public.tollgate_processes(jsonb) is
  'The last sample of each process that wrote one in the last ten minutes. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_processes(jsonb)');


create function public.tollgate_process_trends(caller jsonb, process text, minutes integer, step_seconds integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  if not exists (select from tollgate.process_samples s where s.process = tollgate_process_trends.process) then
    perform tollgate.refuse_missing('process', process);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'process', process, 'samples', (
    select coalesce(jsonb_agg(b.sample || jsonb_build_object('ts', b.ts, 'sampled_at', b.sampled_at) order by b.ts), '[]')
    from (
      select distinct on (1) floor(extract(epoch from s.sampled_at) / step_seconds)::bigint * step_seconds as ts,
        s.sample, s.sampled_at
      from tollgate.process_samples s
      where s.process = tollgate_process_trends.process and s.sampled_at > now() - make_interval(mins => minutes)
      order by 1, s.sampled_at desc
    ) b
  ));
end
$$;

comment on function public.tollgate_process_trends(jsonb, text, integer, integer) is
  'The samples of a process in the last minutes, the last one of each step, with the beginning of the step in seconds since the epoch. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_process_trends(jsonb, text, integer, integer)');
