-- Why:  a request is recognised by its key, in the same call that answers it.
-- What: api_keys, recognise(), and the functions that make a key and end it.
-- Care: additive. Only digests are stored: HMAC-SHA-256 under a pepper that the database never sees.

create table tollgate.api_keys (
  id text primary key default tollgate.new_id('key') check (id ~ '^key_[a-z0-9]{1,64}$'),
  org_id text not null,
  user_id text not null,
  name text not null check (length(name) between 1 and 200),
  digest bytea not null unique check (length(digest) = 32),
  pepper text not null check (pepper ~ '^[0-9a-f]{8}$'),
  prefix text not null check (length(prefix) between 1 and 16),
  last_four text not null check (length(last_four) = 4),
  environment text not null default 'live' check (environment in ('live', 'test')),
  scopes text[] not null,
  ip_allowlist cidr[],
  expires_at timestamptz,
  disabled_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  foreign key (user_id, org_id) references tollgate.users (id, org_id) on update cascade
);

create index api_keys_user_id on tollgate.api_keys (user_id, org_id);
create index api_keys_org_id on tollgate.api_keys (org_id);

comment on table tollgate.api_keys is 'Keys, never their secrets: a digest to find them by, a prefix and four characters to show.';
comment on column tollgate.api_keys.pepper is 'Fingerprint of the pepper of this digest: tells which keys still hang on an old one.';
comment on column tollgate.api_keys.ip_allowlist is 'Networks the key may be used from; null is anywhere.';

alter table tollgate.api_keys enable row level security;


create type tollgate.visit as (
  actor tollgate.caller,
  key tollgate.api_keys,
  refusal jsonb -- null when the caller may come in
);

comment on type tollgate.visit is 'A caller at the gate: recognised, or refused.';


create function tollgate.digests_of(caller jsonb) returns bytea[]
language sql
immutable
set search_path = ''
as $$
  select array(select decode(d, 'hex') from jsonb_array_elements_text(caller -> 'digests') d)
$$;

comment on function tollgate.digests_of(jsonb) is
  'The digests a caller''s key may be kept under: of each active pepper, the newest first.';


create function tollgate.identify(caller jsonb, scope text default null) returns tollgate.visit
language plpgsql
set search_path = ''
as $$
declare
  actor tollgate.caller;
  key tollgate.api_keys;
  owner tollgate.users;
  org_status text;
  visit tollgate.visit;
begin
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';

  if caller ? 'console' then
    actor.kind := 'console';
    actor.name := caller ->> 'console';
    actor.role := 'admin';
    visit.actor := actor;
    return visit;
  end if;

  select k.* into key
  from tollgate.api_keys k
  where k.digest = any (tollgate.digests_of(caller));
  if not found then
    visit.refusal := tollgate.refusal(401, 'invalid_api_key');
    return visit;
  end if;

  if key.revoked_at is not null then
    visit.refusal := tollgate.refusal(401, 'key_revoked',
      jsonb_build_object('key_id', key.id, 'revoked_at', tollgate.utc(key.revoked_at)));
    return visit;
  end if;

  select u.* into owner from tollgate.users u where u.id = key.user_id;
  select o.status into org_status from tollgate.orgs o where o.id = key.org_id;
  if key.disabled_at is not null or owner.status <> 'active' or org_status <> 'active' then
    visit.refusal := tollgate.refusal(401, 'key_disabled', jsonb_build_object('key_id', key.id, 'disabled', case
      when key.disabled_at is not null then 'key'
      when owner.status <> 'active' then 'user'
      else 'org'
    end));
    return visit;
  end if;

  if key.expires_at <= now() then
    visit.refusal := tollgate.refusal(401, 'key_expired',
      jsonb_build_object('key_id', key.id, 'expired_at', tollgate.utc(key.expires_at)));
    return visit;
  end if;

  if key.ip_allowlist is not null
    and not exists (select from unnest(key.ip_allowlist) network where actor.ip <<= network)
  then
    visit.refusal := tollgate.refusal(403, 'ip_not_allowed',
      jsonb_build_object('key_id', key.id, 'ip', host(actor.ip)));
    return visit;
  end if;

  if scope is not null
    and (not key.scopes @> array[scope] or (scope = 'admin' and owner.role <> 'admin'))
  then
    visit.refusal := tollgate.refusal(403, 'permission_denied',
      jsonb_build_object('key_id', key.id, 'scope', scope));
    return visit;
  end if;

  actor.kind := 'key';
  actor.key_id := key.id;
  actor.user_id := key.user_id;
  actor.org_id := key.org_id;
  actor.role := owner.role;
  actor.environment := key.environment;
  actor.scopes := key.scopes;
  visit.actor := actor;
  visit.key := key;
  return visit;
end
$$;

