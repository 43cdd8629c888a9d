-- Refunds of charges.

create function tollgate.charged(request_id text) returns bigint
language sql
stable
set search_path = ''
as $$
  select coalesce(sum(case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end), 0)
  from tollgate.transfers t
  where (t.kind = 'charge' and t.reference in (request_id, request_id || ':late'))
    or (t.kind = 'refund' and t.reference = request_id || ':late')
$$;

comment on function tollgate.charged(text) is
  'The charge of a request, with the correction of a late settlement, and without refunds by operators.';


create function tollgate.refundable(request_id text) returns bigint
language sql
stable
set search_path = ''
as $$
  select greatest(tollgate.charged(refundable.request_id) - coalesce(sum(t.amount_nanos), 0), 0)
  from tollgate.credit_operations o
  join tollgate.transfers t on t.position = o.position
  where o.request_id = refundable.request_id
$$;

comment on function tollgate.refundable(text) is
  'What is left of the charge of a request after the refunds by operators.';


create function tollgate.refuse_refund(request_id text) returns void
language plpgsql
set search_path = ''
as $$
declare
  request tollgate.requests;
begin
  select r.* into request from tollgate.requests r where r.id = refuse_refund.request_id;
  if not found then
    perform tollgate.refuse_missing('request', request_id);
  end if;
  perform tollgate.refuse(409, 'conflict', jsonb_build_object(
    'reason', 'nothing_charged',
    'param', 'request_id',
    'request_id', request_id,
    'state', request.state,
    'charge_nanos', coalesce(request.charge_nanos, 0),
    'refundable_nanos', 0
  ));
end
$$;

comment on function tollgate.refuse_refund(text) is
  'Refuses to refund a request without a charge: not_found, or conflict with its state.';


create function public.tollgate_refund_charge(caller jsonb, operation jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'refund', operation);
  charge tollgate.transfers;
  charged bigint;
  refunds bigint;
  refunded bigint;
  draft tollgate.transfers;
begin
  if answer is null then
    select t.* into charge from tollgate.transfers t
    where t.kind = 'charge' and t.reference = operation ->> 'request_id';
    if not found then
      perform tollgate.refuse_refund(operation ->> 'request_id');
    end if;
    draft.org_id := (tollgate.lock_payer(jsonb_build_object('org_id', charge.org_id))).id;

    -- Read under the org's lock, which every refund and correction of the charge takes.
    charged := tollgate.charged(charge.reference);
    select count(*), coalesce(sum(t.amount_nanos), 0) into refunds, refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = charge.reference;
    draft.amount_nanos := case
      when operation ->> 'amount_nanos' is not null then tollgate.check_amount(operation, 1)
      else nullif(charged - refunded, 0)
    end;
    if (draft.amount_nanos <= charged - refunded) is not true then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'reason', 'beyond_charge',
        'param', 'amount_nanos',
        'request_id', charge.reference,
        'charge_nanos', charged,
        'refunded_nanos', refunded,
        'refundable_nanos', charged - refunded
      ));
    end if;
    draft.kind := 'refund';
    draft.debit := 'revenue';
    draft.credit := 'wallet';
    draft.reference := charge.reference || '/' || refunds + 1;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_refund_charge(jsonb, jsonb) is
  'Refunds the charge of a request, in part or what is left of it, once per idempotency key of the operator; the refunds of a charge together never exceed it. `operation`: request_id, amount_nanos or null for what is left, reason, idempotency_key. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, conflict. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_refund_charge(jsonb, jsonb)');
