-- Signing in with a password, and setting it. The server checks passwords against their hash; the database never sees them.

create function public.tollgate_begin_password_sign_in(caller jsonb, email text, address text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person tollgate.users;
  password tollgate.passwords;
  failures integer;
begin
  select u.* into person from tollgate.users u where lower(u.email) = lower(tollgate_begin_password_sign_in.email);
  select p.* into password from tollgate.passwords p where p.user_id = person.id;
  failures := tollgate.count_password_failure(
    tollgate.account_of(email), address, coalesce(address = any (password.known_addresses), false)
  );
  if failures = 100 and person.id is not null then
    perform tollgate.raise_event(
      'many_failures', 'user', person.id, person.org_id, null, failures, now(), now(),
      jsonb_build_object('code', 'sign_in_failed')
    );
  end if;
  return jsonb_build_object('caller', '{}'::jsonb, 'hash', password.hash);
end
$$;

comment on function public.tollgate_begin_password_sign_in(jsonb, text, text) is
  'Counts a failure, and answers with the hash of the account''s password for the server to check; null where there is none. The hundredth failure of an account raises a security event. `address` is the caller''s, as failures are counted. Refuses: as count_password_failure(). Locks as count_password_failure(), then the event.';

select tollgate.expose('public.tollgate_begin_password_sign_in(jsonb, text, text)');


create function public.tollgate_sign_in_with_password(
  caller jsonb, email text, hash text, address text, digest text
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person tollgate.users;
begin
  select u.* into person from tollgate.users u where lower(u.email) = lower(tollgate_sign_in_with_password.email)
  for key share; -- before the password, as tollgate_delete_user() locks them
  update tollgate.passwords p
  set known_addresses = (array_prepend(address, array_remove(p.known_addresses, address)))[1:10]
  where p.user_id = person.id and p.hash = tollgate_sign_in_with_password.hash;
  if (found and tollgate.may_sign_in(person)) is not true then
    perform tollgate.refuse(401, 'sign_in_failed');
  end if;
  perform tollgate.forgive_password_failure(tollgate.account_of(email), address);
  return tollgate.start_session(caller, tollgate.actor_of(caller, person), 'password', digest);
end
$$;

comment on function public.tollgate_sign_in_with_password(jsonb, text, text, text, text) is
  'Starts a session for a user whose password was right. `hash` is the one it was checked against, and `digest` that of the session''s token. Refuses: sign_in_failed (the password was changed since, or the user or org may not act). Locks the user against deletion, the password, the counts of failures, and as start_session().';

select tollgate.expose('public.tollgate_sign_in_with_password(jsonb, text, text, text, text)');


create function tollgate.signed_in_by_link(actor tollgate.caller) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.sessions s
    where s.id = actor.session_id and s.way = 'link' and s.created_at > now() - interval '15 minutes'
  )
$$;

comment on function tollgate.signed_in_by_link(tollgate.caller) is
  'Whether the caller signed in by a link within 15 minutes: who did so sets a password without the current one.';


create function public.tollgate_begin_password_change(caller jsonb, has_current boolean, address text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  email constant text := (select u.email from tollgate.users u where u.id = actor.user_id);
  password tollgate.passwords;
begin
  if not tollgate.signed_in_by_link(actor) then
    select p.* into password from tollgate.passwords p where p.user_id = actor.user_id;
    if not found then
      perform tollgate.refuse(403, 'sign_in_again', jsonb_build_object('way', 'link'));
    elsif not has_current then
      perform tollgate.refuse_field('current', 'is missing; send the password that you have now');
    end if;
    perform tollgate.count_password_failure(
      tollgate.account_of(email), address, address = any (password.known_addresses)
    );
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'hash', password.hash);
end
$$;

comment on function public.tollgate_begin_password_change(jsonb, boolean, text) is
  'Counts a failure, and answers with the hash of the current password for the server to check. Counts nothing and answers null after a sign-in by link within 15 minutes, which needs no current password. Refuses: as recognise(), sign_in_again (there is no password yet), invalid_request, as count_password_failure(). Locks as count_password_failure().';

select tollgate.expose('public.tollgate_begin_password_change(jsonb, boolean, text)');


create function public.tollgate_set_password(caller jsonb, hash text, checked text, address text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  email constant text := (select u.email from tollgate.users u where u.id = actor.user_id);
begin
  if checked is not null then
    update tollgate.passwords p set hash = tollgate_set_password.hash, set_at = now()
    where p.user_id = actor.user_id and p.hash = checked;
    if not found then
      perform tollgate.refuse(401, 'sign_in_failed');
    end if;
    perform tollgate.forgive_password_failure(tollgate.account_of(email), address);
  elsif tollgate.signed_in_by_link(actor) then
    insert into tollgate.passwords as p (user_id, hash) values (actor.user_id, tollgate_set_password.hash)
    on conflict on constraint passwords_pkey do update set hash = excluded.hash, set_at = now();
  else
    perform tollgate.refuse(403, 'sign_in_again', jsonb_build_object('way', 'link'));
  end if;
  delete from tollgate.sign_in_links l where l.user_id = actor.user_id;
  perform tollgate.record(actor, 'password.set', actor.org_id, actor.user_id);
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'ended', tollgate.end_sessions(actor, actor.user_id, actor.session_id)
  );
end
$$;

comment on function public.tollgate_set_password(jsonb, text, text, text) is
  'Sets the password of the caller''s user, and ends their other sessions and links. `checked` is the hash that the current password was checked against; null after a sign-in by link. Refuses: as recognise(), sign_in_failed (the password was changed since), sign_in_again. Locks the password, the counts of failures, the links and sessions.';

select tollgate.expose('public.tollgate_set_password(jsonb, text, text, text)');


create function public.tollgate_remove_password(caller jsonb, user_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  person tollgate.users;
  was_there boolean;
  ended integer;
begin
  select u.* into person from tollgate.users u
  where u.id = tollgate_remove_password.user_id and u.deleted_at is null;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;
  delete from tollgate.passwords p where p.user_id = person.id;
  was_there := found;
  delete from tollgate.sign_in_links l where l.user_id = person.id;
  ended := tollgate.end_sessions(actor, person.id, null);
  if was_there then
    perform tollgate.record(actor, 'password.removed', person.org_id, person.id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'user_id', person.id, 'removed', was_there, 'ended', ended
  );
end
$$;

comment on function public.tollgate_remove_password(jsonb, text) is
  'Removes the password of a user, and ends all their sessions and links. For the console and admins. Refuses: as recognise(), not_found. Locks the password, the links and sessions.';

select tollgate.expose('public.tollgate_remove_password(jsonb, text)');
