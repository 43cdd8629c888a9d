-- The profile of the caller.

create function tollgate.profile_of(actor tollgate.caller) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'user_id', u.id,
    'name', u.name,
    'email', u.email,
    'role', u.role,
    'status', u.status,
    'org_id', o.id,
    'org_name', o.name,
    'plan', o.plan_id,
    'prefix', k.prefix,
    'last_four', k.last_four,
    'environment', actor.environment,
    'scopes', actor.scopes,
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at)
  )
  from tollgate.users u
  join tollgate.orgs o on o.id = u.org_id
  left join tollgate.api_keys k on k.id = actor.key_id
  where u.id = actor.user_id
$$;

comment on function tollgate.profile_of(tollgate.caller) is 'The caller''s user and, where the caller has one, key.';


create function public.tollgate_own_profile(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  return tollgate.profile_of(tollgate.recognise(caller));
end
$$;

comment on function public.tollgate_own_profile(jsonb) is
  'The caller''s own profile. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_profile(jsonb)');


create function public.tollgate_change_own_profile(caller jsonb, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys', touch => false);
  was tollgate.users;
  person tollgate.users;
  details jsonb;
begin
  select u.* into was from tollgate.users u where u.id = actor.user_id for no key update;
  person := was;
  person.name := coalesce(changes ->> 'name', was.name);
  person.email := coalesce(changes ->> 'email', was.email);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(person));
  if details <> '{}' then
    begin
      update tollgate.users u set name = person.name, email = person.email, updated_at = now() where u.id = was.id;
    exception when unique_violation then
      perform tollgate.refuse_taken_email(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', was.org_id, was.id, details);
  end if;
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.profile_of(actor);
end
$$;

comment on function public.tollgate_change_own_profile(jsonb, jsonb) is
  'Changes the name and the email of the caller; other fields of `changes` are ignored. Needs the scope keys, so that a key that only calls models cannot rename its owner. A repetition changes and records nothing. Refuses: as recognise(), conflict. Locks the user, the key.';

select tollgate.expose('public.tollgate_change_own_profile(jsonb, jsonb)');
