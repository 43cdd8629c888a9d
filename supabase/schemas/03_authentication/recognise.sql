-- Recognises callers, and decides whether they may act.

create function tollgate.digests_of(caller jsonb) returns bytea[]
language sql
immutable
set search_path = ''
as $$
  select array(select decode(d, 'hex') from jsonb_array_elements_text(caller -> 'digests') d)
$$;

comment on function tollgate.digests_of(jsonb) is
  'The digests under which a caller''s key may be stored: one for each active pepper, the newest first.';


create function tollgate.key_refusal(
  key tollgate.api_keys,
  owner_status text,
  owner_role text,
  org_status text,
  caller jsonb,
  scope text
) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  code constant text := case
    when key.id is null or org_status is null then 'invalid_api_key'
    when key.revoked_at is not null then 'key_revoked'
    when (key.disabled_at is null and owner_status = 'active' and org_status = 'active') is not true then 'key_disabled'
    when key.expires_at <= now() then 'key_expired'
    when key.ip_allowlist is not null and ((caller ->> 'ip')::inet <<= any (key.ip_allowlist)) is not true
      then 'ip_not_allowed'
    when scope is not null and (scope = any (key.scopes) and (scope <> 'admin' or owner_role = 'admin')) is not true
      then 'permission_denied'
  end;
  status integer;
begin
  if code is null then
    return null;
  end if;
  status := case when code in ('ip_not_allowed', 'permission_denied') then 403 else 401 end;
  return tollgate.refusal(status, code, case code
    when 'invalid_api_key' then '{}'
    when 'key_revoked' then jsonb_build_object('key_id', key.id, 'revoked_at', tollgate.utc(key.revoked_at))
    when 'key_disabled' then jsonb_build_object('key_id', key.id, 'disabled', case
      when key.disabled_at is not null then 'key'
      when owner_status <> 'active' then 'user'
      else 'org'
    end)
    when 'key_expired' then jsonb_build_object('key_id', key.id, 'expired_at', tollgate.utc(key.expires_at))
    when 'ip_not_allowed' then jsonb_build_object('key_id', key.id, 'ip', host((caller ->> 'ip')::inet))
    when 'permission_denied' then jsonb_build_object('key_id', key.id, 'scope', scope)
  end);
end
$$;

comment on function tollgate.key_refusal(tollgate.api_keys, text, text, text, jsonb, text) is
  'Decides whether a key may act, and do what `scope` names (null: nothing in particular): null if it may, otherwise the refusal. Every function that recognises a key asks this one. Refuses, as a value: invalid_api_key (no key), key_revoked, key_disabled, key_expired, ip_not_allowed, permission_denied.';


create function tollgate.identify(caller jsonb, scope text default null) returns tollgate.recognition
language plpgsql
set search_path = ''
as $$
declare
  known record;
  actor tollgate.caller;
begin
  if caller ? 'session' then
    return tollgate.identify_session(caller, scope);
  end if;
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';
  if caller ? 'console' then
    actor.kind := 'console';
    actor.name := caller ->> 'console';
    actor.role := 'admin';
    return row(actor, null::tollgate.api_keys, null::jsonb);
  end if;

  select k as key, u.role, tollgate.key_refusal(k, u.status, u.role, o.status, caller, scope) as refusal into known
  from (select) nothing
  left join tollgate.api_keys k on k.digest = any (tollgate.digests_of(caller))
  left join tollgate.users u on u.id = k.user_id
  left join tollgate.orgs o on o.id = k.org_id
  limit 1;
  if known.refusal is not null then
    return row(null::tollgate.caller, null::tollgate.api_keys, known.refusal);
  end if;

  actor.kind := 'key';
  actor.key_id := (known.key).id;
  actor.user_id := (known.key).user_id;
  actor.org_id := (known.key).org_id;
  actor.role := known.role;
  actor.environment := (known.key).environment;
  actor.scopes := (known.key).scopes;
  return row(actor, known.key, null::jsonb);
end
$$;

comment on function tollgate.identify(jsonb, text) is
  'The caller behind a request, if it may do what `scope` names. Refuses, as a value: as key_refusal() and identify_session(). Locks nothing.';


create function tollgate.recognise(caller jsonb, scope text default null, touch boolean default true)
returns tollgate.caller
language plpgsql
set search_path = ''
as $$
declare
  recognition tollgate.recognition := tollgate.identify(caller, scope);
begin
  if recognition.refusal is not null then
    perform tollgate.refuse(
      (recognition.refusal ->> 'status')::integer, recognition.refusal ->> 'code', recognition.refusal -> 'facts'
    );
  end if;
  if touch and (recognition.actor).kind = 'key' then
    perform tollgate.touch(recognition.key, caller);
  elsif touch then
    perform tollgate.touch_session((recognition.actor).session_id);
  end if;
  return recognition.actor;
end
$$;

comment on function tollgate.recognise(jsonb, text, boolean) is
  'As identify(), for functions that serve one caller: a refusal ends the call. Touches the key or the session unless `touch` is false. A function that locks orgs passes false, and touches the key after it has locked the org.';


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
  'Updates last_used_at of a key, at most once a minute, and replaces a digest that was made with a previous pepper. Skips a key that another transaction has locked. Orgs are locked before keys, so a function that locks an org calls this afterwards. Locks the key.';


create function tollgate.identity(actor tollgate.caller) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('org_id', actor.org_id, 'user_id', actor.user_id, 'key_id', actor.key_id)
$$;

comment on function tollgate.identity(tollgate.caller) is
  'The ids of the caller, which the server writes into the log line of the request.';


create function tollgate.operates(actor tollgate.caller) returns boolean
language sql
immutable
set search_path = ''
as $$
  select actor.kind = 'console' or (actor.role = 'admin' and actor.scopes @> array['admin'])
$$;

comment on function tollgate.operates(tollgate.caller) is
  'Whether the caller acts for the whole installation: the console, or an admin with a key or session that has the scope admin.';


create function public.tollgate_identify(caller jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, touch => false)))
$$;

comment on function public.tollgate_identify(jsonb) is
  'Answers who the caller is, if it may act. Changes nothing. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_identify(jsonb)');


create function public.tollgate_operator(caller jsonb) returns jsonb
language sql
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, 'admin')))
$$;

comment on function public.tollgate_operator(jsonb) is
  'Answers who the caller is, if it is an operator: for what operators do outside the database. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_operator(jsonb)');
