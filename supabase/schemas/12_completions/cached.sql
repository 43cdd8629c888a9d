-- Paid calls and the cache: the look-up is part of the admission, and the answer is stored by the settlement.

create function tollgate.with_settlements(answers json, hits jsonb) returns json
language sql
set search_path = ''
as $$
  select json_object_agg(a.key, coalesce((a.value::jsonb || s.value)::json, a.value))
  from json_each(answers) a
  left join jsonb_each(public.tollgate_settle(hits)::jsonb) s on s.key = a.key
$$;

comment on function tollgate.with_settlements(json, jsonb) is
  'Settles the requests that the cache answers, and adds the settlements to the answers of the admission. Locks as tollgate_settle().';


create function tollgate.admitted_again(
  earlier tollgate.requests,
  environment text,
  wallet tollgate.wallet,
  remaining tollgate.remaining,
  org_keys jsonb,
  caches boolean,
  wish jsonb,
  moment timestamptz
) returns json
language plpgsql
set search_path = ''
as $$
declare
  answer json := tollgate.grant_of(
    row(
      case when earlier.price ? 'byok_fee_nanos' then jsonb_build_object(
        'is_byok', earlier.is_byok, 'byok_fee_nanos', earlier.price -> 'byok_fee_nanos'
      ) end,
      earlier.id, earlier.org_id, earlier.key_id, earlier.user_id, earlier.markup_ppm, earlier.hold_nanos,
      earlier.output_bound, earlier.reserved_tokens
    ),
    environment, wallet, remaining, org_keys, caches
  );
  hit jsonb;
begin
  if earlier.cached is not true then
    return answer;
  end if;
  hit := tollgate.look_up_answer(earlier.org_id, wish, moment) -> 'hit';
  if hit is null then
    return tollgate.refused(409, 'answer_not_kept', jsonb_build_object('request_id', earlier.id));
  end if;
  return answer::jsonb || jsonb_build_object('hit', hit, 'settled', jsonb_build_object(
    'state', earlier.state, 'charge_nanos', earlier.charge_nanos, 'balance_nanos', wallet.balance_nanos, 'again', true
  ));
end
$$;

comment on function tollgate.admitted_again(tollgate.requests, text, tollgate.wallet, tollgate.remaining, jsonb, boolean, jsonb, timestamptz) is
  'The answer to a repeated admission: as to the first, but without keys that the org has stored since. Refuses, as a value: answer_not_kept, where the cache had answered and the entry is gone. The org is locked by the caller.';


create function tollgate.fill_cache(items jsonb[], moment timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  one record;
begin
  for one in
    select i.item, r.id, r.org_id, r.key_id, r.created_at
    from unnest(items) i (item)
    join tollgate.requests r on r.id = i.item ->> 'id'
    where i.item ? 'cache'
  loop
    if one.item ->> 'outcome' = 'settled' and one.item -> 'cache' ? 'answer'
      and ((one.item ->> 'estimated')::boolean or (one.item ->> 'quarantined')::boolean) is not true
    then
      perform tollgate.fill_entry(one.org_id, one.key_id, one.id, one.created_at, one.item, moment);
    else
      perform tollgate.leave_entry(one.org_id, one.item -> 'cache' ->> 'key', one.id);
    end if;
  end loop;
end
$$;

comment on function tollgate.fill_cache(jsonb[], timestamptz) is
  'Stores the answers of settled items whose charge is exact in the cache, and ends the waiting for the others. The orgs are locked by the caller.';
