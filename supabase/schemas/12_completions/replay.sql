-- What answers a request before money and limits are looked at.

create function tollgate.answer_beforehand(
  item jsonb,
  key_id text,
  environment text,
  wallet tollgate.wallet,
  room tollgate.room
) returns json
language plpgsql
set search_path = ''
as $$
declare
  caller jsonb := item -> 'caller';
  refusal jsonb := (tollgate.identify(caller, item ->> 'scope')).refusal;
  key tollgate.api_keys;
  made tollgate.opening;
  model text;
  suspended_at timestamptz;
begin
  if refusal is not null then
    return jsonb_build_object('refusal', refusal);
  elsif wallet.org_id is null then -- born after we looked for the orgs to lock
    return tollgate.refused(401, 'invalid_api_key', '{}');
  end if;

  select k.* into key from tollgate.api_keys k where k.id = answer_beforehand.key_id;
  perform tollgate.touch(key, caller);

  select item, r.id, r.org_id, r.key_id, r.user_id, r.markup_ppm, r.hold_nanos, r.output_bound, r.reserved_tokens
  into made
  from tollgate.requests r
  where r.id = item ->> 'id' and r.org_id = wallet.org_id;
  if found then
    return tollgate.grant_of(made, environment, wallet, room);
  end if;

  select o.paid_suspended_at into suspended_at from tollgate.orgs o where o.id = wallet.org_id;
  if suspended_at is not null then
    return tollgate.refused(403, 'paid_calls_suspended',
      jsonb_build_object('org_id', wallet.org_id, 'suspended_at', tollgate.utc(suspended_at)));
  end if;

  if key.allowed_models is not null then
    for model in select jsonb_array_elements_text(item -> 'models') loop
      if not tollgate.model_allowed(key.allowed_models, model) then
        return tollgate.refused(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', model));
      end if;
    end loop;
  end if;
  if item ->> 'idempotency_key' is not null then
    return tollgate.kept_answer(item, wallet.org_id);
  end if;
  return null;
end
$$;

comment on function tollgate.answer_beforehand(jsonb, text, text, tollgate.wallet, tollgate.room) is
  'The answer to an item that needs no look at money or limits: what was granted before under its id, a refusal of its caller, org or model, what was answered before under its idempotency key; or null. Notes the use of the key.';
