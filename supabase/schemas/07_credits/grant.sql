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
  balance bigint;
  earlier tollgate.transfers;
  posted tollgate.transfers;
begin
  if source not in ('funding', 'promotion') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'source', 'source', source));
  end if;
  if amount_nanos is null or amount_nanos not between 1 and 100000000000000000 then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'amount_nanos', 'amount_nanos', amount_nanos));
  end if;

  select o.balance_nanos into balance from tollgate.orgs o where o.id = tollgate_grant.org_id for no key update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'org', 'id', org_id));
  end if;

  select t.* into earlier from tollgate.transfers t where t.kind = 'grant' and t.reference = tollgate_grant.reference;
  if found then
    if (earlier.org_id, earlier.amount_nanos, earlier.debit)
      is distinct from (tollgate_grant.org_id, tollgate_grant.amount_nanos, source)
    then
      perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('transfer_id', tollgate.transfer_id(earlier)));
    end if;
    return jsonb_build_object('caller', tollgate.identity(actor), 'created', false,
      'transfer_id', tollgate.transfer_id(earlier), 'balance_nanos', balance);
  end if;

  update tollgate.orgs o
  set balance_nanos = o.balance_nanos + tollgate_grant.amount_nanos, updated_at = now()
  where o.id = tollgate_grant.org_id
  returning o.balance_nanos into balance;

  begin
    insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos)
    values (org_id, source, 'wallet', amount_nanos, 'grant', reference, reason, balance)
    returning * into posted;
  exception when unique_violation then -- another org took the same reference at this moment
    perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('reference', reference));
  end;

  perform tollgate.record(actor, 'credits.granted', org_id, tollgate.transfer_id(posted),
    jsonb_build_object('amount_nanos', amount_nanos, 'source', source, 'reason', reason, 'reference', reference));
  return jsonb_build_object('caller', tollgate.identity(actor), 'created', true,
    'transfer_id', tollgate.transfer_id(posted), 'balance_nanos', balance);
end
$$;

comment on function public.tollgate_grant(jsonb, text, bigint, text, text, text) is
  'Adds credits to an org, once per reference: a repetition answers with the first transfer. For the console and admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused. Locks the org.';

select tollgate.expose('public.tollgate_grant(jsonb, text, bigint, text, text, text)');
