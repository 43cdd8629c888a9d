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
