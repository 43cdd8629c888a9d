-- The bound and the hold that a request is admitted with.

create function tollgate.offer(item jsonb, markup_ppm integer, nanos_left bigint, tokens_left bigint) returns tollgate.offer
language plpgsql
immutable
set search_path = ''
as $$
declare
  charged constant numeric := (1000000 + markup_ppm) * 0.000001; -- for each nano that we pay
  fixed constant numeric := (item ->> 'fixed_nanos')::numeric * charged;
  per_output constant numeric := (item ->> 'output_nanos')::numeric * charged;
  offer tollgate.offer;
begin
  offer.affordable_tokens := case when per_output > 0
    then least(greatest(floor((nanos_left - fixed) / per_output), 0), 1000000000)
    else 1000000000
  end;
  -- A bound that the client left open shrinks to what there is; one it chose is its own word.
  offer.output_bound := coalesce(
    (item ->> 'output_bound')::bigint,
    least((item ->> 'most_output')::bigint, greatest(
      (item ->> 'least_output')::bigint,
      least(offer.affordable_tokens, (tokens_left - (item ->> 'prompt_tokens')::bigint) / (item ->> 'choices')::bigint)
    ))
  );
  offer.hold_nanos := least(ceil(fixed + per_output * offer.output_bound), 9223372036854775807);
  offer.reserved_tokens := (item ->> 'prompt_tokens')::bigint + offer.output_bound * (item ->> 'choices')::bigint;
  return offer;
end
$$;

comment on function tollgate.offer(jsonb, integer, bigint, bigint) is
  'Prices the worst case of a request, its output bounded by what is left where the client did not bound it. Exact until the hold is rounded up; the balance may fall short of it. A hold beyond bigint is the largest bigint, which no balance covers.';


create function tollgate.grant_of(
  opening tollgate.opening,
  environment text,
  wallet tollgate.wallet,
  room tollgate.room
) returns json
language plpgsql
immutable
set search_path = ''
as $$
begin
  return json_build_object('granted', json_build_object(
    'id', opening.id,
    'org_id', opening.org_id,
    'user_id', opening.user_id,
    'key_id', opening.key_id,
    'environment', environment,
    'hold_nanos', opening.hold_nanos,
    'output_bound', opening.output_bound,
    'markup_ppm', opening.markup_ppm,
    'balance_nanos', wallet.balance_nanos,
    'held_nanos', wallet.held_nanos,
    'limits', case when not room is null then json_build_object(
      'requests', case when room.requests_limit is not null then json_build_object(
        'limit', room.requests_limit,
        'remaining', greatest(0, room.requests_left),
        'reset_ms', room.requests_reset_ms
      ) end,
      'tokens', case when room.tokens_limit is not null then json_build_object(
        'limit', room.tokens_limit,
        'remaining', greatest(0, room.tokens_left),
        'reset_ms', room.tokens_reset_ms
      ) end
    ) end
  ));
end
$$;

comment on function tollgate.grant_of(tollgate.opening, text, tollgate.wallet, tollgate.room) is
  'The answer to an admitted request. `limits` is null where neither org nor key has any. In json, not jsonb: what is only sent costs half when it is never taken apart.';
