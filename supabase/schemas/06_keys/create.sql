-- Creates keys.


create function public.tollgate_seed(caller jsonb, org jsonb, owner jsonb, key jsonb, peppers jsonb default null)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  seeded tollgate.api_keys;
  created boolean;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_seed', 0));

  select k.* into seeded from tollgate.api_keys k where k.digest = decode(key ->> 'digest', 'hex');
  created := not found;
  if created then
    if exists (select from tollgate.api_keys) and not exists (
      select from tollgate.api_keys k
      where peppers is null or k.pepper in (select jsonb_array_elements_text(peppers))
    ) then
      perform tollgate.refuse(409, 'conflict', '{"reason": "another_pepper"}');
    end if;
    insert into tollgate.orgs (id, name, plan_id)
    values (org ->> 'id', org ->> 'name', org ->> 'plan_id')
    on conflict (id) do nothing;
    if found then
      perform tollgate.record(actor, 'org.created', org ->> 'id', org ->> 'id', org - 'id');
    end if;

    insert into tollgate.users (id, org_id, email, name, role)
    values (owner ->> 'id', org ->> 'id', owner ->> 'email', owner ->> 'name', owner ->> 'role')
    on conflict (id) do nothing;
    if found then
      perform tollgate.record(actor, 'user.created', org ->> 'id', owner ->> 'id', owner - 'id');
    end if;

    if key ? 'digest' then
      select (tollgate.new_key(u, key)).* into seeded from tollgate.users u where u.id = owner ->> 'id';
      perform tollgate.insert_key(actor, seeded);
    end if;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'created', created, 'id', seeded.id, 'org_id', seeded.org_id, 'user_id', seeded.user_id
  );
end
$$;

comment on function public.tollgate_seed(jsonb, jsonb, jsonb, jsonb, jsonb) is
  'Creates a key with a known secret, and its org and user where they are missing; without a key, only these. Changes nothing when a key with this secret exists. `peppers` are fingerprints: where there are keys, one of them must be of one of these (null: of any). For the console and admins. Refuses: as recognise() and new_key(), conflict (another pepper). Takes an advisory lock, so that two calls at once create one key.';

select tollgate.expose('public.tollgate_seed(jsonb, jsonb, jsonb, jsonb, jsonb)');


create function tollgate.key_manager(caller jsonb, scope text, touch boolean) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, case scope when 'admin' then 'admin' else 'keys' end, touch)
$$;

comment on function tollgate.key_manager(jsonb, text, boolean) is
  'The caller of a function that manages keys: an operator when `scope` is admin, otherwise anyone whose key has the scope keys. Refuses: as recognise().';


create function tollgate.lock_key(actor tollgate.caller, key_id text) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  key tollgate.api_keys;
begin
  perform from tollgate.orgs o
  where o.id = (
    select k.org_id from tollgate.api_keys k
    where k.id = lock_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id)
  )
  for no key update;
  select k.* into key from tollgate.api_keys k
  where k.id = lock_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id)
  for no key update;
  if not found then
    perform tollgate.refuse_missing('key', key_id);
  end if;
  return key;
end
$$;

comment on function tollgate.lock_key(tollgate.caller, text) is
  'A key that the caller may manage, as it stands under the lock: any for operators, one''s own otherwise. The org is locked too, so that no request of the key''s line is admitted or settled meanwhile. Refuses: not_found. Locks the org, then the key.';


