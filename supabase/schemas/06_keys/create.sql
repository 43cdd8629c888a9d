-- Creates keys.

create function tollgate.add_key(actor tollgate.caller, owner tollgate.users, key jsonb) returns text
language plpgsql
set search_path = ''
as $$
declare
  new_key_id text;
begin
  insert into tollgate.api_keys (
    org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at
  ) values (
    owner.org_id,
    owner.id,
    key ->> 'name',
    decode(key ->> 'digest', 'hex'),
    key ->> 'pepper',
    key ->> 'prefix',
    key ->> 'last_four',
    key ->> 'environment',
    array(select jsonb_array_elements_text(key -> 'scopes')),
    case when jsonb_typeof(key -> 'ip_allowlist') = 'array'
      then array(select jsonb_array_elements_text(key -> 'ip_allowlist'))::cidr[] end,
    (key ->> 'expires_at')::timestamptz
  ) returning id into new_key_id;

  perform tollgate.record(actor, 'key.created', owner.org_id, new_key_id,
    key - 'digest' - 'pepper' || jsonb_build_object('user_id', owner.id));
  return new_key_id;
end
$$;

comment on function tollgate.add_key(tollgate.caller, tollgate.users, jsonb) is
  'Inserts a key and its audit event. `key` holds name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at.';


create function public.tollgate_seed(caller jsonb, org jsonb, owner jsonb, key jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  known tollgate.api_keys;
  seeded tollgate.users;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_seed', 0));

  select k.* into known from tollgate.api_keys k where k.digest = decode(key ->> 'digest', 'hex');
  if found then
    return jsonb_build_object(
      'caller', tollgate.identity(actor),
      'created', false, 'id', known.id, 'org_id', known.org_id, 'user_id', known.user_id
    );
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

  select u.* into seeded from tollgate.users u where u.id = owner ->> 'id';
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'created', true,
    'id', tollgate.add_key(actor, seeded, key),
    'org_id', seeded.org_id,
    'user_id', seeded.id
  );
end
$$;

comment on function public.tollgate_seed(jsonb, jsonb, jsonb, jsonb) is
  'Makes a key with a known secret, and the org and user it needs where they are missing. With a secret that exists already it changes nothing. For the console and admins. Refuses: as recognise(). Takes an advisory lock, so that two at once make one key.';

select tollgate.expose('public.tollgate_seed(jsonb, jsonb, jsonb, jsonb)');


create function tollgate.key_manager(caller jsonb, scope text, touch boolean) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, case scope when 'admin' then 'admin' else 'keys' end, touch)
$$;

comment on function tollgate.key_manager(jsonb, text, boolean) is
  'Who manages keys: with `scope` admin operators alone, otherwise whoever''s key has the scope keys. Refuses: as recognise().';


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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
  end if;
  return key;
end
$$;

comment on function tollgate.lock_key(tollgate.caller, text) is
  'A key that the caller may manage, as it stands under the lock: any for operators, one''s own otherwise. The org is locked too, so that no request of the key''s line runs meanwhile. Refuses: not_found. Locks the org, then the key.';


create function tollgate.with_imprint(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
begin
  key.digest := decode(tollgate.given_text(given -> 'digest', 'digest', '^[0-9a-f]{64}$'), 'hex');
  key.pepper := tollgate.given_text(given -> 'pepper', 'pepper', '^[0-9a-f]{8}$');
  key.prefix := tollgate.given_text(given -> 'prefix', 'prefix', '^[!-~]{1,16}$');
  key.last_four := tollgate.given_text(given -> 'last_four', 'last_four', '^[!-~]{4}$');
  key.environment := tollgate.given_text(given -> 'environment', 'environment', '^(live|test)$');
  return key;
end
$$;

comment on function tollgate.with_imprint(tollgate.api_keys, jsonb) is
  'The key with what is kept of a new secret: digest, pepper, prefix, last_four, environment. Refuses: invalid_request.';


create function tollgate.insert_key(actor tollgate.caller, key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.api_keys (
    id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at,
    disabled_at, limits, counters, allowed_models, budget_nanos, budget_reset, budget_period, budget_spent_nanos,
    tokens_per_month, tokens_in_all, month_of_tokens, tokens_used_in_month, tokens_used_in_all, metadata,
    rotated_from, line, max_concurrent_requests, open_requests
  ) values (
    key.id, key.org_id, key.user_id, key.name, key.digest, key.pepper, key.prefix, key.last_four, key.environment,
    key.scopes, key.ip_allowlist, key.expires_at,
    key.disabled_at, key.limits, key.counters, key.allowed_models, key.budget_nanos, key.budget_reset,
    key.budget_period, coalesce(key.budget_spent_nanos, 0),
    key.tokens_per_month, key.tokens_in_all, key.month_of_tokens, coalesce(key.tokens_used_in_month, 0),
    coalesce(key.tokens_used_in_all, 0), coalesce(key.metadata, '{}'),
    key.rotated_from, key.line, key.max_concurrent_requests, coalesce(key.open_requests, 0)
  );
  perform tollgate.record(actor, 'key.created', key.org_id, key.id,
    tollgate.audited(tollgate.key_terms(key)) || jsonb_build_object(
      'user_id', key.user_id, 'environment', key.environment, 'prefix', key.prefix, 'last_four', key.last_four
    ) || case when key.rotated_from is null then '{}' else jsonb_build_object('rotated_from', key.rotated_from) end);
exception when unique_violation then
  perform tollgate.refuse(409, 'conflict', '{"kind": "key", "param": "digest"}');
end
$$;

comment on function tollgate.insert_key(tollgate.caller, tollgate.api_keys) is
  'Inserts a key and its audit event. Refuses: conflict, where its secret is a key already.';


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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'user', 'id', user_id));
  end if;
  if jsonb_typeof(key) is distinct from 'object' then
    perform tollgate.refuse_field('key', 'must be an object');
  end if;

  made.id := tollgate.new_id('key');
  made.org_id := owner.org_id;
  made.user_id := owner.id;
  made.metadata := '{}';
  made := tollgate.with_imprint(made, key);
  made := tollgate.with_terms(made,
    '{"name": null, "scopes": null}' || (key - array['digest', 'pepper', 'prefix', 'last_four', 'environment']));
  if made.scopes @> array['admin'] and owner.role <> 'admin' then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  end if;
  perform tollgate.check_grant(actor, made);
  perform tollgate.insert_key(actor, made);
  select k.* into made from tollgate.api_keys k where k.id = made.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'org_id', owner.org_id,
    'user_id', owner.id,
    'key', tollgate.key_shown(made)
  );
end
$$;

comment on function public.tollgate_create_key(jsonb, text, jsonb, text) is
  'Makes a key for a user: any user for operators, oneself otherwise, which is also who null is; and never one that grants more than its maker has, as check_grant() has it. `key` holds digest, pepper, prefix, last_four, environment and the terms, of which name and scopes are needed. Refuses: as recognise(), not_found, invalid_request, permission_denied, conflict. Locks the user against moving.';

select tollgate.expose('public.tollgate_create_key(jsonb, text, jsonb, text)');
