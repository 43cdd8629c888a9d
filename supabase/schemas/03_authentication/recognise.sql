-- Who is calling, and whether they may.

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


create function tollgate.identity(actor tollgate.caller) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('org_id', actor.org_id, 'user_id', actor.user_id, 'key_id', actor.key_id)
$$;

comment on function tollgate.identity(tollgate.caller) is
  'What an answer tells the server of its caller, for the request''s log line.';


create function tollgate.operates(actor tollgate.caller) returns boolean
language sql
immutable
set search_path = ''
as $$
  select actor.kind = 'console' or (actor.role = 'admin' and actor.scopes @> array['admin'])
$$;

comment on function tollgate.operates(tollgate.caller) is
  'Whether the caller acts for the whole installation: the console, or an admin with a key that has the scope admin.';


create function public.tollgate_identify(caller jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, touch => false)))
$$;

comment on function public.tollgate_identify(jsonb) is
  'Says that the caller may come in, and who it is. Changes nothing. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_identify(jsonb)');


create function public.tollgate_operator(caller jsonb) returns jsonb
language sql
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, 'admin')))
$$;

comment on function public.tollgate_operator(jsonb) is
  'Says that the caller is an operator, for what the server does outside the database on an operator''s word only. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_operator(jsonb)');
