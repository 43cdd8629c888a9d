-- Paid calls and the cache: the look-up is part of the admission, and the answer is stored by the settlement.

create function tollgate.note_look_up(
  org_id text,
  key_id text,
  item jsonb,
  wish jsonb,
  hit jsonb,
  moment timestamptz
) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  if hit is null and (wish ->> 'writes')::boolean then
    perform tollgate.begin_entry(org_id, key_id, item, moment);
  end if;
  if (wish ->> 'reads')::boolean is not true then
    return item;
  end if;
  perform tollgate.count_look_up(
    org_id, item ->> 'model', (hit is not null)::integer, coalesce((hit ->> 'saved_nanos')::bigint, 0), moment
  );
  return item || jsonb_build_object('cached', hit is not null);
end
$$;

comment on function tollgate.note_look_up(text, text, jsonb, jsonb, jsonb, timestamptz) is
  'Counts the look-up of a request that is admitted, and begins the entry that a miss will fill. Returns the item with `cached`, as the row has it. The org is locked by the caller.';


create function tollgate.settlement_of_hit(request_id text, hit jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', request_id, 'outcome', 'settled', 'charge_nanos', hit -> 'charge_nanos', 'cost_nanos', 0,
    'served_model', hit -> 'served_model', 'status', 200
  )
$$;

comment on function tollgate.settlement_of_hit(text, jsonb) is
  'The settlement of a request that the cache answers. It follows its admission in the same transaction.';


create function tollgate.hit_again(earlier tollgate.requests, wish jsonb, balance_nanos bigint, moment timestamptz)
returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'hit', h.hit || jsonb_build_object('charge_nanos', earlier.charge_nanos),
    'settled', jsonb_build_object(
      'state', earlier.state, 'charge_nanos', earlier.charge_nanos, 'balance_nanos', balance_nanos, 'again', true
    )
  )
  from (select tollgate.look_up_answer(earlier.org_id, wish, moment) -> 'hit' as hit) h
  where h.hit is not null
$$;

comment on function tollgate.hit_again(tollgate.requests, jsonb, bigint, timestamptz) is
  'The answer to a repeated admission of a request that the cache has answered; null if the entry is gone.';


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
