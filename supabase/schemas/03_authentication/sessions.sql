-- Recognises the sessions of people who signed in.

create function tollgate.session_digests_of(caller jsonb) returns bytea[]
language sql
immutable
set search_path = ''
as $$
  select array(select decode(d, 'hex') from jsonb_array_elements_text(caller -> 'session') d)
$$;

comment on function tollgate.session_digests_of(jsonb) is
  'The digests under which a caller''s session may be stored: one for each active pepper.';


create function tollgate.session_lifetime(role text) returns interval
language sql
immutable
set search_path = ''
as $$
  select case role when 'admin' then interval '12 hours' else interval '14 days' end
$$;

comment on function tollgate.session_lifetime(text) is 'How long a session of a user with this role lasts at most.';


create function tollgate.session_idle_time(role text) returns interval
language sql
immutable
set search_path = ''
as $$
  select case role when 'admin' then interval '1 hour' else interval '3 days' end
$$;

comment on function tollgate.session_idle_time(text) is
  'After how long without a request a session of a user with this role ends.';


create function tollgate.session_expires_at(session tollgate.sessions, role text) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select least(
    session.created_at + tollgate.session_lifetime(role), session.last_seen_at + tollgate.session_idle_time(role)
  )
$$;

comment on function tollgate.session_expires_at(tollgate.sessions, text) is
  'When a session ends if no further request comes. `role` is the role that the user has now.';


create function tollgate.key_of_session(session tollgate.sessions, person tollgate.users) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
declare
  key tollgate.api_keys;
begin
  if session.key_id is not null then
    select k.* into key from tollgate.api_keys k where k.id = session.key_id and k.rotated_to is null;
  else
    key.id := session.id;
    key.org_id := person.org_id;
    key.user_id := person.id;
    key.environment := 'live';
    key.scopes := array['chat', 'completions', 'embeddings', 'models', 'usage', 'keys']
      || case person.role when 'admin' then array['admin'] else '{}'::text[] end;
  end if;
  return key;
end
$$;

comment on function tollgate.key_of_session(tollgate.sessions, tollgate.users) is
  'What a session may do, as a key: the key that was exchanged, or null when it was rotated; without a key, one with all scopes of the user''s role that is not stored.';


create function tollgate.identify_session(caller jsonb, scope text) returns tollgate.recognition
language plpgsql
stable
set search_path = ''
as $$
declare
  session tollgate.sessions;
  person tollgate.users;
  key tollgate.api_keys;
  org_status text;
  refusal jsonb;
  actor tollgate.caller;
begin
  select s.* into session from tollgate.sessions s where s.digest = any (tollgate.session_digests_of(caller));
  select u.* into person from tollgate.users u where u.id = session.user_id;
  select o.status into org_status from tollgate.orgs o where o.id = person.org_id;
  key := tollgate.key_of_session(session, person);
  refusal := tollgate.key_refusal(key, person.status, person.role, org_status, caller, scope);
  if refusal ->> 'status' = '401' or (tollgate.session_expires_at(session, person.role) > now()) is not true then
    refusal := tollgate.refusal(401, 'session_ended');
  end if;
  if session.key_id is null then
    refusal := refusal #- '{facts, key_id}';
  end if;
  if refusal is not null then
    return row(null::tollgate.caller, null::tollgate.api_keys, refusal);
  end if;

  actor.kind := 'session';
  actor.key_id := session.key_id;
  actor.user_id := person.id;
  actor.org_id := person.org_id;
  actor.role := person.role;
  actor.environment := key.environment;
  actor.scopes := key.scopes;
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';
  actor.session_id := session.id;
  actor.signed_in_at := session.created_at;
  return row(actor, key, null::jsonb);
end
$$;

comment on function tollgate.identify_session(jsonb, text) is
  'The user behind a session, if the session may do what `scope` names. Its rights are those that the user has now, and no more than those of the key that was exchanged. Refuses, as a value: session_ended (unknown, expired, or its key, user or org may not act), ip_not_allowed, permission_denied. Locks nothing.';


create function tollgate.touch_session(session_id text) returns void
language sql
set search_path = ''
as $$
  update tollgate.sessions s set last_seen_at = now()
  where s.id = session_id and s.last_seen_at < now() - interval '1 minute'
$$;

comment on function tollgate.touch_session(text) is
  'Updates last_seen_at of a session, at most once a minute. Locks the session.';


create function tollgate.check_recent_sign_in(actor tollgate.caller) returns void
language plpgsql
set search_path = ''
as $$
begin
  if actor.kind = 'session' and actor.signed_in_at < now() - interval '15 minutes' then
    perform tollgate.refuse(403, 'sign_in_again', jsonb_build_object('signed_in_at', tollgate.utc(actor.signed_in_at)));
  end if;
end
$$;

comment on function tollgate.check_recent_sign_in(tollgate.caller) is
  'Refuses, with sign_in_again, a session that began more than 15 minutes ago. Keys and the console need no sign-in.';