comment on function tollgate.identify(jsonb, text) is
  'The caller behind a request, if it may do what `scope` names. Refuses, as a value: invalid_api_key, key_revoked, key_disabled, key_expired, ip_not_allowed, permission_denied. Locks nothing.';


create function tollgate.touch(key tollgate.api_keys, caller jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  newest bytea := decode(caller -> 'digests' ->> 0, 'hex');
begin
  if key.digest <> newest or key.last_used_at is null or key.last_used_at < now() - interval '1 minute' then
    update tollgate.api_keys k set last_used_at = now(), digest = newest, pepper = caller ->> 'pepper'
    where k.id = (select id from tollgate.api_keys where id = key.id for no key update skip locked);
  end if;
end
$$;

comment on function tollgate.touch(tollgate.api_keys, jsonb) is
  'Notes the use of a key, once a minute, and moves one that was found under the previous pepper to the newest. Skips a key that another transaction has locked. Orgs are locked before keys: whoever locks an org touches after that.';


create function tollgate.recognise(caller jsonb, scope text default null, touch boolean default true)
returns tollgate.caller
language plpgsql
set search_path = ''
as $$
declare
  visit tollgate.visit := tollgate.identify(caller, scope);
begin
  if visit.refusal is not null then
    perform tollgate.refuse(
      (visit.refusal ->> 'status')::integer, visit.refusal ->> 'code', visit.refusal -> 'facts'
    );
  end if;
  if touch and (visit.actor).kind = 'key' then
    perform tollgate.touch(visit.key, caller);
  end if;
  return visit.actor;
end
$$;

comment on function tollgate.recognise(jsonb, text, boolean) is
  'As identify(), for functions that serve one caller: a refusal ends the call. Touches the key unless told not to, which a function that locks orgs must.';


create function tollgate.identity(actor tollgate.caller) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('org_id', actor.org_id, 'user_id', actor.user_id, 'key_id', actor.key_id)
$$;

comment on function tollgate.identity(tollgate.caller) is
  'What an answer tells the server of its caller, for the request''s log line.';


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


create function public.tollgate_create_key(caller jsonb, user_id text, key jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  owner tollgate.users;
begin
  select u.* into owner from tollgate.users u
  where u.id = tollgate_create_key.user_id and (actor.role = 'admin' or u.id = actor.user_id);
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'user', 'id', user_id));
  end if;
  if actor.kind = 'key' and not (key -> 'scopes') <@ to_jsonb(actor.scopes) then
    perform tollgate.refuse(403, 'permission_denied',
      jsonb_build_object('key_id', actor.key_id, 'scopes', to_jsonb(actor.scopes)));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', tollgate.add_key(actor, owner, key),
    'org_id', owner.org_id,
    'user_id', owner.id
  );
end
$$;

comment on function public.tollgate_create_key(jsonb, text, jsonb) is
  'Makes a key for a user: any user for an admin or the console, oneself otherwise, and never with a scope that the maker lacks. Refuses: as recognise(), not_found, permission_denied. Locks nothing that exists.';


create function public.tollgate_set_key_state(caller jsonb, key_id text, state text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  key tollgate.api_keys;
  was text;
begin
  if state not in ('active', 'disabled', 'revoked') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'state', 'state', state));
  end if;

  select k.* into key from tollgate.api_keys k
  where k.id = tollgate_set_key_state.key_id and (actor.role = 'admin' or k.user_id = actor.user_id)
  for no key update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
  end if;

  was := case
    when key.revoked_at is not null then 'revoked'
    when key.disabled_at is not null then 'disabled'
    else 'active'
  end;
  if was = 'revoked' and state <> 'revoked' then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', was));
  end if;

  if was <> state then
    update tollgate.api_keys k set
      revoked_at = case when state = 'revoked' then now() end,
      disabled_at = case state when 'active' then null when 'disabled' then now() else k.disabled_at end,
      updated_at = now()
    where k.id = key.id;
    perform tollgate.record(
      actor,
      case state when 'active' then 'key.enabled' else 'key.' || state end,
      key.org_id,
      key.id,
      jsonb_build_object('was', was)
    );
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', key.id, 'state', state, 'was', was);
end
$$;

comment on function public.tollgate_set_key_state(jsonb, text, text) is
  'Disables, enables or revokes a key: any key for an admin or the console, one''s own otherwise. Revoked is final. Repeating a state changes nothing and records nothing. Refuses: as recognise(), invalid_request, not_found, key_is_final. Locks the key row.';


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


select tollgate.expose('public.tollgate_create_key(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_set_key_state(jsonb, text, text)');
select tollgate.expose('public.tollgate_seed(jsonb, jsonb, jsonb, jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000400'
$$;

revoke execute on all functions in schema tollgate from public;
