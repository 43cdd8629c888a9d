-- Settles requests whose hold has ended already.

create function tollgate.settle_late(item jsonb, wallet tollgate.wallet, counted boolean, moment timestamptz)
returns tollgate.correction
language plpgsql
set search_path = ''
as $$
declare
  said constant bigint := case item ->> 'outcome' when 'settled' then (item ->> 'charge_nanos')::bigint else 0 end;
  is_exact constant boolean := ((item ->> 'estimated')::boolean or (item ->> 'quarantined')::boolean) is not true;
  at_ms constant bigint := tollgate.ms_of(moment);
  was tollgate.requests;
  now_is tollgate.requests;
  refunded bigint;
  surplus bigint;
  change bigint := 0; -- of the charge
  transfer tollgate.transfers;
begin
  select r.* into was from tollgate.requests r where r.id = item ->> 'id';
  now_is := was;
  if is_exact and (was.state = 'released' or was.estimated) then
    select coalesce(sum(t.amount_nanos), 0) into refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = was.id;
    -- Never beyond the hold, and never back what an operator has given back already.
    change := greatest(least(said, was.hold_nanos) - was.charge_nanos, refunded - was.charge_nanos);

    update tollgate.requests r set
      state = 'settled',
      charge_nanos = was.charge_nanos + change,
      cost_nanos = coalesce((item ->> 'cost_nanos')::bigint, 0),
      prompt_tokens = coalesce((item ->> 'prompt_tokens')::bigint, 0),
      completion_tokens = coalesce((item ->> 'completion_tokens')::bigint, 0),
      usage = coalesce(item -> 'usage', r.usage),
      generation_id = coalesce(item ->> 'generation_id', r.generation_id),
      served_model = coalesce(item ->> 'served_model', r.served_model),
      estimated = false
    where r.id = was.id
    returning r.* into now_is;
    surplus := now_is.prompt_tokens + now_is.completion_tokens
      - coalesce(was.prompt_tokens, 0) - coalesce(was.completion_tokens, 0);
    wallet.balance_nanos := wallet.balance_nanos - change;
    wallet.counters := tollgate.correct(wallet.counters, tollgate.ms_of(was.created_at), at_ms, surplus);
    if change <> 0 then
      transfer := row(
        null, was.org_id,
        case when change > 0 then 'wallet' else 'revenue' end, case when change > 0 then 'revenue' else 'wallet' end,
        abs(change), case when change > 0 then 'charge' else 'refund' end,
        was.id || case when was.charge_nanos > 0 then ':late' else '' end, -- the first charge has the id itself
        '', wallet.balance_nanos, moment
      )::tollgate.transfers;
    end if;
    perform tollgate.tally_correction(was, now_is);
    if counted then
      was.hold_nanos := was.charge_nanos; -- which is what the key's budget has of it now
      perform tollgate.settle_key(was, now_is.charge_nanos, surplus, at_ms);
    end if;
  end if;

  if not exists (
    select from tollgate.audit_events a
    where a.target_id = was.id and a.action = 'settlement.late' and a.details ->> 'charge_nanos' = said::text
  ) then
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, was.id)::tollgate.caller,
      'settlement.late', was.org_id, was.id,
      jsonb_build_object(
        'state_before', was.state, 'charge_before_nanos', now_is.charge_nanos - change,
        'charge_nanos', said, 'corrected_by_nanos', change
      )
    );
  end if;
  return row(wallet, now_is.state, now_is.charge_nanos, transfer)::tollgate.correction;
end
$$;

comment on function tollgate.settle_late(jsonb, tollgate.wallet, boolean, timestamptz) is
  'Hears a settlement of a request that was ended before, at another charge. Records it as settlement.late, once for each charge told. An exact one corrects what was estimated or released, within the hold: it answers the transfer of the difference, for the caller to post, with the org as that leaves it. Any other changes nothing. The org is locked by the caller. Locks the request, the row of tollgate.rolled, the key.';
