-- Grants and adjustments made by operators over HTTP.
--
-- Lock order: operator (an advisory lock), org, key, transfer.

create function tollgate.operator_of(actor tollgate.caller) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(actor.user_id, actor.kind)
$$;

comment on function tollgate.operator_of(tollgate.caller) is
  'The operator whose operation this is: a user id, or console.';


create function tollgate.check_amount(operation jsonb, smallest bigint) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  amount constant numeric := operation ->> 'amount_nanos';
begin
  if (amount between smallest and 100000000000000000 and amount <> 0) is not true then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'amount_nanos', 'amount_nanos', amount));
  end if;
  return amount;
end
$$;

comment on function tollgate.check_amount(jsonb, bigint) is
  'The amount of an operation. Refuses, with invalid_request, a missing amount, zero, and one outside the bounds of a transfer.';


create function tollgate.check_cap(actor tollgate.caller, amount_nanos bigint, caps jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  today constant timestamptz := date_trunc('day', clock_timestamp() at time zone 'utc') at time zone 'utc';
  cap constant bigint := caps ->> 'grant_nanos';
  cap_per_day constant bigint := caps ->> 'day_nanos';
  granted_today numeric;
begin
  if actor.kind = 'console' then
    return;
  end if;
  select coalesce(sum(o.counted_nanos), 0) into granted_today from tollgate.credit_operations o
  where o.operator = tollgate.operator_of(actor) and o.created_at >= today;

  if (amount_nanos <= cap and granted_today + amount_nanos <= cap_per_day) is not true then
    perform tollgate.refuse(403, 'cap_exceeded', jsonb_build_object(
      'amount_nanos', amount_nanos,
      'cap_nanos', cap,
      'cap_per_day_nanos', cap_per_day,
      'granted_today_nanos', granted_today,
      'resets_at', tollgate.utc(today + interval '1 day')
    ));
  end if;
end
$$;

comment on function tollgate.check_cap(tollgate.caller, bigint, jsonb) is
  'Refuses, with cap_exceeded, a grant above the cap, or one that exceeds the operator''s cap of the day (UTC). A missing cap refuses every grant. The console has no cap. Expects the operator to be locked.';


create function tollgate.check_source(operation jsonb, sources text[]) returns text
language plpgsql
set search_path = ''
as $$
begin
  if (operation ->> 'source' = any (sources)) is not true then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'source', 'source', operation ->> 'source', 'sources', to_jsonb(sources)));
  end if;
  return operation ->> 'source';
end
$$;

comment on function tollgate.check_source(jsonb, text[]) is
  'The account on the other side of an operation. Refuses, with invalid_request, any but the `sources`.';


