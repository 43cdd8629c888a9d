-- Changes, disables, revokes and rotates keys.

create function tollgate.check_open(key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  if key.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', 'revoked'));
  elsif key.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'rotated', 'key_id', key.id, 'rotated_to', key.rotated_to
    ));
  end if;
end
$$;

comment on function tollgate.check_open(tollgate.api_keys) is
  'Refuses a change of a key that was revoked (key_is_final) or rotated (conflict).';


create function tollgate.check_own_key(actor tollgate.caller) returns void
language plpgsql
set search_path = ''
as $$
begin
  if actor.kind = 'key' and tollgate.operates(actor) then
    perform tollgate.check_admin_remains();
  end if;
end
$$;

comment on function tollgate.check_own_key(tollgate.caller) is
  'Refuses a change by which an operator''s key ends or narrows itself, if no working admin would be left. Called after the change. A key that changes another works itself, so it never refuses that.';


create function public.tollgate_change_key(caller jsonb, key_id text, changes jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  before tollgate.api_keys;
  after tollgate.api_keys;
  ids text[];
  changed jsonb;
begin
  if tollgate.operates(actor) then
    perform tollgate.lock_people();
  end if;
  before := tollgate.lock_key(actor, key_id);
  ids := tollgate.line_of(before);
  perform tollgate.check_open(before);
  after := tollgate.with_terms(before, changes);
  perform tollgate.check_terms(after, before);
  perform tollgate.check_grant(actor, after, before);

  changed := tollgate.what_changed(tollgate.key_terms(before), tollgate.key_terms(after));
  if changed <> '{}' then
    if tollgate.counted_terms(before) = '{}' and tollgate.counted_terms(after) <> '{}' then
      after := tollgate.begin_counting(after, ids);
    elsif after.budget_reset is distinct from before.budget_reset then
      after := tollgate.begin_budget(after, ids);
    end if;
    if after.quota_reset_day <> before.quota_reset_day then -- what is used stays used until the next reset
      after.tokens_used_in_month := (tollgate.in_this_period(before, clock_timestamp())).tokens_used_in_month;
      after.month_of_tokens := tollgate.quota_month(after.quota_reset_day, clock_timestamp());
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
      quota_reset_day = after.quota_reset_day,
      month_of_tokens = after.month_of_tokens,
      tokens_used_in_month = after.tokens_used_in_month,
      tokens_used_in_all = after.tokens_used_in_all,
      limits = after.limits,
      counters = after.counters,
      cache = after.cache,
      metadata = after.metadata,
      updated_at = now()
    where k.id = any (ids);
    if after.max_concurrent_requests is distinct from before.max_concurrent_requests then
      perform tollgate.bound_line(after);
    end if;
    perform tollgate.record(actor, 'key.updated', after.org_id, after.id, tollgate.audited(changed));
    perform tollgate.check_own_key(actor);
    select k.* into after from tollgate.api_keys k where k.id = after.id;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'changed', changed <> '{}', 'key', tollgate.key_shown(after)
  );
end
$$;

comment on function public.tollgate_change_key(jsonb, text, jsonb, text) is
  'Changes the terms of a key, and of the keys in grace that were rotated to it: any key for operators, one''s own otherwise. It never grants more than its changer has, see check_grant(). What is left out stays, null clears. A budget begins anew when it is first set or its reset changes. Changing nothing records nothing. Refuses: as recognise(), check_open(), with_terms(), check_terms() and check_own_key(), not_found, permission_denied. Locks the advisory lock (for operators), the org, then the keys.';

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
  if tollgate.operates(actor) then
    perform tollgate.lock_people();
  end if;
  key := tollgate.lock_key(actor, key_id);
  was := tollgate.key_state(key);
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
    before := tollgate.key_state(one);
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
  perform tollgate.check_own_key(actor);
  select k.* into key from tollgate.api_keys k where k.id = key.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', key.id, 'state', state, 'was', was, 'key', tollgate.key_shown(key)
  );
end
$$;

comment on function public.tollgate_set_key_state(jsonb, text, text, text) is
  'Disables, enables or revokes a key: any key for operators, one''s own otherwise. A change of the newest key of a line also changes the keys in grace that were rotated to it; one of those can be revoked or disabled alone. Revoked is final. Repeating a state changes nothing and records nothing. A key may end itself, but not the last of an operator. Refuses: as recognise() and check_own_key(), invalid_request, not_found, key_is_final. Locks the advisory lock (for operators), the org, then the keys.';

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
  perform tollgate.check_open(key);
  if key.expires_at <= now() then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('reason', 'expired', 'key_id', key.id, 'expired_at', tollgate.utc(key.expires_at)));
  elsif cardinality(tollgate.line_of(key)) >= 10 then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object(
        'reason', 'too_many_secrets', 'key_id', key.id, 'secrets', cardinality(tollgate.line_of(key))
      ));
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
    expires_at = least(k.expires_at, now() + make_interval(hours => coalesce(grace_hours, 0))),
    updated_at = now()
  where k.id = key.id
  returning k.expires_at into key.expires_at;
  if coalesce(grace_hours, 0) = 0 then -- the secrets of earlier rotations end too
    update tollgate.api_keys k set expires_at = now(), updated_at = now()
    where k.line = successor.line and k.id <> successor.id and k.revoked_at is null
      and coalesce(k.expires_at, 'infinity') > now();
  end if;
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
  'Gives a key a new secret: a new key takes over its terms and what it has used; the old one is refused after the hours of grace, or at once without any, and then those of earlier rotations are too. Meanwhile both share one budget, one set of quotas and one set of limits. `imprints` holds what is kept of the new secret for each environment; the key''s own is used. Whoever rotates a key learns its secret, so the caller''s key must be one that could have made it, or the key itself. At most ten keys of a line may be open or ended within a day. Refuses: as recognise() and check_open(), not_found, invalid_request, conflict (expired, too many), permission_denied. Locks the org, then the key.';

select tollgate.expose('public.tollgate_rotate_key(jsonb, text, integer, jsonb, text)');
