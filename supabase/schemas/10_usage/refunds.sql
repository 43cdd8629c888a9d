-- Refunds, counted with the requests that they refund.

create function tollgate.refunds_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns table (
  start timestamptz, org_id text, user_id text, key_id text, model text, upstream text, nanos numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  unit constant text := (select u from unnest(array['minute', 'hour', 'day', 'month']) u where u = any (by) limit 1);
begin
  return query execute format(
    $query$
      select %1$s, sum(f.amount_nanos)
      from tollgate.transfers f
      join tollgate.requests t on t.id = tollgate.request_of(f)
      where f.kind <> 'charge' and f.kind = 'refund' and f.reference not like '%%:late'
        and f.created_at >= coalesce($1, '-infinity')
        and t.created_at >= coalesce($1, '-infinity') and t.created_at < coalesce($2, 'infinity') %2$s
      group by 1, 2, 3, 4, 5, 6
    $query$,
    concat_ws(', ',
      case when unit is null then 'null::timestamptz' else format('date_trunc(%L, t.created_at, ''UTC'')', unit) end,
      case when 'org' = any (by) then 't.org_id' else 'null::text' end,
      case when 'user' = any (by) then 't.user_id' else 'null::text' end,
      case when 'key' = any (by) then 't.key_id' else 'null::text' end,
      case when 'model' = any (by) then 't.model' else 'null::text' end,
      case when 'upstream' = any (by) then 't.upstream' else 'null::text' end
    ),
    tollgate.wanted(filters, array['org_id', 'user_id', 'key_id', 'model', 'upstream'])
  ) using since, until;
end
$$;

comment on function tollgate.refunds_by(text[], timestamptz, timestamptz, jsonb) is
  'What operators have refunded of the requests made in a span of time, grouped as usage_by() groups them. Refunds of requests that retention dropped are left out. Refunds are few: they are read one by one, from the index of transfers that are no charges.';


create function tollgate.refunded(refunds jsonb, group_id text) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('refunded_nanos', coalesce(refunds -> group_id, '0'))
$$;

comment on function tollgate.refunded(jsonb, text) is 'The refunds of a group, from those of refunds_of().';


create function tollgate.refunds_of(by text[], since timestamptz, until timestamptz, filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(
    jsonb_object_agg(tollgate.group_id(r.start, r.org_id, r.user_id, r.key_id, r.model, r.upstream), r.nanos), '{}'
  )
  from tollgate.refunds_by(by, since, until, filters) r
$$;

comment on function tollgate.refunds_of(text[], timestamptz, timestamptz, jsonb) is
  'The refunds of refunds_by() by the id of their group: few, where there may be many groups.';


create function tollgate.sum_of(refunds jsonb) returns numeric
language sql
immutable
set search_path = ''
as $$
  select coalesce(sum(r.value::numeric), 0) from jsonb_each(refunds) r
$$;

comment on function tollgate.sum_of(jsonb) is 'All refunds of refunds_of() together.';
