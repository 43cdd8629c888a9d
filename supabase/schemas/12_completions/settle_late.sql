-- Settles requests whose hold has ended already.

create function tollgate.settle_late(item jsonb, wallet tollgate.wallet, counted boolean, moment timestamptz)
returns tollgate.correction
language plpgsql
set search_path = ''
as $$
declare
  new_charge constant bigint := case when item ->> 'outcome' = 'settled' then item ->> 'charge_nanos' else '0' end;
  is_exact constant boolean := ((item ->> 'estimated')::boolean or (item ->> 'quarantined')::boolean) is not true;
  at_ms constant bigint := tollgate.ms_of(moment);
  before tollgate.requests;
  now_settled tollgate.requests;
  refunded bigint;
  token_change bigint;
  change bigint := 0; -- of the charge
  transfer tollgate.transfers;
begin
  select r.* into before from tollgate.requests r where r.id = item ->> 'id';
  now_settled := before;
  if is_exact and (before.state = 'released' or before.estimated or before.cached) then
    select coalesce(sum(t.amount_nanos), 0) into refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = before.id;
    -- At most the hold, and never a refund of what an operator has refunded already.
    change := greatest(least(new_charge, before.hold_nanos) - before.charge_nanos, refunded - before.charge_nanos);

    update tollgate.requests r set
      state = 'settled',
      charge_nanos = before.charge_nanos + change,
      cost_nanos = coalesce((item ->> 'cost_nanos')::bigint, 0),
      prompt_tokens = coalesce((item ->> 'prompt_tokens')::bigint, 0),
      completion_tokens = coalesce((item ->> 'completion_tokens')::bigint, 0),
      usage = coalesce(item -> 'usage', r.usage),
      charged_price = coalesce(item -> 'charged_price', r.charged_price),
      basis = item ->> 'basis',
      attempts = coalesce(item -> 'attempts', r.attempts),
      generation_id = coalesce(item ->> 'generation_id', r.generation_id),
      served_model = coalesce(item ->> 'served_model', r.served_model),
      estimated = false, is_byok = coalesce((item ->> 'is_byok')::boolean, r.is_byok)
    where r.id = before.id
    returning r.* into now_settled;
    token_change := now_settled.prompt_tokens + now_settled.completion_tokens
      - coalesce(before.prompt_tokens, 0) - coalesce(before.completion_tokens, 0);
    wallet.balance_nanos := wallet.balance_nanos - change;
    wallet.counters := tollgate.correct(wallet.counters, tollgate.ms_of(before.created_at), at_ms, token_change);
    if change <> 0 then
      transfer := row(
        nextval('tollgate.transfers_position_seq'), before.org_id,
        case when change > 0 then 'wallet' else 'revenue' end, case when change > 0 then 'revenue' else 'wallet' end,
        abs(change), case when change > 0 then 'charge' else 'refund' end,
        before.id || case when before.charge_nanos > 0 then ':late' else '' end, -- the first charge has the id itself
        '', wallet.balance_nanos, moment, null
      )::tollgate.transfers;
      transfer.chain := tollgate.chain_after(wallet.chain_head, transfer);
      wallet.chain_head := transfer.chain;
    end if;
    perform tollgate.tally_correction(before, now_settled);
    perform tollgate.settle_user(before.user_id, before.created_at, token_change, at_ms)
    from tollgate.users u where u.id = before.user_id and not u.limits is null;
    if counted then
      perform tollgate.settle_key(before.key_id, before.created_at, change, token_change, at_ms);
    end if;
  end if;

  if not exists (
    select from tollgate.audit_events a
    where a.target_id = before.id and a.action = 'settlement.late' and a.details ->> 'charge_nanos' = new_charge::text
  ) then
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, before.id, null, null)::tollgate.caller,
      'settlement.late', before.org_id, before.id,
      jsonb_build_object(
        'state_before', before.state, 'charge_before_nanos', now_settled.charge_nanos - change,
        'charge_nanos', new_charge, 'corrected_by_nanos', change
      )
    );
  end if;
  return row(wallet, now_settled.state, now_settled.charge_nanos, transfer)::tollgate.correction;
end
$$;

comment on function tollgate.settle_late(jsonb, tollgate.wallet, boolean, timestamptz) is
  'Settles a request again that has ended, at another charge. Records it as settlement.late, once for each charge. An exact charge corrects one that was estimated, a release, or the answer from the cache that was not delivered, within the hold: the answer has the transfer of the difference, for the caller to post, and the changed wallet. Any other changes nothing. The org is locked by the caller. Locks the request, the row of tollgate.rolled, the user, the key.';