create function tollgate.with_imprint(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language sql
stable
set search_path = ''
as $$
  select tollgate.with_fields(
    key,
    given || jsonb_build_object('digest', '\x' || (given ->> 'digest')),
    array['digest', 'pepper', 'prefix', 'last_four', 'environment']
  )
$$;

comment on function tollgate.with_imprint(tollgate.api_keys, jsonb) is
  'The key with what is kept of a new secret: digest (in hex), pepper, prefix, last_four, environment. Refuses: as with_fields().';


create function tollgate.new_key(owner tollgate.users, given jsonb) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  imprint constant text[] := array['digest', 'pepper', 'prefix', 'last_four', 'environment'];
  made tollgate.api_keys;
begin
  made.id := tollgate.new_id('key');
  made.org_id := owner.org_id;
  made.user_id := owner.id;
  made := tollgate.with_imprint(made, (
    select jsonb_object_agg(field, given -> field) from unnest(imprint) field
  ));
  return tollgate.with_terms(made, '{"name": null, "scopes": null}' || (given - imprint));
end
$$;

comment on function tollgate.new_key(tollgate.users, jsonb) is
  'A key that is not inserted yet. `given` holds digest, pepper, prefix, last_four, environment, name, scopes and perhaps other terms. Refuses: as with_terms().';


create function tollgate.insert_key(actor tollgate.caller, key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.api_keys (
    id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at,
    disabled_at, limits, counters, allowed_models, budget_nanos, budget_reset, budget_period, budget_spent_nanos,
    tokens_per_month, tokens_in_all, month_of_tokens, tokens_used_in_month, tokens_used_in_all, metadata,
    rotated_from, line, max_concurrent_requests, open_requests, quota_reset_day, cache
  ) values (
    key.id, key.org_id, key.user_id, key.name, key.digest, key.pepper, key.prefix, key.last_four, key.environment,
    key.scopes, key.ip_allowlist, key.expires_at,
    key.disabled_at, key.limits, key.counters, key.allowed_models, key.budget_nanos, key.budget_reset,
    key.budget_period, coalesce(key.budget_spent_nanos, 0),
    key.tokens_per_month, key.tokens_in_all, key.month_of_tokens, coalesce(key.tokens_used_in_month, 0),
    coalesce(key.tokens_used_in_all, 0), coalesce(key.metadata, '{}'),
    key.rotated_from, key.line, key.max_concurrent_requests, coalesce(key.open_requests, 0), key.quota_reset_day, key.cache
  );
  perform tollgate.record(actor, 'key.created', key.org_id, key.id,
    tollgate.audited(tollgate.key_terms(key)) || jsonb_build_object(
      'user_id', key.user_id, 'environment', key.environment, 'prefix', key.prefix, 'last_four', key.last_four
    ) || case when key.rotated_from is null then '{}' else jsonb_build_object('rotated_from', key.rotated_from) end);
exception when unique_violation then
  perform tollgate.refuse(409, 'conflict', '{"reason": "digest_taken", "kind": "key", "param": "digest"}');
end
$$;

comment on function tollgate.insert_key(tollgate.caller, tollgate.api_keys) is
  'Inserts a key and its audit event; no other function inserts keys. Refuses: conflict, when a key with this secret exists.';


create function public.tollgate_create_key(caller jsonb, user_id text, key jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  owner tollgate.users;
  made tollgate.api_keys;
begin
  select u.* into owner from tollgate.users u
  where u.id = coalesce(tollgate_create_key.user_id, actor.user_id) and u.deleted_at is null
    and (tollgate.operates(actor) or u.id = actor.user_id)
  for key share; -- nobody moves to another org meanwhile
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;

  made := tollgate.new_key(owner, key);
  perform tollgate.check_terms(made);
  perform tollgate.check_grant(actor, made);
  perform tollgate.insert_key(actor, made);
  select k.* into made from tollgate.api_keys k where k.id = made.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'org_id', made.org_id,
    'user_id', made.user_id,
    'key', tollgate.key_shown(made)
  );
end
$$;

comment on function public.tollgate_create_key(jsonb, text, jsonb, text) is
  'Makes a key for a user: any user for operators, oneself otherwise, which is also what null means. It never grants more than its maker has, see check_grant(). `key` is as for new_key(). Refuses: as recognise(), new_key() and check_terms(), not_found, permission_denied, conflict. Locks the user against moving.';

select tollgate.expose('public.tollgate_create_key(jsonb, text, jsonb, text)');
