-- Why:  an operator wants to know what customers have paid for and not used: what the house owes them.
-- What: `balances` beside `overdrawn` in what tollgate_monitor() answers, for /admin/monitor and /metrics.
-- Care: replaces one inner function; code that is older does not look at the new field.

create or replace function tollgate.open_matters(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'open_holds', (
      select jsonb_build_object(
        'count', count(*),
        'nanos', coalesce(sum(r.hold_nanos), 0),
        'oldest_at', tollgate.utc(min(r.created_at)),
        'unsettled', count(*) filter (where r.state = 'unsettled')
      )
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
    ),
    'balances', (
      select jsonb_build_object('nanos', coalesce(sum(o.balance_nanos), 0))
      from tollgate.orgs o
      where o.balance_nanos > 0
    ),
    'overdrawn', (
      select jsonb_build_object(
        'count', count(*),
        'nanos', coalesce(-sum(o.balance_nanos), 0),
        'orgs', coalesce((
          select jsonb_agg(
            jsonb_build_object('org_id', w.id, 'name', w.name, 'balance_nanos', w.balance_nanos)
            order by w.balance_nanos, w.id
          )
          from (
            select d.* from tollgate.orgs d where d.balance_nanos < 0 order by d.balance_nanos, d.id limit places
          ) w
        ), '[]')
      )
      from tollgate.orgs o
      where o.balance_nanos < 0
    )
  )
$$;

comment on function tollgate.open_matters(integer) is
  'Holds that no settlement has ended yet, what all balances above zero come to, and orgs whose balance is below it, the worst by name.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121002000'
$$;

revoke execute on all functions in schema tollgate from public;
