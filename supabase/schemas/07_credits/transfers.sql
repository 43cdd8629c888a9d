-- Transfers as JSON, and lists of them.

create function tollgate.transfer_id(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select 'trf_' || t.position
$$;

comment on function tollgate.transfer_id(tollgate.transfers) is 'How a transfer is called outside.';


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
  'The request that a charge or a refund is about. The n-th refund of a request has the reference <request id>/<n>, so that the ledger itself cannot hold two n-th ones; what a late settlement corrects has <request id>:late.';


create function tollgate.shown_transfer(t tollgate.transfers) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', tollgate.transfer_id(t),
    'org_id', t.org_id,
    'kind', t.kind,
    'debit', t.debit,
    'credit', t.credit,
    'amount_nanos', t.amount_nanos,
    'change_nanos', case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end,
    'balance_after_nanos', t.balance_after_nanos,
    'request_id', tollgate.request_of(t),
    'reference', t.reference,
    'reason', t.reason,
    'created_at', tollgate.utc(t.created_at)
  )
$$;

comment on function tollgate.shown_transfer(tollgate.transfers) is
  'A transfer as operators see it. change_nanos is what it did to the org''s balance.';


create function tollgate.transfer_page(filters jsonb, page_size integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  most_counted constant integer := 10000;
  condition constant text := concat_ws(' and ', 'true',
    case when filters ->> 'org_id' is not null then 't.org_id = $1 ->> ''org_id''' end,
    case when filters ->> 'kind' is not null then 't.kind = $1 ->> ''kind''' end,
    case when filters ->> 'debit' is not null then 't.debit = $1 ->> ''debit''' end,
    case when filters ->> 'credit' is not null then 't.credit = $1 ->> ''credit''' end,
    case when filters ->> 'from' is not null then 't.created_at >= ($1 ->> ''from'')::timestamptz' end,
    case when filters ->> 'to' is not null then 't.created_at < ($1 ->> ''to'')::timestamptz' end,
    case when filters ->> 'min_nanos' is not null then 't.amount_nanos >= ($1 ->> ''min_nanos'')::bigint' end,
    case when filters ->> 'max_nanos' is not null then 't.amount_nanos <= ($1 ->> ''max_nanos'')::bigint' end
  );
  rising constant boolean := coalesce(filters ->> 'sort' = 'created_at:asc', false);
  beyond bigint := case when rising then 0 else 9223372036854775807 end;
  -- Times that are past lie together, far from where reading by position begins: then they are sought out first.
  first constant text := case
    when filters ->> 'org_id' is null and (filters ->> 'to')::timestamptz < clock_timestamp() then 'materialized'
    else 'not materialized'
  end;
  counted bigint;
  page jsonb;
begin
  if filters ->> 'cursor' is not null then
    select t.position into beyond from tollgate.transfers t
    where t.position = substring(filters ->> 'cursor' from '^trf_([0-9]{1,18})$')::bigint
      and (filters ->> 'org_id' is null or t.org_id = filters ->> 'org_id');
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  -- Planned each time for the filters there are: one plan for all of them would read the whole ledger for one org.
  execute format(
    'with found as %4$s (select t.position from tollgate.transfers t where %1$s and t.position %3$s $2)
     select coalesce(jsonb_agg(tollgate.shown_transfer(t) order by t.position %2$s), ''[]'')
     from tollgate.transfers t
     where t.position in (select f.position from found f order by f.position %2$s limit $3)',
    condition, case when rising then 'asc' else 'desc' end, case when rising then '>' else '<' end, first)
  into page using filters, beyond, page_size + 1;
  execute format(
    'with found as %2$s (select t.position from tollgate.transfers t where %1$s)
     select count(*) from (select from found limit $2) f', condition, first)
  into counted using filters, most_counted + 1;

  return jsonb_build_object(
    'data', page - page_size,
    'next_cursor', case when jsonb_array_length(page) > page_size then page -> (page_size - 1) -> 'id' end,
    'total', case when counted <= most_counted then counted end
  );
end
$$;

comment on function tollgate.transfer_page(jsonb, integer) is
  'A page of the ledger, in the order of its making: newest first, or with the sort created_at:asc oldest first. `filters`: org_id, kind, debit, credit, from, to, min_nanos, max_nanos, cursor (the id of the last one of the page before). Counts up to 10,000; more is null. Refuses, with invalid_request, a cursor that is none of the org''s.';


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