create function tollgate.earlier_operation(actor tollgate.caller, kind text, operation jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  acting text := tollgate.operator_of(actor);
  earlier tollgate.credit_operations;
  posted tollgate.transfers;
begin
  perform tollgate.check_recent_sign_in(actor);
  perform pg_advisory_xact_lock(hashtextextended('tollgate_credits ' || acting, 0));

  select o.* into earlier from tollgate.credit_operations o
  where o.operator = acting and o.idempotency_key = operation ->> 'idempotency_key';
  if not found then
    return null;
  end if;
  select t.* into posted from tollgate.transfers t where t.position = earlier.position;
  if posted.kind <> earlier_operation.kind or earlier.asked <> operation - 'idempotency_key' then
    perform tollgate.refuse(422, 'idempotency_key_reused',
      jsonb_build_object('transfer_id', tollgate.transfer_id(posted.position)));
  end if;
  return tollgate.transfer_shown(posted) || '{"created": false}';
end
$$;

comment on function tollgate.earlier_operation(tollgate.caller, text, jsonb) is
  'The answer given before under the operation''s idempotency key, or null. Refuses: sign_in_again, idempotency_key_reused. Locks the operator until the transaction ends, so that operations of one operator run one at a time: no repetition and no grant beyond the cap can slip through.';


create function tollgate.lock_payer(operation jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  payer_id constant text := tollgate.org_of(operation);
  payer tollgate.orgs;
begin
  select o.* into payer from tollgate.orgs o where o.id = payer_id for no key update;
  if not found then
    perform tollgate.refuse_missing('org', payer_id);
  end if;
  return payer;
end
$$;

comment on function tollgate.lock_payer(jsonb) is
  'The org of an operation: of its org_id, or of its user_id. Refuses: not_found. Locks the org.';


create function tollgate.post_operation(
  caller jsonb,
  actor tollgate.caller,
  operation jsonb,
  draft tollgate.transfers
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  posted tollgate.transfers;
begin
  draft.reference := coalesce(
    draft.reference, tollgate.operator_of(actor) || ':' || (operation ->> 'idempotency_key')
  );
  draft.reason := operation ->> 'reason';
  posted := tollgate.move(draft);

  insert into tollgate.credit_operations (operator, idempotency_key, asked, position, request_id, counted_nanos)
  values (
    tollgate.operator_of(actor),
    operation ->> 'idempotency_key',
    operation - 'idempotency_key',
    posted.position,
    tollgate.request_of(posted),
    case when posted.credit = 'wallet' and posted.kind <> 'refund' then posted.amount_nanos else 0 end
  );
  perform tollgate.record(
    actor,
    case posted.kind
      when 'grant' then 'credits.granted'
      when 'refund' then 'credits.refunded'
      else 'credits.adjusted'
    end,
    posted.org_id,
    tollgate.transfer_id(posted.position),
    operation || jsonb_build_object('amount_nanos', posted.amount_nanos, 'debit', posted.debit, 'credit', posted.credit)
  );
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.transfer_shown(posted) || '{"created": true}';
end
$$;

comment on function tollgate.post_operation(jsonb, tollgate.caller, jsonb, tollgate.transfers) is
  'Moves what the draft says, and inserts the operation and its audit event. A draft without a reference gets one of the operator and the idempotency key, so that it never equals one of another operator or of the console. Expects the operator and the org to be locked. Touches the key.';


create function public.tollgate_grant_credits(caller jsonb, operation jsonb, caps jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'grant', operation);
  draft tollgate.transfers;
begin
  if answer is null then
    draft.kind := 'grant';
    draft.amount_nanos := tollgate.check_amount(operation, 1);
    draft.debit := tollgate.check_source(operation, array['funding', 'promotion']);
    draft.credit := 'wallet';
    draft.org_id := (tollgate.lock_payer(operation)).id;
    perform tollgate.check_cap(actor, draft.amount_nanos, caps);
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_grant_credits(jsonb, jsonb, jsonb) is
  'Grants credits to an org, or to a user''s org, once per idempotency key of the operator. `operation`: org_id or user_id, amount_nanos, source (funding, promotion), reason, idempotency_key. `caps`: grant_nanos, day_nanos. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_grant_credits(jsonb, jsonb, jsonb)');


create function public.tollgate_adjust_credits(caller jsonb, operation jsonb, caps jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'adjustment', operation);
  change bigint;
  source text;
  payer tollgate.orgs;
  draft tollgate.transfers;
begin
  if answer is null then
    change := tollgate.check_amount(operation, -100000000000000000);
    source := tollgate.check_source(operation, array['funding', 'promotion', 'writeoff']);
    payer := tollgate.lock_payer(operation);
    if change > 0 then
      perform tollgate.check_cap(actor, change, caps);
    elsif payer.balance_nanos - payer.held_nanos + change < 0 then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'reason', 'balance_too_low',
        'param', 'credits',
        'amount_nanos', change,
        'balance_nanos', payer.balance_nanos,
        'held_nanos', payer.held_nanos,
        'available_nanos', payer.balance_nanos - payer.held_nanos
      ));
    end if;
    draft.kind := 'adjustment';
    draft.org_id := payer.id;
    draft.amount_nanos := abs(change);
    draft.debit := case when change > 0 then source else 'wallet' end;
    draft.credit := case when change > 0 then 'wallet' else source end;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_adjust_credits(jsonb, jsonb, jsonb) is
  'Adjusts an org''s balance, up or down, once per idempotency key of the operator. Takes no more than is available, so never what requests hold. `operation`: as for tollgate_grant_credits(), with a negative amount_nanos to take, source funding, promotion or writeoff. What it adds counts toward the caps. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded, conflict. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_adjust_credits(jsonb, jsonb, jsonb)');
