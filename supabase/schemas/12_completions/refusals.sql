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


create function tollgate.in_flight_refusal(most_open bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(429, 'too_many_in_flight',
    jsonb_build_object('limit', most_open, 'in_flight', open_requests, 'of', 'org'))
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
    'affordable_output_tokens', case when worst_case.affordable_tokens < 1000000000
      then worst_case.affordable_tokens else 0 end
  ))
$$;

comment on function tollgate.credits_refusal(bigint, tollgate.worst_case) is
  'The refusal of a request whose worst case the org cannot pay. Where output costs nothing, fewer tokens would not help, so none are affordable.';


create function tollgate.model_refusal(key tollgate.api_keys, of_org text[], models jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', m.model, 'of', l.of))
  from jsonb_array_elements_text(models) with ordinality m (model, place)
  cross join (values ('org', of_org), ('key', key.allowed_models::text[])) l (of, patterns)
  where l.patterns is not null and not tollgate.model_allowed(l.patterns, m.model)
  order by m.place, l.of desc
  limit 1
$$;

comment on function tollgate.model_refusal(tollgate.api_keys, text[], jsonb) is
  'The refusal of the first model that the org or the key may not use, by the list of which; null when both may use all.';
