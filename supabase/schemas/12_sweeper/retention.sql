-- Drops old requests.

create function public.tollgate_drop_old_requests(older_than_days integer, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  boundary timestamptz;
  gone text[];
begin
  -- Only whole hours that are rolled up: their counts are in the tallies.
  select date_trunc('hour', least(r.rolled_until, now() - make_interval(days => greatest(older_than_days, 1))), 'UTC')
  into boundary
  from tollgate.rolled r;
  update tollgate.rolled set dropped_until = boundary where dropped_until < boundary;

  with old as (
    delete from tollgate.requests r
    where r.id = any (array(
      select o.id from tollgate.requests o
      where o.created_at < boundary and o.settled_at is not null
        and not exists (select from tollgate.late_requests l where l.request_id = o.id)
      order by o.created_at
      limit page_size
      for update skip locked
    ))
    returning r.id, r.org_id, r.charge_nanos
  ),
  noted as (
    insert into tollgate.dropped as d (org_id, requests, charges, charge_nanos)
    select o.org_id, count(*), count(*) filter (where o.charge_nanos > 0 or exists ( -- refunded later
      select from tollgate.transfers t where t.kind = 'charge' and t.reference = o.id
    )), coalesce(sum(o.charge_nanos), 0)
    from old o
    group by o.org_id
    order by o.org_id
    on conflict (org_id) do update set
      requests = d.requests + excluded.requests,
      charges = d.charges + excluded.charges,
      charge_nanos = d.charge_nanos + excluded.charge_nanos
  )
  select array_agg(o.id) into gone from old o;
  delete from tollgate.answers a where a.request_id = any (gone);
  return jsonb_build_object(
    'requests', coalesce(cardinality(gone), 0), 'more', coalesce(cardinality(gone), 0) >= page_size
  );
end
$$;

comment on function public.tollgate_drop_old_requests(integer, integer) is
  'Drops a batch of the oldest ended requests made so many days ago or more (at least one), and their answers, once they are rolled up; called again while it answers "more". Their usage stays in the tallies, and their charges in the ledger and, by org, in tollgate.dropped. Refuses nothing. Locks the dropped rows, skipping locked ones, never an org; the row of tollgate.rolled when the hour has moved on.';

select tollgate.expose('public.tollgate_drop_old_requests(integer, integer)');
