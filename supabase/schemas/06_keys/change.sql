-- Changes, disables, revokes and rotates keys.

create function public.tollgate_change_key(caller jsonb, key_id text, changes jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  before tollgate.api_keys := tollgate.lock_key(actor, key_id);
  after tollgate.api_keys;
  ids text[] := tollgate.line_of(before);
  changed jsonb;
begin
  if before.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', before.id, 'state', 'revoked'));
  elsif before.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('key_id', before.id, 'rotated_to', before.rotated_to));
  elsif jsonb_typeof(changes) is distinct from 'object' then
    perform tollgate.refuse_field('changes', 'must be an object');
  end if;

  after := tollgate.with_terms(before, changes);
  if after.scopes @> array['admin'] and not before.scopes @> array['admin']
    and not exists (select from tollgate.users u where u.id = after.user_id and u.role = 'admin')
  then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  end if;
  perform tollgate.check_grant(actor, after, before);

  changed := tollgate.what_changed(tollgate.key_terms(before), tollgate.key_terms(after));
  if changed <> '{}' then
    if tollgate.counted_terms(before) = '{}' and tollgate.counted_terms(after) <> '{}' then
      after := tollgate.begin_counting(after, ids);
    elsif after.budget_reset is distinct from before.budget_reset then
      after := tollgate.begin_budget(after, ids);
    end if;
    update tollgate.api_keys k set
      name = after.name,
      scopes = after.scopes,
      allowed_models = after.allowed_models,
      ip_allowlist = after.ip_allowlist,
      expires_at = case k.id when after.id then after.expires_at else least(k.expires_at, after.expires_at) end,
      budget_nanos = after.budget_nanos,
      budget_reset = after.budget_reset,
      budget_period = after.budget_period,
      budget_spent_nanos = after.budget_spent_nanos,
      tokens_per_month = after.tokens_per_month,
      tokens_in_all = after.tokens_in_all,
      month_of_tokens = after.month_of_tokens,
      tokens_used_in_month = after.tokens_used_in_month,
      tokens_used_in_all = after.tokens_used_in_all,
      limits = after.limits,
      counters = after.counters,
      metadata = after.metadata,
      updated_at = now()
    where k.id = any (ids);
    if after.max_concurrent_requests is distinct from before.max_concurrent_requests then
      perform tollgate.bound_line(after);
    end if;
    perform tollgate.record(actor, 'key.updated', after.org_id, after.id, tollgate.audited(changed));
    select k.* into after from tollgate.api_keys k where k.id = after.id;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'changed', changed <> '{}', 'key', tollgate.key_shown(after)
  );
end
$$;

comment on function public.tollgate_change_key(jsonb, text, jsonb, text) is
  'Changes the terms of a key, and of those in grace that it took the place of: any key for operators, one''s own otherwise, and never to more than its changer has, as check_grant() has it. What is left out stays, null clears. A budget begins anew when it is first set or its reset changes. Changing nothing records nothing. Refuses: as recognise(), not_found, key_is_final, conflict (rotated), invalid_request, permission_denied. Locks the org, then the keys.';

select tollgate.expose('public.tollgate_change_key(jsonb, text, jsonb, text)');


create function public.tollgate_set_key_state(caller jsonb, key_id text, state text, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  key tollgate.api_keys;
  one tollgate.api_keys;
  was text;
  before text;
begin
  if state is null or state not in ('active', 'disabled', 'revoked') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'state', 'state', state));
  end if;
  key := tollgate.lock_key(actor, key_id);
  was := case
    when key.revoked_at is not null then 'revoked' when key.disabled_at is not null then 'disabled' else 'active'
  end;
  if was = 'revoked' and state <> 'revoked' then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', was));
  end if;

  for one in
    select k.* from tollgate.api_keys k
    where k.id = key.id or (
      k.id = any (tollgate.line_of(key)) and key.rotated_to is null and k.revoked_at is null and k.expires_at > now()
    )
    order by k.id desc
    for no key update
  loop
    before := case
      when one.revoked_at is not null then 'revoked' when one.disabled_at is not null then 'disabled' else 'active'
    end;
    continue when before = state;
    update tollgate.api_keys k set
      revoked_at = case when state = 'revoked' then now() end,
      disabled_at = case state when 'active' then null when 'disabled' then now() else k.disabled_at end,
      updated_at = now()
    where k.id = one.id;
    perform tollgate.record(
      actor,
      case state when 'active' then 'key.enabled' else 'key.' || state end,
      one.org_id,
      one.id,
      jsonb_build_object('was', before)
    );
  end loop;
  select k.* into key from tollgate.api_keys k where k.id = key.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', key.id, 'state', state, 'was', was, 'key', tollgate.key_shown(key)
  );
