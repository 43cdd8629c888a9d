-- Grants made at the console.

create function public.tollgate_grant(
  caller jsonb,
  org_id text,
  amount_nanos bigint,
  source text,
  reason text,
  reference text
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  operation constant jsonb := jsonb_build_object('org_id', org_id, 'amount_nanos', amount_nanos, 'source', source);
  draft tollgate.transfers;
  payer tollgate.orgs;
  posted tollgate.transfers;
  created boolean;
begin
  draft.kind := 'grant';
  draft.amount_nanos := tollgate.check_amount(operation, 1);
  draft.debit := tollgate.check_source(operation, array['funding', 'promotion']);
  draft.credit := 'wallet';
  draft.reference := reference;
  draft.reason := reason;
  payer := tollgate.lock_payer(operation);
  draft.org_id := payer.id;

  select t.* into posted from tollgate.transfers t where t.kind = 'grant' and t.reference = draft.reference;
  created := not found;
  if created then
    posted := tollgate.move(draft);
    perform tollgate.record(actor, 'credits.granted', org_id, tollgate.transfer_id(posted.position),
      jsonb_build_object('amount_nanos', amount_nanos, 'source', source, 'reason', reason, 'reference', reference));
  elsif (posted.org_id, posted.amount_nanos, posted.debit)
    is distinct from (draft.org_id, draft.amount_nanos, draft.debit)
  then
    perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('transfer_id', tollgate.transfer_id(posted.position)));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'created', created,
    'transfer_id', tollgate.transfer_id(posted.position),
    'balance_nanos', case when created then posted.balance_after_nanos else payer.balance_nanos end
  );
exception when unique_violation then -- another org took the same reference at this moment
  perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('reference', reference));
end
$$;

comment on function public.tollgate_grant(jsonb, text, bigint, text, text, text) is
  'Adds credits to an org, once per reference: a repetition answers with the first transfer. For the console and admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused. Locks the org.';

select tollgate.expose('public.tollgate_grant(jsonb, text, bigint, text, text, text)');
