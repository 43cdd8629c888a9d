-- The bound and the hold that a request is admitted with.

create function tollgate.worst_case(item jsonb, markup_ppm integer, nanos_left bigint, tokens_left bigint)
returns tollgate.worst_case
language plpgsql
immutable
set search_path = ''
as $$
declare
  prompt_tokens constant bigint := item ->> 'prompt_tokens';
  choices constant bigint := item ->> 'choices';
  charged constant numeric := (1000000 + markup_ppm) * 0.000001; -- for each nano that we pay
  fixed constant numeric := (item ->> 'fixed_nanos')::numeric * charged;
  per_output constant numeric := (item ->> 'output_nanos')::numeric * charged;
  worst_case tollgate.worst_case;
begin
  worst_case.affordable_tokens := case when per_output > 0
    then least(greatest(floor((nanos_left - fixed) / per_output), 0), 1000000000)
    else 1000000000
  end;
  -- A bound that the client left open shrinks to what is left; one that it chose stays.
  worst_case.output_bound := coalesce(
    (item ->> 'output_bound')::bigint,
    least((item ->> 'most_output')::bigint, greatest(
      (item ->> 'least_output')::bigint,
      least(worst_case.affordable_tokens, (tokens_left - prompt_tokens) / choices)
    ))
  );
  worst_case.hold_nanos := least(ceil(fixed + per_output * worst_case.output_bound), 9223372036854775807);
  worst_case.reserved_tokens := prompt_tokens + worst_case.output_bound * choices;
  return worst_case;
end
$$;

comment on function tollgate.worst_case(jsonb, integer, bigint, bigint) is
  'The worst case of a request. An output that the client did not bound is bounded by what is left. The hold is computed exactly and rounded up, and may be more than the balance; one beyond bigint is the largest bigint, which no balance covers.';


create function tollgate.grant_of(
  admitted tollgate.admitted,
  environment text,
  wallet tollgate.wallet,
  remaining tollgate.remaining,
  org_keys jsonb,
  caches boolean
) returns json
language plpgsql
immutable
set search_path = ''
as $$
begin
  return json_build_object('granted', json_build_object(
    'id', admitted.id,
    'org_id', admitted.org_id,
    'user_id', admitted.user_id,
    'key_id', admitted.key_id,
    'environment', environment,
    'hold_nanos', admitted.hold_nanos,
    'output_bound', admitted.output_bound,
    'markup_ppm', admitted.markup_ppm,
    'balance_nanos', wallet.balance_nanos,
    'held_nanos', wallet.held_nanos,
    'byok', case when admitted.item ? 'is_byok' then json_build_object(
      'keys', coalesce(org_keys, '{}'),
      'fee_nanos', admitted.item -> 'byok_fee_nanos',
      'only', admitted.item -> 'is_byok'
    ) end,
    'caches', caches,
    'limits', case when not remaining is null then json_build_object(
      'requests', case when remaining.requests_limit is not null then json_build_object(
        'limit', remaining.requests_limit,
        'remaining', greatest(0, remaining.requests_left),
        'reset_ms', remaining.requests_reset_ms
      ) end,
      'tokens', case when remaining.tokens_limit is not null then json_build_object(
        'limit', remaining.tokens_limit,
        'remaining', greatest(0, remaining.tokens_left),
        'reset_ms', remaining.tokens_reset_ms
      ) end
    ) end
  ));
end
$$;

comment on function tollgate.grant_of(tollgate.admitted, text, tollgate.wallet, tollgate.remaining, jsonb, boolean) is
  'The answer to an admitted request. `byok` has the org''s own keys for the call, null where it has none: `only` if no other may be used. `limits` is null where neither org nor key has any; `caches` is the setting of the key or its org. As json, which is half as expensive to build as jsonb.';
