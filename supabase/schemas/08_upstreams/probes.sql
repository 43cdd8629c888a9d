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


create function tollgate.keep_past_probes(kept tollgate.probes[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.past_probes (upstream_id, probed_at, status, http_status, latency_ms, error)
  select k.upstream_id, k.probed_at, k.status, k.http_status, k.latency_ms, k.error from unnest(kept) k
  on conflict do nothing;
  delete from tollgate.past_probes p
  using unnest(kept) k
  where p.upstream_id = k.upstream_id and p.probed_at < (
    select o.probed_at from tollgate.past_probes o
    where o.upstream_id = k.upstream_id
    order by o.probed_at desc
    offset 49
    limit 1
  )
$$;

comment on function tollgate.keep_past_probes(tollgate.probes[]) is
  'Adds probes to those of the past, and deletes all but the last 50 of each upstream. Expects the upstreams to be locked.';


create function tollgate.past_probes_of(id text) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(
    jsonb_build_object(
      'status', p.status, 'http_status', p.http_status, 'latency_ms', p.latency_ms, 'error', p.error,
      'probed_at', tollgate.utc(p.probed_at)
    ) order by p.probed_at desc
  ), '[]')
  from tollgate.past_probes p where p.upstream_id = id
$$;

comment on function tollgate.past_probes_of(text) is 'The last probes of an upstream, newest first.';


create function public.tollgate_keep_probes(caller jsonb, probes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  kept jsonb;
  rows tollgate.probes[];
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
  select coalesce(jsonb_agg(tollgate.probe_shown(s.row) order by (s.row).upstream_id), '[]'), array_agg(s.row)
  into kept, rows
  from stored s;
  perform tollgate.keep_past_probes(rows);

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
