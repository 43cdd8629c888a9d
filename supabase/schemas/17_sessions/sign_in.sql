-- Signing in and out.

create function tollgate.start_session(
  caller jsonb, actor tollgate.caller, way text, digest text
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  session tollgate.sessions;
begin
  delete from tollgate.sessions s
  where s.user_id = actor.user_id and (
    s.digest = any (tollgate.session_digests_of(caller)) or tollgate.session_expires_at(s, actor.role) <= now()
  );
  insert into tollgate.sessions (digest, user_id, key_id, way, ip, user_agent)
  values (decode(digest, 'hex'), actor.user_id, actor.key_id, way, actor.ip, actor.user_agent)
  returning * into session;
  actor.kind := 'session';
  actor.session_id := session.id;
  perform tollgate.record(actor, 'session.started', actor.org_id, session.id, jsonb_build_object('way', way));
  return tollgate.signed_in(actor) || jsonb_build_object(
    'lifetime_seconds', extract(epoch from tollgate.session_lifetime(actor.role))::integer
  );
end
$$;

comment on function tollgate.start_session(jsonb, tollgate.caller, text, text) is
  'Starts a session of the actor, and deletes its expired ones and the one that the cookie of this request names. Answers signed_in(), with lifetime_seconds for the cookie. Locks the deleted sessions.';


create function public.tollgate_sign_in_with_key(caller jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  recognition constant tollgate.recognition := tollgate.identify(caller - 'session');
  key constant tollgate.api_keys := recognition.key;
begin
  if recognition.refusal is null and key.rotated_to is not null then
    perform tollgate.refuse(401, 'key_expired', jsonb_build_object('key_id', key.id));
  end if;
  return tollgate.start_session(caller, tollgate.recognise(caller - 'session'), 'key', digest);
end
$$;

comment on function public.tollgate_sign_in_with_key(jsonb, text) is
  'Exchanges the caller''s key for a session, whose token has this digest. Refuses: as recognise(), key_expired for a key that was rotated. Locks as start_session().';

select tollgate.expose('public.tollgate_sign_in_with_key(jsonb, text)');


create function tollgate.actor_of(caller jsonb, person tollgate.users) returns tollgate.caller
language plpgsql
stable
set search_path = ''
as $$
declare
  actor tollgate.caller;
begin
  actor.kind := 'session';
  actor.user_id := person.id;
  actor.org_id := person.org_id;
  actor.role := person.role;
  actor.environment := 'live';
  actor.scopes := (tollgate.key_of_session(null, person)).scopes;
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';
  return actor;
end
$$;

comment on function tollgate.actor_of(jsonb, tollgate.users) is 'A user who signs in without a key, as an actor.';


create function tollgate.may_sign_in(person tollgate.users) returns boolean
language sql
stable
set search_path = ''
as $$
  select person.status = 'active' and exists (
    select from tollgate.orgs o where o.id = person.org_id and o.status = 'active'
  )
$$;

comment on function tollgate.may_sign_in(tollgate.users) is 'Whether the user and the org are active.';


create function public.tollgate_sign_in_with_link(caller jsonb, link jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person tollgate.users;
  used text;
begin
  delete from tollgate.sign_in_links l
  where l.digest in (select decode(d, 'hex') from jsonb_array_elements_text(link) d) and l.expires_at > now()
  returning l.user_id into used;
  select u.* into person from tollgate.users u where u.id = used;
  if tollgate.may_sign_in(person) is not true then
    perform tollgate.refuse(401, 'invalid_link');
  end if;
  return tollgate.start_session(caller, tollgate.actor_of(caller, person), 'link', digest);
end
$$;

comment on function public.tollgate_sign_in_with_link(jsonb, jsonb, text) is
  'Exchanges a sign-in link for a session, once: of two calls at the same time one is refused. `link` holds the digests of the token in the link, one for each active pepper. Refuses: invalid_link. Locks the link.';

select tollgate.expose('public.tollgate_sign_in_with_link(jsonb, jsonb, text)');


create function public.tollgate_sign_in_with_supabase(caller jsonb, email text, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person constant tollgate.users := (
    select u from tollgate.users u where lower(u.email) = lower(tollgate_sign_in_with_supabase.email)
  );
begin
  if tollgate.may_sign_in(person) is not true then
    perform tollgate.refuse(401, 'sign_in_failed', '{"way": "supabase"}');
  end if;
  return tollgate.start_session(caller, tollgate.actor_of(caller, person), 'supabase', digest);
end
$$;

comment on function public.tollgate_sign_in_with_supabase(jsonb, text, text) is
  'Starts a session for the user with this email, whose ownership Supabase Auth has verified. Refuses: sign_in_failed (no such user, or the user or org may not act). Locks as start_session().';

select tollgate.expose('public.tollgate_sign_in_with_supabase(jsonb, text, text)');


create function public.tollgate_create_sign_in_link(caller jsonb, person jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_users tollgate.users[];
  whose tollgate.users;
  expiry timestamptz;
begin
  perform tollgate.check_recent_sign_in(actor);
  select array_agg(u) into found_users from tollgate.users u
  where tollgate.may_sign_in(u) and case
    when person ? 'user_id' then u.id = person ->> 'user_id'
    when person ? 'email' then lower(u.email) = lower(person ->> 'email')
    else u.role = 'admin'
  end;
  if found_users is null then
    perform tollgate.refuse_missing('user', coalesce(person ->> 'user_id', person ->> 'email', 'admin'));
  elsif cardinality(found_users) > 1 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'several_admins', 'param', 'email'));
  end if;
  whose := found_users[1];
  if actor.key_id is not null and actor.user_id = whose.id then
    perform tollgate.refuse(403, 'permission_denied', jsonb_build_object('key_id', actor.key_id, 'param', 'user_id'));
  end if;

  delete from tollgate.sign_in_links l where l.user_id = whose.id and l.expires_at <= now();
  insert into tollgate.sign_in_links (digest, user_id) values (decode(digest, 'hex'), whose.id)
  returning expires_at into expiry;
  perform tollgate.record(actor, 'sign_in_link.created', whose.org_id, whose.id);
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'user_id', whose.id, 'email', whose.email, 'expires_at', tollgate.utc(expiry)
  );
end
$$;

comment on function public.tollgate_create_sign_in_link(jsonb, jsonb, text) is
  'Creates a link by which a user signs in once, within 10 minutes. `person` names the user by user_id or email; without either it is the only active admin. `digest` is that of the token in the link. A key makes no link for its own owner, since the session could do more than the key. For the console and admins. Refuses: as recognise(), sign_in_again, not_found, conflict (there are several admins), permission_denied. Locks nothing.';

select tollgate.expose('public.tollgate_create_sign_in_link(jsonb, jsonb, text)');


create function public.tollgate_end_session(caller jsonb, session_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, touch => false);
  gone tollgate.sessions;
begin
  delete from tollgate.sessions s
  where s.id = coalesce(tollgate_end_session.session_id, actor.session_id)
    and (s.user_id = actor.user_id or tollgate.operates(actor))
  returning s.* into gone;
  if found then
    perform tollgate.record(
      actor, 'session.ended', (select u.org_id from tollgate.users u where u.id = gone.user_id), gone.id
    );
  elsif session_id is not null then
    perform tollgate.refuse_missing('session', session_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'ended', (gone.id is not null)::integer);
end
$$;

comment on function public.tollgate_end_session(jsonb, text) is
  'Ends a session: one of the caller''s, or any for an operator. Null is the session of this call, if there is one. Answers how many were ended. Refuses: as recognise(), not_found. Locks the session.';

select tollgate.expose('public.tollgate_end_session(jsonb, text)');


create function tollgate.end_sessions(actor tollgate.caller, whose text, but text) returns integer
language plpgsql
set search_path = ''
as $$
declare
  ended text[];
begin
  with gone as (
    delete from tollgate.sessions s where s.user_id = whose and s.id is distinct from but returning s.id
  )
  select array_agg(g.id) into ended from gone g;
  perform tollgate.record(actor, 'session.ended', u.org_id, session_id)
  from unnest(ended) session_id, tollgate.users u where u.id = whose;
  return coalesce(cardinality(ended), 0);
end
$$;

comment on function tollgate.end_sessions(tollgate.caller, text, text) is
  'Ends all sessions of a user but one, and answers how many. Locks the sessions.';


create function public.tollgate_end_sessions(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, touch => false);
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'ended', tollgate.end_sessions(actor, actor.user_id, null));
end
$$;

comment on function public.tollgate_end_sessions(jsonb) is
  'Ends all sessions of the caller''s user, this one included. Refuses: as recognise(). Locks the sessions.';

select tollgate.expose('public.tollgate_end_sessions(jsonb)');
