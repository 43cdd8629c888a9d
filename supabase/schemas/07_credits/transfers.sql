-- Transfers as JSON, and lists of them.

create function tollgate.transfer_id(number bigint) returns text
language sql
stable
set search_path = ''
as $$
  select 'trf_' || tollgate.mixed(number)
$$;

comment on function tollgate.transfer_id(bigint) is
  'The id of a transfer in the API. It does not tell the position, which counts the transfers of all orgs.';


create function tollgate.request_of(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select case t.kind
    when 'charge' then regexp_replace(t.reference, ':late$', '')
    when 'refund' then regexp_replace(t.reference, '(/[0-9]+|:late)$', '')
  end
$$;

comment on function tollgate.request_of(tollgate.transfers) is
  'The request of a charge or refund. The n-th refund of a request has the reference <request id>/<n>, so that the ledger cannot hold it twice; a correction by a late settlement has <request id>:late.';


create function tollgate.transfer_shown(t tollgate.transfers) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', tollgate.transfer_id(t.position),
    'org_id', t.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = t.org_id),
    'kind', t.kind,
    'debit', t.debit,
    'credit', t.credit,
    'amount_nanos', t.amount_nanos,
    'change_nanos', case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end,
    'balance_after_nanos', t.balance_after_nanos,
    'request_id', tollgate.request_of(t),
    'refundable_nanos', case t.kind when 'charge' then tollgate.refundable(tollgate.request_of(t)) end,
    'reference', t.reference,
    'reason', t.reason,
    'created_at', tollgate.utc(t.created_at)
  )
$$;

comment on function tollgate.transfer_shown(tollgate.transfers) is
  'A transfer as operators see it. change_nanos is the change of the org''s balance.';


create function tollgate.transfer_page(filters jsonb, page_size integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  matching constant text := $where$
    ($1 ->> 'kind' is null or e.kind = $1 ->> 'kind')
    and ($1 ->> 'debit' is null or e.debit = $1 ->> 'debit')
    and ($1 ->> 'credit' is null or e.credit = $1 ->> 'credit')
    and ($1 ->> 'from' is null or e.created_at >= ($1 ->> 'from')::timestamptz)
    and ($1 ->> 'to' is null or e.created_at < ($1 ->> 'to')::timestamptz)
    and ($1 ->> 'min_nanos' is null or e.amount_nanos >= ($1 ->> 'min_nanos')::bigint)
    and ($1 ->> 'max_nanos' is null or e.amount_nanos <= ($1 ->> 'max_nanos')::bigint)
  $where$;
  -- Few transfers are no charges, and they have an index of their own. It is used where the condition says so.
  without_charges constant boolean := filters ->> 'kind' <> 'charge' or filters ->> 'debit' <> 'wallet'
    or filters ->> 'credit' <> 'revenue';
  -- Rows of a past time lie together, far from either end of the positions: the index by time finds them first.
  by_time constant boolean := filters ->> 'org_id' is null and (filters ->> 'to')::timestamptz < clock_timestamp();
begin
  return tollgate.page(
    'tollgate.transfers',
    'tollgate.transfer_shown',
    case when without_charges then 'e.kind <> ''charge'' and' || matching
      when by_time then format('e.position = any (array(select e.position from tollgate.transfers e where %s))', matching)
      else matching
    end,
    '{"created_at": "e.position"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    case when filters ->> 'cursor' is null then filters else filters || jsonb_build_object(
      'cursor', coalesce(tollgate.unmixed(substring(filters ->> 'cursor' from '^trf_(.*)$')), 0)
    ) end,
    page_size,
    within => $where$ $1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id' $where$,
    id => 'e.position',
    counted => false
  );
end
$$;

comment on function tollgate.transfer_page(jsonb, integer) is
  'A page of the ledger, in the order of its positions. `filters`: org_id, kind, debit, credit, from, to, min_nanos, max_nanos, sort (created_at), cursor, offset. Refuses: as page(). Locks nothing.';


create function public.tollgate_transfers(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return tollgate.transfer_page(filters, page_size) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_transfers(jsonb, jsonb, integer) is
  'The ledger by pages; filters and sort as for transfer_page(). For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_transfers(jsonb, jsonb, integer)');


create function public.tollgate_own_transfers(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
begin
  return tollgate.transfer_page(filters || jsonb_build_object('org_id', actor.org_id), page_size)
    || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_own_transfers(jsonb, jsonb, integer) is
  'The transfers of the caller''s org and of no other, by pages; filters and sort as for transfer_page(). Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_own_transfers(jsonb, jsonb, integer)');