end
$$;

comment on function public.tollgate_set_key_state(jsonb, text, text, text) is
  'Disables, enables or revokes a key: any key for operators, one''s own otherwise. What is done to the newest key of a line is done to those in grace that it took the place of; one of those can be ended alone. Revoked is final. Repeating a state changes nothing and records nothing. Refuses: as recognise(), invalid_request, not_found, key_is_final. Locks the org, then the keys.';

select tollgate.expose('public.tollgate_set_key_state(jsonb, text, text, text)');


create function public.tollgate_rotate_key(
  caller jsonb,
  key_id text,
  grace_hours integer,
  imprints jsonb,
  scope text default 'keys'
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  key tollgate.api_keys := tollgate.lock_key(actor, key_id);
  successor tollgate.api_keys;
begin
  if grace_hours is null or grace_hours not between 0 and 168 then
    perform tollgate.refuse_field('grace_hours', 'must be from 0 to 168');
  elsif key.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', 'revoked'));
  elsif key.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('key_id', key.id, 'rotated_to', key.rotated_to));
  elsif key.expires_at <= now() then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('key_id', key.id, 'expired_at', tollgate.utc(key.expires_at)));
  elsif cardinality(tollgate.line_of(key)) >= 10 then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('key_id', key.id, 'secrets', cardinality(tollgate.line_of(key))));
  end if;
  if actor.key_id is distinct from key.id then
    perform tollgate.check_grant(actor, key);
  end if;

  successor := tollgate.with_imprint(key, imprints -> key.environment);
  if successor.environment <> key.environment then
    perform tollgate.refuse_field('environment', 'is not that of the key');
  end if;
  successor.id := tollgate.new_id('key');
  successor.line := coalesce(key.line, key.id);
  successor.rotated_from := key.id;
  perform tollgate.insert_key(actor, successor);
  update tollgate.api_keys k set
    line = successor.line,
    rotated_to = successor.id,
    expires_at = least(k.expires_at, now() + make_interval(hours => grace_hours)),
    updated_at = now()
  where k.id = key.id
  returning k.expires_at into key.expires_at;
  perform tollgate.record(actor, 'key.rotated', key.org_id, key.id, jsonb_build_object(
    'rotated_to', successor.id, 'grace_hours', grace_hours, 'valid_until', tollgate.utc(key.expires_at)
  ));
  select k.* into successor from tollgate.api_keys k where k.id = successor.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'key', tollgate.key_shown(successor),
    'old_valid_until', tollgate.utc(key.expires_at)
  );
end
$$;

comment on function public.tollgate_rotate_key(jsonb, text, integer, jsonb, text) is
  'Gives a key a new secret: a new key takes its place with all that it may and has used, and the old one is refused after the hours of grace, at once with none. Meanwhile both draw on one purse: budget, quotas and limits are spent once, whichever secret spends them. `imprints` holds what is kept of the new secret for each environment, of which the key''s is taken. Whoever rotates learns the secret, so it takes a key that could have made it, or the key itself. A line has at most ten keys that are open or ended within a day. Refuses: as recognise(), not_found, invalid_request, key_is_final, conflict (rotated, expired, too many), permission_denied. Locks the org, then the key.';

select tollgate.expose('public.tollgate_rotate_key(jsonb, text, integer, jsonb, text)');
