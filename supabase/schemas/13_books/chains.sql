-- Faults of the hash chains.

create function tollgate.chain_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with transfers as (
    select t, lag(t.chain) over (partition by t.org_id order by t.position) as before from tollgate.transfers t
  ),
  heads as (
    select distinct on (t.org_id) t.org_id, t.chain from tollgate.transfers t order by t.org_id, t.position desc
  ),
  events as (
    select l.position, l.event_id, l.chain, lag(l.chain) over (order by l.position) as before,
      l.position - lag(l.position, 1, 0::bigint) over (order by l.position) as step
    from tollgate.event_links l
  )
  (
    select distinct on ((c.t).org_id) 'chain', tollgate.transfer_id((c.t).position), jsonb_build_object(
      'org_id', (c.t).org_id, 'row', true, 'link', (c.t).chain is not null
    )
    from transfers c
    where (c.t).chain is distinct from tollgate.chain_after(c.before, c.t)
      and not ((c.t).chain is null and (c.t).position <= (
        select s.position from tollgate.chain_starts s where s.chain = 'transfers'
      ))
    order by (c.t).org_id, (c.t).position
  )
  union all
  (
    select 'chain', o.id, jsonb_build_object('org_id', o.id, 'row', h.chain is not null, 'link', o.chain_head is not null)
    from tollgate.orgs o
    left join heads h on h.org_id = o.id
    where h.chain is distinct from o.chain_head
    order by o.id
  )
  union all
  (
    select 'chain', c.event_id, jsonb_build_object('position', c.position, 'row', a.id is not null, 'link', true)
    from events c
    left join tollgate.audit_events a on a.id = c.event_id
    where (c.step = 1 and c.chain = sha256(coalesce(c.before, '') || tollgate.event_text(a))) is not true
    order by c.position
    limit 1
  )
  union all
  (
    select 'chain', a.id, jsonb_build_object('row', true, 'link', false)
    from tollgate.audit_events a
    where not exists (select from tollgate.event_links l where l.event_id = a.id)
      and a.occurred_at > (select s.started_at from tollgate.chain_starts s where s.chain = 'audit_events')
    order by a.occurred_at, a.id
    limit 1
  )
  union all
  select 'chain', c.name, '{"row": true, "link": false}'
  from (values ('transfers'), ('audit_events')) c (name)
  where not exists (select from tollgate.chain_starts s where s.chain = c.name)
$$;

comment on function tollgate.chain_faults() is
  'Where a hash chain is broken: the first broken transfer of each org, each org whose last transfer is not its head, the first broken link of the audit trail, the first event without one. Rows that were there before the chain need none.';


create function public.tollgate_sight_chains() returns jsonb
language sql
security definer
set search_path = ''
as $$
  -- Read before this transaction has an id of its own, and drawn by transactions that had theirs: they lock the org first.
  with newest as materialized (
    select case when s.is_called then s.last_value else 0 end as position from tollgate.transfers_position_seq s
  )
  select jsonb_build_object('position', n.position, 'transaction', pg_current_xact_id()::text) from newest n
$$;

comment on function public.tollgate_sight_chains() is
  'The newest transfer, and a transaction id: when none before it runs any more, every transfer up to that one is there to be seen. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_sight_chains()');


create function public.tollgate_chains_at(sighted jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with here as (
    select (sighted ->> 'position')::bigint as position,
      coalesce(
        (sighted ->> 'event_position')::bigint,
        (select max(l.position) from tollgate.event_links l),
        0
      ) as event_position,
      (sighted ->> 'transaction')::xid8 <= pg_snapshot_xmin(pg_current_snapshot()) is not false as is_complete
  ),
  heads as (
    select distinct on (t.org_id) t.org_id, t.chain
    from tollgate.transfers t
    where t.position <= (select h.position from here h)
    order by t.org_id, t.position desc
  )
  select jsonb_build_object('complete', h.is_complete) || case when h.is_complete then jsonb_build_object(
    'at', tollgate.utc(now()),
    'schema_version', (select v.version from tollgate.schema_version v),
    'position', h.position,
    'transfers', (select count(*) from tollgate.transfers t where t.position <= h.position),
    'transfers_digest', (
      select encode(sha256(coalesce(string_agg(s.chain, '' order by s.org_id collate "C"), '')), 'hex') from heads s
    ),
    'orgs', (select count(*) from heads),
    'event_position', h.event_position,
    'events', (select count(*) from tollgate.event_links l where l.position <= h.event_position),
    'events_digest', coalesce((
      select encode(l.chain, 'hex') from tollgate.event_links l where l.position = h.event_position
    ), ''),
    'starts', (
      select jsonb_object_agg(s.chain, jsonb_build_object('position', s.position, 'at', tollgate.utc(s.started_at)))
      from tollgate.chain_starts s
    )
  ) else '{}' end
  from here h
$$;

comment on function public.tollgate_chains_at(jsonb) is
  'The chains up to a transfer and an audit event: how many rows, one digest over the orgs'' last links, the last link of the trail. `sighted`: what tollgate_sight_chains() answered, or the position and event_position of an earlier head. Answers {"complete": false} while a transaction before the sighting still runs. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_chains_at(jsonb)');
