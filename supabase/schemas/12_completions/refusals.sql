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
