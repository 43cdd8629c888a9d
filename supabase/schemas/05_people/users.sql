-- Users.

create function tollgate.has_password(user_id text) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (select from tollgate.passwords p where p.user_id = has_password.user_id)
$$;

comment on function tollgate.has_password(text) is 'Whether the user can sign in with a password.';


create function tollgate.user_shown(person tollgate.users) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', person.id,
    'org_id', person.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = person.org_id),
    'email', person.email,
    'name', person.name,
    'role', person.role,
    'status', person.status,
    'keys', (select count(*) from tollgate.api_keys k where k.user_id = person.id and k.revoked_at is null),
    'has_password', tollgate.has_password(person.id),
    'created_at', tollgate.utc(person.created_at),
    'updated_at', tollgate.utc(person.updated_at)
  )
$$;

comment on function tollgate.user_shown(tollgate.users) is 'A user as operators see it. `keys` counts those that are not revoked.';


create function tollgate.refuse_taken_email(email text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'email_taken', 'param', 'email', 'email', email))
$$;

comment on function tollgate.refuse_taken_email(text) is 'Refuses an email address that another user has; addresses are case-insensitive.';


create function public.tollgate_create_user(caller jsonb, person jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  org_id text := person ->> 'org_id';
  made tollgate.users;
begin
  if org_id is null then
    org_id := (tollgate.add_org(actor, jsonb_build_object(
      'name', left(coalesce(nullif(person ->> 'name', ''), person ->> 'email'), 200)
    ))).id;
  else
    perform from tollgate.orgs o where o.id = org_id for key share;
    if not found then
      perform tollgate.refuse_missing('org', org_id);
    end if;
  end if;

  begin
    insert into tollgate.users (org_id, email, name, role)
    values (org_id, person ->> 'email', coalesce(person ->> 'name', ''), coalesce(person ->> 'role', 'member'))
    returning * into made;
  exception when unique_violation then
    perform tollgate.refuse_taken_email(person ->> 'email');
  end;
  perform tollgate.record(actor, 'user.created', made.org_id, made.id,
    jsonb_build_object('email', made.email, 'name', made.name, 'role', made.role));
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(made);
end
$$;

comment on function public.tollgate_create_user(jsonb, jsonb) is
  'Creates a user in an org or, where none is named, together with a personal org on the plan free. `person` holds email and perhaps org_id, name, role. For the console and admins. Refuses: as recognise(), not_found (org), conflict (the address is taken). Locks the org against deletion.';

select tollgate.expose('public.tollgate_create_user(jsonb, jsonb)');


create function public.tollgate_update_user(caller jsonb, user_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  was tollgate.users;
  person tollgate.users;
  details jsonb;
begin
  perform tollgate.lock_people();
  if changes ->> 'org_id' is not null then
    perform from tollgate.orgs o where o.id = changes ->> 'org_id' for key share;
    if not found then
      perform tollgate.refuse_missing('org', changes ->> 'org_id');
    end if;
    -- Requests write all keys of a line, in any order, while they hold the lock of the org.
    perform from tollgate.orgs o
    where o.id in (
      select k.org_id from tollgate.api_keys k
      where k.user_id = tollgate_update_user.user_id and k.line is not null
    )
    for no key update;
  elsif changes ->> 'role' is not null then -- another role can have other limits
    perform from tollgate.orgs o
    where o.id = (select u.org_id from tollgate.users u where u.id = tollgate_update_user.user_id)
    for no key update;
  end if;
  select u.* into was from tollgate.users u
  where u.id = tollgate_update_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;

  person := was;
  person.org_id := coalesce(changes ->> 'org_id', was.org_id);
  person.email := coalesce(changes ->> 'email', was.email);
  person.name := coalesce(changes ->> 'name', was.name);
  person.role := coalesce(changes ->> 'role', was.role);
  person.status := coalesce(changes ->> 'status', was.status);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(person));
  if details <> '{}' then
    begin
      update tollgate.users u set
        org_id = person.org_id,
        email = person.email,
        name = person.name,
        role = person.role,
        status = person.status,
        updated_at = now()
      where u.id = was.id
      returning * into person;
    exception when unique_violation then
      perform tollgate.refuse_taken_email(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', person.org_id, person.id, details);
    if person.org_id <> was.org_id then -- so that the old org can see it too
      perform tollgate.record(actor, 'user.updated', was.org_id, person.id, details);
    end if;
    if was.role = 'admin' and (person.role, person.status, person.org_id) <> (was.role, was.status, was.org_id) then
      perform tollgate.check_admin_remains();
    end if;
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_update_user(jsonb, text, jsonb) is
  'Changes a user: email, name, role, status, org_id. Disabling stops the user''s keys at once. A user who moves to another org takes their keys along, with limits, budgets and counts: the new org pays from the next admission on. Open requests are charged to the org that holds credits for them, and past requests stay with the old org. A request that is being admitted during the move may be refused as unknown; sent again, it is admitted. Repeating a change changes and records nothing. For the console and admins. Refuses: as recognise(), not_found (user, org), conflict (the address is taken, or no working admin would be left). Locks the new org against deletion, the old org if the user has rotated keys, then the user and, for a move, their keys.';

select tollgate.expose('public.tollgate_update_user(jsonb, text, jsonb)');


create function public.tollgate_delete_user(caller jsonb, user_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  person tollgate.users;
  key tollgate.api_keys;
  revoked bigint := 0;
begin
  perform tollgate.lock_people();
  perform from tollgate.orgs o
  where o.id = (select u.org_id from tollgate.users u where u.id = tollgate_delete_user.user_id)
  for no key update;
  select u.* into person from tollgate.users u
  where u.id = tollgate_delete_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;

  for key in
    update tollgate.api_keys k set revoked_at = now(), updated_at = now()
    where k.user_id = person.id and k.revoked_at is null
    returning k.*
  loop
    revoked := revoked + 1;
    perform tollgate.record(actor, 'key.revoked', key.org_id, key.id, jsonb_build_object(
      'was', case when key.disabled_at is null then 'active' else 'disabled' end,
      'because', 'user.deleted'
    ));
  end loop;
  update tollgate.users u set
    email = u.id || '@deleted.invalid',
    name = '',
    role = 'member',
    status = 'disabled',
    deleted_at = now(),
    updated_at = now()
  where u.id = person.id;
  delete from tollgate.passwords p where p.user_id = person.id;
  perform tollgate.record(actor, 'user.deleted', person.org_id, person.id, jsonb_build_object(
    'email', person.email, 'name', person.name, 'role', person.role, 'keys_revoked', revoked
  ));
  if person.role = 'admin' then
    perform tollgate.check_admin_remains();
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', person.id, 'deleted', true, 'keys_revoked', revoked
  );
end
$$;

comment on function public.tollgate_delete_user(jsonb, text) is
  'Deletes a user: revokes all keys, frees the address, and keeps a row without a name for what refers to it. Credits belong to the org and stay there. For the console and admins. Refuses: as recognise(), not_found, conflict (no working admin would be left). Locks the org, then the user and their keys.';

select tollgate.expose('public.tollgate_delete_user(jsonb, text)');


create function public.tollgate_user(caller jsonb, user_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  person tollgate.users;
begin
  select u.* into person from tollgate.users u where u.id = tollgate_user.user_id and u.deleted_at is null;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_user(jsonb, text) is
  'One user. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_user(jsonb, text)');


create function public.tollgate_users(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.users',
    'tollgate.user_shown',
    $where$
      e.deleted_at is null
      and ($1 ->> 'q' is null or e.id = $1 ->> 'q'
        or position(lower($1 ->> 'q') in lower(e.email)) > 0 or position(lower($1 ->> 'q') in lower(e.name)) > 0)
      and ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'role' is null or e.role = $1 ->> 'role')
      and ($1 ->> 'status' is null or e.status = $1 ->> 'status')
    $where$,
    '{"created_at": "e.created_at", "email": "lower(e.email)", "name": "lower(e.name)"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_users(jsonb, jsonb, integer) is
  'Users by pages. `filters`: q (part of the address or name, or the id), org_id, role, status, sort (created_at, email, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_users(jsonb, jsonb, integer)');
