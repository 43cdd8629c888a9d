-- Results of probes.

create function tollgate.probe_shown(p tollgate.probes) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'upstream_id', p.upstream_id,
    'status', p.status,
    'http_status', p.http_status,
    'latency_ms', p.latency_ms,
    'error', p.error,
    'probed_at', tollgate.utc(p.probed_at)
  )
$$;

comment on function tollgate.probe_shown(tollgate.probes) is 'A probe as operators see it.';


create function public.tollgate_keep_probes(caller jsonb, probes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  kept jsonb;
begin
  perform u.id from tollgate.upstreams u
  where u.id in (select p ->> 'upstream_id' from jsonb_array_elements(probes) p)
  order by u.id
  for key share;

  with stored as (
    insert into tollgate.probes as p (upstream_id, status, http_status, latency_ms, error)
    select g.upstream_id, g.status, g.http_status, g.latency_ms, left(g.error, 500)
    from jsonb_to_recordset(probes)
      as g (upstream_id text, status text, http_status integer, latency_ms integer, error text)
    where exists (select from tollgate.upstreams u where u.id = g.upstream_id)
    order by g.upstream_id
    on conflict (upstream_id) do update set
      status = excluded.status, http_status = excluded.http_status, latency_ms = excluded.latency_ms,
      error = excluded.error, probed_at = excluded.probed_at
    returning p as row
  )
  select coalesce(jsonb_agg(tollgate.probe_shown(s.row) order by (s.row).upstream_id), '[]') into kept
  from stored s;

  perform tollgate.record(actor, 'upstreams.probed', null, 'upstreams', jsonb_build_object(
    'up', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'up'),
    'down', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'down')
  ));
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', kept);
end
$$;

comment on function public.tollgate_keep_probes(jsonb, jsonb) is
  'Keeps the results of probes: upstream_id, status, http_status, latency_ms, error. Results of an upstream that is gone are left out. For admins. Refuses: as recognise(). Locks the upstreams by id against removal, then their probes in the same order.';

select tollgate.expose('public.tollgate_keep_probes(jsonb, jsonb)');
