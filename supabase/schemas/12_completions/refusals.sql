-- Refusals of a paid call to a key that may act.

create function tollgate.suspended_refusal(org_id text, suspended_at timestamptz) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(403, 'paid_calls_suspended',
    jsonb_build_object('org_id', org_id, 'suspended_at', tollgate.utc(suspended_at)))
$$;

comment on function tollgate.suspended_refusal(text, timestamptz) is
  'The refusal of an org whose paid calls are suspended.';


create function tollgate.model_refusal(key tollgate.api_keys, models jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', m.model))
  from jsonb_array_elements_text(models) with ordinality m (model, place)
  where not tollgate.model_allowed(key.allowed_models, m.model)
  order by m.place
  limit 1
$$;

comment on function tollgate.model_refusal(tollgate.api_keys, jsonb) is
  'The refusal of the first model that the key may not use; null when it may use all.';


create function tollgate.in_flight_refusal(most bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(429, 'too_many_in_flight', jsonb_build_object(
    'limit', most, 'in_flight', open_requests, 'of', 'org'
  ))
$$;

comment on function tollgate.in_flight_refusal(bigint, bigint) is
  'The refusal of an org that has as many requests open as it may.';


create function tollgate.credits_refusal(available bigint, worst_case tollgate.worst_case) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(402, 'insufficient_credits', jsonb_build_object(
    'available_nanos', available,
    'required_nanos', worst_case.hold_nanos,
    'affordable_output_tokens', worst_case.affordable_tokens
  ))
$$;

comment on function tollgate.credits_refusal(bigint, tollgate.worst_case) is
  'The refusal of a request whose worst case is above what the org has left.';
