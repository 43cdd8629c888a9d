-- Why:  operators make customers, give them plans and limits, and end them, without SQL and without losing money.
-- What: the functions behind /admin/orgs, /admin/users, /admin/plans, /admin/assign-plan and /admin/limit;
--       orgs.limits_set, from which orgs.limits is made; users.deleted_at.
-- Care: additive. Both columns are nullable; filling limits_set writes the few orgs that have limits of their own.
--       Changes of people and plans go one after the other (an advisory lock); requests do not take that lock.
--       Lock order: the advisory lock, orgs in id order, plan, user, key.

alter table tollgate.orgs add column limits_set tollgate.limits;

update tollgate.orgs set limits_set = limits where limits is not null;

comment on column tollgate.orgs.limits is 'What requests are held to: limits_set with the plan''s limits where it says nothing; null follows the plan in all.';
comment on column tollgate.orgs.limits_set is 'What an operator set. A null in it follows the plan; null is nothing set.';

alter table tollgate.users add column deleted_at timestamptz;

comment on column tollgate.users.deleted_at is 'When the user was deleted. The row stays while the org does, disabled and without name or address, since keys and requests point at it.';


create function tollgate.one_by_one() returns void
language sql
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('tollgate_people', 0))
$$;

comment on function tollgate.one_by_one() is
  'Lets changes of people and plans through one after the other, so that each sees what the one before did: two admins cannot demote each other at once, nor a plan change while an org takes it up. Takes an advisory lock until the transaction ends.';


create function tollgate.what_changed(was jsonb, now_is jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(n.key, jsonb_build_object('was', was -> n.key, 'is', n.value)), '{}')
  from jsonb_each(now_is) n
  where n.value is distinct from was -> n.key
$$;

comment on function tollgate.what_changed(jsonb, jsonb) is 'The fields of a row that differ, for the audit trail; empty when none does.';


create function tollgate.not_there(kind text, id text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(404, 'not_found', jsonb_build_object('kind', kind, 'id', id))
$$;

comment on function tollgate.not_there(text, text) is 'Refuses the call since there is no such thing.';


create function tollgate.listed(
  source text,
  entry text,
  condition text,
  sortings jsonb,
  filters jsonb,
  page_size integer
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  cursor_id text := filters ->> 'cursor';
  sorted_by text := sortings ->> split_part(filters ->> 'sort', ':', 1);
  direction text := split_part(filters ->> 'sort', ':', 2);
  known boolean;
  page jsonb;
begin
  if sorted_by is null or direction not in ('asc', 'desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if cursor_id is not null then
    execute format('select exists (select from %s e where e.id = $1)', source) into known using cursor_id;
    if not known then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
  end if;

  execute format(
    $query$
      with matching as (
        select e, e.id, %2$s as place from %1$s e where %3$s
      ),
      page as (
        select m.e, m.id, row_number() over (order by m.place %5$s, m.id %5$s) as nth
        from matching m
        where $2 is null or (m.place, m.id) %6$s (select %2$s, e.id from %1$s e where e.id = $2)
        order by m.place %5$s, m.id %5$s
        limit $3 + 1
      )
      select jsonb_build_object(
        'data', coalesce(jsonb_agg(%4$s(p.e) order by p.nth) filter (where p.nth <= $3), '[]'),
        'next_cursor', case when count(*) > $3 then max(p.id) filter (where p.nth = $3) end,
        'total', (select count(*) from matching)
      )
      from page p
    $query$,
    source, sorted_by, condition, entry, direction, case direction when 'asc' then '>' else '<' end
  ) into page using filters, cursor_id, page_size;
  return page;
end
$$;

comment on function tollgate.listed(text, text, text, jsonb, jsonb, integer) is
  'A page of a table by keyset. The table is called e; `entry` names the function that shows a row, `condition` says which rows, with the filters as $1, `sortings` which expression stands behind each word that may be sorted by; the id breaks ties. The filter `sort` is <word>:asc or <word>:desc. All but the filters are constants of the caller. Refuses: invalid_request for an unknown sorting or cursor. Locks nothing.';


-- Limits.

create function tollgate.in_force(chosen tollgate.limits, plan tollgate.plans) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  -- `not … is null`: whether any of the six is there; `is not null` would ask for all.
  select case when not chosen is null then row(
    coalesce(chosen.requests_per_minute, plan.requests_per_minute),
    coalesce(chosen.requests_per_hour, plan.requests_per_hour),
    coalesce(chosen.requests_per_day, plan.requests_per_day),
    coalesce(chosen.tokens_per_minute, plan.tokens_per_minute),
    coalesce(chosen.tokens_per_hour, plan.tokens_per_hour),
    coalesce(chosen.tokens_per_day, plan.tokens_per_day)
  )::tollgate.limits end
$$;

comment on function tollgate.in_force(tollgate.limits, tollgate.plans) is
  'The limits that requests of an org are held to: its own, and where it has none of its own the plan''s. Null when it has none at all and follows the plan in everything.';


create function tollgate.limits_with(chosen tollgate.limits, given jsonb) returns tollgate.limits
language plpgsql
immutable
set search_path = ''
as $$
declare
  changed tollgate.limits := case jsonb_typeof(given) when 'object' then jsonb_populate_record(chosen, given) end;
begin
  return case when not changed is null then changed end;
end
$$;

comment on function tollgate.limits_with(tollgate.limits, jsonb) is
  'The limits as a change leaves them: those it names are replaced, or taken away by a null; a null for all of them takes all away.';


create function tollgate.limits_shown(limits tollgate.limits) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select to_jsonb(coalesce(limits, row(null, null, null, null, null, null)::tollgate.limits))
$$;

comment on function tollgate.limits_shown(tollgate.limits) is 'The six by name, null each where nothing is set.';


-- Orgs.

create function tollgate.org_shown(org tollgate.orgs) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', org.id,
    'name', org.name,
    'plan', org.plan_id,
    'status', org.status,
    'markup', trim_scale(org.markup_ppm / 1000000.0),
    'limits', tollgate.limits_shown(coalesce(org.limits_set, org.limits)),
    'credits', trim_scale(org.balance_nanos / 1000000000.0),
    'credits_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos,
    'available_nanos', org.balance_nanos - org.held_nanos,
    'users', (select count(*) from tollgate.users u where u.org_id = org.id and u.deleted_at is null),
    'created_at', tollgate.utc(org.created_at),
    'updated_at', tollgate.utc(org.updated_at)
  )
$$;

comment on function tollgate.org_shown(tollgate.orgs) is 'An org as operators see it.';


create function tollgate.add_org(actor tollgate.caller, org jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  plan_id text := coalesce(org ->> 'plan', 'free');
  made tollgate.orgs;
begin
  perform from tollgate.plans p where p.id = plan_id for key share;
  if not found then
    perform tollgate.not_there('plan', plan_id);
  end if;
  insert into tollgate.orgs (name, plan_id) values (org ->> 'name', plan_id) returning * into made;
  perform tollgate.record(actor, 'org.created', made.id, made.id, org);
  return made;
end
$$;

comment on function tollgate.add_org(tollgate.caller, jsonb) is
  'Inserts an org and its audit event. `org` holds name and, unless it is free, plan. Refuses: not_found (plan). Locks the plan against its end.';


create function tollgate.keep_an_admin() returns void
language plpgsql
set search_path = ''
as $$
begin
  if not exists (
    select from tollgate.users u
    join tollgate.orgs o on o.id = u.org_id
    join tollgate.api_keys k on k.user_id = u.id
    where u.role = 'admin' and u.status = 'active' and o.status = 'active'
      and k.scopes @> array['admin'] and k.revoked_at is null and k.disabled_at is null
      and (k.expires_at is null or k.expires_at > now())
  ) then
    perform tollgate.refuse(409, 'conflict', '{"reason": "last_admin"}');
  end if;
end
$$;

comment on function tollgate.keep_an_admin() is
  'Refuses a change after which no admin could come in any more: none active, in an active org, with a key of scope admin that works. Called after the change, which the refusal undoes.';


create function tollgate.change_org(actor tollgate.caller, org_id text, changes jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  was tollgate.orgs;
  org tollgate.orgs;
  plan tollgate.plans;
  details jsonb;
begin
  perform tollgate.one_by_one();
  select o.* into was from tollgate.orgs o where o.id = change_org.org_id for no key update;
  if not found then
    perform tollgate.not_there('org', org_id);
  end if;
  was.limits_set := coalesce(was.limits_set, was.limits);

  org := was;
  org.name := coalesce(changes ->> 'name', was.name);
  org.status := coalesce(changes ->> 'status', was.status);
  org.plan_id := coalesce(changes ->> 'plan', was.plan_id);
  if changes ? 'markup_ppm' then
    org.markup_ppm := (changes ->> 'markup_ppm')::integer;
  end if;
  if changes ? 'limits' then
    org.limits_set := tollgate.limits_with(was.limits_set, changes -> 'limits');
  end if;
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(org));
  if details = '{}' then
    return was;
  end if;

  select p.* into plan from tollgate.plans p where p.id = org.plan_id for key share;
  if not found then
    perform tollgate.not_there('plan', org.plan_id);
  end if;
  update tollgate.orgs o set
    name = org.name,
    status = org.status,
    plan_id = org.plan_id,
    markup_ppm = org.markup_ppm,
    limits_set = org.limits_set,
    limits = tollgate.in_force(org.limits_set, plan),
    updated_at = now()
  where o.id = was.id
  returning * into org;
  perform tollgate.record(actor, 'org.updated', was.id, was.id, details);
  if org.status <> 'active' and was.status = 'active' then
    perform tollgate.keep_an_admin();
  end if;
  return org;
end
$$;

comment on function tollgate.change_org(tollgate.caller, text, jsonb) is
  'Changes what `changes` names of an org: name, plan, status, markup_ppm (null follows the plan), limits (those it names; a null follows the plan). They hold for the next admission. What is so already changes and records nothing. Refuses: not_found (org, plan), conflict (the last admin would be shut out). Locks as said above, the org among it.';


create function public.tollgate_orgs(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.listed(
    'tollgate.orgs',
    'tollgate.org_shown',
    $where$
      ($1 ->> 'q' is null or position(lower($1 ->> 'q') in lower(e.name)) > 0 or e.id = $1 ->> 'q')
      and ($1 ->> 'plan' is null or e.plan_id = $1 ->> 'plan')
      and ($1 ->> 'status' is null or e.status = $1 ->> 'status')
    $where$,
    '{"created_at": "e.created_at", "name": "lower(e.name)", "credits": "e.balance_nanos"}',
    '{"sort": "created_at:desc"}'::jsonb || filters,
    page_size
  );
end
$$;

comment on function public.tollgate_orgs(jsonb, jsonb, integer) is
  'Orgs by pages. `filters`: q (part of the name, or the id), plan, status, sort (created_at, name, credits), cursor. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_org(caller jsonb, org_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  org tollgate.orgs;
begin
  select o.* into org from tollgate.orgs o where o.id = tollgate_org.org_id;
  if not found then
    perform tollgate.not_there('org', org_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.org_shown(org);
end
$$;

comment on function public.tollgate_org(jsonb, text) is
  'One org. For admins. Refuses: as recognise(), not_found. Locks nothing.';


create function public.tollgate_create_org(caller jsonb, org jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.org_shown(tollgate.add_org(actor, org));
end
$$;

comment on function public.tollgate_create_org(jsonb, jsonb) is
  'Makes an org. For the console and admins. Refuses: as recognise(), not_found (plan). Locks the plan against its end.';


create function public.tollgate_update_org(caller jsonb, org_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.org_shown(tollgate.change_org(actor, org_id, changes));
end
$$;

comment on function public.tollgate_update_org(jsonb, text, jsonb) is
  'Changes an org. Suspending it stops its keys at once; requests that are running end as usual. For the console and admins. Refuses: as recognise() and change_org(). Locks as change_org().';


create function public.tollgate_delete_org(caller jsonb, org_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  org tollgate.orgs;
  user_count bigint;
  open_holds bigint;
begin
  perform tollgate.one_by_one();
  select o.* into org from tollgate.orgs o where o.id = tollgate_delete_org.org_id for update;
  if not found then
    perform tollgate.not_there('org', org_id);
  end if;

  select count(*) into user_count from tollgate.users u where u.org_id = org.id and u.deleted_at is null;
  select count(*) into open_holds
  from tollgate.holds h
  join tollgate.requests r on r.id = h.request_id
  where r.org_id = org.id;
  if org.balance_nanos <> 0 or org.held_nanos <> 0 or open_holds > 0 or user_count > 0 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'not_empty',
      'org_id', org.id,
      'balance_nanos', org.balance_nanos,
      'held_nanos', org.held_nanos,
      'open_holds', open_holds,
      'users', user_count
    ));
  end if;

  delete from tollgate.api_keys k where k.org_id = org.id; -- of users who were deleted: all revoked
  delete from tollgate.users u where u.org_id = org.id;
  delete from tollgate.orgs o where o.id = org.id;
  perform tollgate.record(actor, 'org.deleted', org.id, org.id,
    jsonb_build_object('name', org.name, 'plan', org.plan_id));
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', org.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_org(jsonb, text) is
  'Ends an org for good. Its requests, transfers and audit events stay; its revoked keys go. For the console and admins. Refuses: as recognise(), not_found, conflict while it has a balance (credits or debt), open holds or users. Locks the org against everything, so a grant or an admission at the same moment comes before, and is seen, or after, and finds nothing.';


-- Users.

create function tollgate.user_shown(person tollgate.users) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', person.id,
    'org_id', person.org_id,
    'email', person.email,
    'name', person.name,
    'role', person.role,
    'status', person.status,
    'keys', (select count(*) from tollgate.api_keys k where k.user_id = person.id and k.revoked_at is null),
    'created_at', tollgate.utc(person.created_at),
    'updated_at', tollgate.utc(person.updated_at)
  )
$$;

comment on function tollgate.user_shown(tollgate.users) is 'A user as operators see it. `keys` counts those that are not revoked.';


create function tollgate.address_taken(email text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'email_taken', 'param', 'email', 'email', email))
$$;

comment on function tollgate.address_taken(text) is 'Refuses a second user with one address. Capitals make no difference.';


create function public.tollgate_users(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.listed(
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
    '{"sort": "created_at:desc"}'::jsonb || filters,
    page_size
  );
end
$$;

comment on function public.tollgate_users(jsonb, jsonb, integer) is
  'Users by pages. `filters`: q (part of the address or name, or the id), org_id, role, status, sort (created_at, email, name), cursor. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


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
    perform tollgate.not_there('user', user_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_user(jsonb, text) is
  'One user. For admins. Refuses: as recognise(), not_found. Locks nothing.';


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
      perform tollgate.not_there('org', org_id);
    end if;
  end if;

  begin
    insert into tollgate.users (org_id, email, name, role)
    values (org_id, person ->> 'email', coalesce(person ->> 'name', ''), coalesce(person ->> 'role', 'member'))
    returning * into made;
  exception when unique_violation then
    perform tollgate.address_taken(person ->> 'email');
  end;
  perform tollgate.record(actor, 'user.created', made.org_id, made.id,
    jsonb_build_object('email', made.email, 'name', made.name, 'role', made.role));
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(made);
end
$$;

comment on function public.tollgate_create_user(jsonb, jsonb) is
  'Makes a user in an org or, where none is named, with a personal org on the plan free, both or neither. `person` holds email and perhaps org_id, name, role. For the console and admins. Refuses: as recognise(), not_found (org), conflict (the address is taken). Locks the org against its end.';


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
  perform tollgate.one_by_one();
  if changes ->> 'org_id' is not null then
    perform from tollgate.orgs o where o.id = changes ->> 'org_id' for key share;
    if not found then
      perform tollgate.not_there('org', changes ->> 'org_id');
    end if;
    -- Keys of one line are written together by requests, in any order but under their org's lock.
    perform from tollgate.orgs o
    where o.id in (
      select k.org_id from tollgate.api_keys k
      where k.user_id = tollgate_update_user.user_id and k.line is not null
    )
    for no key update;
  end if;
  select u.* into was from tollgate.users u
  where u.id = tollgate_update_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.not_there('user', user_id);
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
      perform tollgate.address_taken(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', person.org_id, person.id, details);
    if person.org_id <> was.org_id then -- whom he left can see it too
      perform tollgate.record(actor, 'user.updated', was.org_id, person.id, details);
    end if;
    if was.role = 'admin' and (person.role, person.status, person.org_id) <> (was.role, was.status, was.org_id) then
      perform tollgate.keep_an_admin();
    end if;
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_update_user(jsonb, text, jsonb) is
  'Changes a user: email, name, role, status, org_id. Disabling stops the user''s keys at once. Moving to another org takes the keys along, with their limits, budgets and what these have counted: the new org pays from the next admission on. What is running is charged to the org that set credits aside for it, and what was done stays in its books. A request that is being admitted while the user moves may be refused as unknown; sent again, it is admitted. What is so already changes and records nothing. For the console and admins. Refuses: as recognise(), not_found (user, org), conflict (the address is taken, or the last admin would be shut out). Locks the new org against its end, the old one where keys of the user have been rotated, then the user and, when he moves, his keys.';


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
  perform tollgate.one_by_one();
  perform from tollgate.orgs o
  where o.id = (select u.org_id from tollgate.users u where u.id = tollgate_delete_user.user_id)
  for no key update;
  select u.* into person from tollgate.users u
  where u.id = tollgate_delete_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.not_there('user', user_id);
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
  perform tollgate.record(actor, 'user.deleted', person.org_id, person.id, jsonb_build_object(
    'email', person.email, 'name', person.name, 'role', person.role, 'keys_revoked', revoked
  ));
  if person.role = 'admin' then
    perform tollgate.keep_an_admin();
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', person.id, 'deleted', true, 'keys_revoked', revoked
  );
end
$$;

comment on function public.tollgate_delete_user(jsonb, text) is
  'Deletes a user: all keys are revoked, the address is free again, and a nameless row stays for what points at it. Credits are the org''s and stay there. For the console and admins. Refuses: as recognise(), not_found, conflict (the last admin would be shut out). Locks the org, then the user and his keys.';


-- Plans.

create function tollgate.plan_shown(plan tollgate.plans) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', plan.id,
    'name', plan.name,
    'description', plan.description,
    'markup', trim_scale(plan.markup_ppm / 1000000.0),
    'limits', jsonb_build_object(
      'requests_per_minute', plan.requests_per_minute,
      'requests_per_hour', plan.requests_per_hour,
      'requests_per_day', plan.requests_per_day,
      'tokens_per_minute', plan.tokens_per_minute,
      'tokens_per_hour', plan.tokens_per_hour,
      'tokens_per_day', plan.tokens_per_day
    ),
    'orgs', (select count(*) from tollgate.orgs o where o.plan_id = plan.id),
    'created_at', tollgate.utc(plan.created_at),
    'updated_at', tollgate.utc(plan.updated_at)
  )
$$;

comment on function tollgate.plan_shown(tollgate.plans) is 'A plan as operators see it. `orgs` counts those that are on it.';


create function tollgate.plan_with(plan tollgate.plans, changes jsonb) returns tollgate.plans
language plpgsql
immutable
set search_path = ''
as $$
declare
  limits jsonb := case jsonb_typeof(changes -> 'limits') when 'object' then changes -> 'limits' else '{}' end;
  changed tollgate.plans := jsonb_populate_record(plan, limits);
begin
  changed.name := coalesce(changes ->> 'name', plan.name);
  changed.description := coalesce(changes ->> 'description', plan.description, '');
  if changes ? 'markup_ppm' then
    changed.markup_ppm := (changes ->> 'markup_ppm')::integer;
  end if;
  return changed;
end
$$;

comment on function tollgate.plan_with(tollgate.plans, jsonb) is
  'The plan as a change leaves it: of the limits those it names, a null being no limit.';


create function public.tollgate_plans(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.listed(
    'tollgate.plans',
    'tollgate.plan_shown',
    $where$
      $1 ->> 'q' is null or position(lower($1 ->> 'q') in e.id) > 0
        or position(lower($1 ->> 'q') in lower(e.name)) > 0
    $where$,
    '{"id": "e.id", "name": "lower(e.name)", "created_at": "e.created_at"}',
    '{"sort": "id:asc"}'::jsonb || filters,
    page_size
  );
end
$$;

comment on function public.tollgate_plans(jsonb, jsonb, integer) is
  'Plans by pages. `filters`: q (part of the id or name), sort (id, name, created_at), cursor. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_plan(caller jsonb, plan_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  plan tollgate.plans;
begin
  select p.* into plan from tollgate.plans p where p.id = tollgate_plan.plan_id;
  if not found then
    perform tollgate.not_there('plan', plan_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(plan);
end
$$;

comment on function public.tollgate_plan(jsonb, text) is
  'One plan. For admins. Refuses: as recognise(), not_found. Locks nothing.';


create function public.tollgate_create_plan(caller jsonb, plan jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made tollgate.plans := tollgate.plan_with(null, plan);
begin
  insert into tollgate.plans (
    id, name, description, markup_ppm,
    requests_per_minute, requests_per_hour, requests_per_day,
    tokens_per_minute, tokens_per_hour, tokens_per_day
  ) values (
    plan ->> 'id', made.name, made.description, made.markup_ppm,
    made.requests_per_minute, made.requests_per_hour, made.requests_per_day,
    made.tokens_per_minute, made.tokens_per_hour, made.tokens_per_day
  )
  on conflict (id) do nothing
  returning * into made;
  if not found then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('reason', 'id_taken', 'param', 'id', 'id', plan ->> 'id'));
  end if;
  perform tollgate.record(actor, 'plan.created', null, made.id, plan - 'id');
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(made);
end
$$;

comment on function public.tollgate_create_plan(jsonb, jsonb) is
  'Makes a plan. `plan` holds id, name and perhaps description, markup_ppm, limits. For the console and admins. Refuses: as recognise(), conflict (the id is taken). Locks nothing that exists.';


create function public.tollgate_update_plan(caller jsonb, plan_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  was tollgate.plans;
  plan tollgate.plans;
  details jsonb;
  followers text[];
begin
  perform tollgate.one_by_one();
  select p.* into was from tollgate.plans p where p.id = tollgate_update_plan.plan_id;
  if not found then
    perform tollgate.not_there('plan', plan_id);
  end if;
  plan := tollgate.plan_with(was, changes);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(plan));
  if details <> '{}' then
    followers := array(
      select o.id from tollgate.orgs o
      where o.plan_id = was.id and not o.limits_set is null
      order by o.id
      for no key update
    );
    update tollgate.plans p set
      name = plan.name,
      description = plan.description,
      markup_ppm = plan.markup_ppm,
      requests_per_minute = plan.requests_per_minute,
      requests_per_hour = plan.requests_per_hour,
      requests_per_day = plan.requests_per_day,
      tokens_per_minute = plan.tokens_per_minute,
      tokens_per_hour = plan.tokens_per_hour,
      tokens_per_day = plan.tokens_per_day,
      updated_at = now()
    where p.id = was.id
    returning * into plan;
    update tollgate.orgs o set limits = tollgate.in_force(o.limits_set, plan)
    where o.id = any (followers);
    perform tollgate.record(actor, 'plan.updated', null, plan.id, details);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(plan);
end
$$;

comment on function public.tollgate_update_plan(jsonb, text, jsonb) is
  'Changes a plan: name, description, markup_ppm (null is the setting MARKUP), limits (those it names; a null is none). It holds for the next admission of each org that follows it. What is so already changes and records nothing. For the console and admins. Refuses: as recognise(), not_found. Locks, in id order, the orgs that follow the plan in part, then the plan.';


create function public.tollgate_delete_plan(caller jsonb, plan_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  plan tollgate.plans;
  users_of_it bigint;
begin
  perform tollgate.one_by_one();
  select p.* into plan from tollgate.plans p where p.id = tollgate_delete_plan.plan_id for update;
  if not found then
    perform tollgate.not_there('plan', plan_id);
  end if;
  select count(*) into users_of_it from tollgate.orgs o where o.plan_id = plan.id;
  if users_of_it > 0 or plan.id in ('free', 'pro', 'enterprise') then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', case when users_of_it > 0 then 'in_use' else 'built_in' end,
      'plan', plan.id,
      'orgs', users_of_it
    ));
  end if;
  delete from tollgate.plans p where p.id = plan.id;
  perform tollgate.record(actor, 'plan.deleted', null, plan.id, to_jsonb(plan) - 'id');
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', plan.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_plan(jsonb, text) is
  'Deletes a plan that no org is on. For the console and admins. Refuses: as recognise(), not_found, conflict while orgs are on it, and for free, pro and enterprise, on which new orgs are made. Locks the plan.';


create function tollgate.org_of(subject jsonb) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  org_id text := subject ->> 'org_id';
begin
  if subject ->> 'user_id' is not null then
    select u.org_id into org_id from tollgate.users u where u.id = subject ->> 'user_id' and u.deleted_at is null;
    if not found then
      perform tollgate.not_there('user', subject ->> 'user_id');
    end if;
  end if;
  return org_id;
end
$$;

comment on function tollgate.org_of(jsonb) is 'The org that `subject` names: itself as org_id, or one of its users as user_id.';


create function public.tollgate_assign_plan(caller jsonb, subject jsonb, plan text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  changes constant jsonb := jsonb_build_object('plan', plan);
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.org_shown(tollgate.change_org(actor, tollgate.org_of(subject), changes));
end
$$;

comment on function public.tollgate_assign_plan(jsonb, jsonb, text) is
  'Puts an org, or the org of a user, on a plan. Limits and markup of its own stay. For the console and admins. Refuses: as recognise() and change_org(), not_found (user). Locks as change_org().';


-- Limits of orgs and keys.

create function tollgate.limits_of(org tollgate.orgs) returns tollgate.limits
language sql
stable
set search_path = ''
as $$
  select coalesce(org.limits, row(
    p.requests_per_minute, p.requests_per_hour, p.requests_per_day,
    p.tokens_per_minute, p.tokens_per_hour, p.tokens_per_day
  )::tollgate.limits)
  from tollgate.plans p where p.id = org.plan_id
$$;

comment on function tollgate.limits_of(tollgate.orgs) is 'The limits that admission holds an org to: its own, or its plan''s.';


create function tollgate.limits_told(org_id text, key_id text) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  org tollgate.orgs;
  key tollgate.api_keys;
  of_key jsonb;
  of_org jsonb; -- what an operator set for it
  of_both jsonb; -- with what it takes from its plan, as admissions read it
begin
  if key_id is not null then
    select k.* into key from tollgate.api_keys k where k.id = limits_told.key_id;
    if not found then
      perform tollgate.not_there('key', key_id);
    end if;
    of_key := tollgate.limits_shown(key.limits);
  end if;
  select o.* into org from tollgate.orgs o where o.id = coalesce(key.org_id, limits_told.org_id);
  if not found then
    perform tollgate.not_there('org', org_id);
  end if;
  of_org := tollgate.limits_shown(coalesce(org.limits_set, org.limits));
  of_both := to_jsonb(tollgate.limits_of(org));

  return jsonb_build_object(
    'org_id', org.id,
    'key_id', key.id,
    'plan', org.plan_id,
    'limits', coalesce(of_key, of_org),
    'in_effect', (
      select jsonb_object_agg(name, jsonb_build_object(
        'limit', least((of_key ->> name)::bigint, (of_both ->> name)::bigint),
        'set_by', case
          when (of_key ->> name)::bigint <= coalesce((of_both ->> name)::bigint, (of_key ->> name)::bigint) then 'key'
          when of_both ->> name is null then null
          when of_org ->> name is null then 'plan'
          else 'org'
        end
      ))
      from jsonb_object_keys(of_org) name
    )
  );
end
$$;

comment on function tollgate.limits_told(text, text) is
  'The limits set for a key or, without one, for an org; and for each of the six the one that binds first, and who set it. Refuses: not_found.';


create function public.tollgate_limits_of(caller jsonb, subject jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_told(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_limits_of(jsonb, jsonb) is
  'The limits of what `subject` names: an org_id, a user_id (whose org is meant) or a key_id. For admins. Refuses: as recognise(), not_found. Locks nothing.';


create function tollgate.change_limits(actor tollgate.caller, caller jsonb, subject jsonb, limits jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  changes constant jsonb := jsonb_build_object('limits', limits);
begin
  if subject ->> 'key_id' is not null then
    perform public.tollgate_change_key(caller, subject ->> 'key_id', changes, 'admin');
  else
    perform tollgate.change_org(actor, tollgate.org_of(subject), changes);
  end if;
end
$$;

comment on function tollgate.change_limits(tollgate.caller, jsonb, jsonb, jsonb) is
  'Changes the limits of an org, of the org of a user, or of a key, as any other change of an org or key. Refuses and locks as change_org() or tollgate_change_key(), which a later migration makes.';


create function public.tollgate_set_limits(caller jsonb, subject jsonb, limits jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  perform tollgate.change_limits(actor, caller, subject, limits);
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_told(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_set_limits(jsonb, jsonb, jsonb) is
  'Sets limits of an org (a null follows its plan), of a user''s org, or of a key within its org (a null is none). They bind the next admission; what was counted so far counts. For the console and admins. Refuses: as recognise(), not_found (org, user), and for a key as tollgate_change_key(). Locks as change_org() or tollgate_change_key().';


create function public.tollgate_reset_limits(caller jsonb, subject jsonb, counters boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  reset text;
begin
  perform tollgate.change_limits(actor, caller, subject, null);
  if counters and subject ->> 'key_id' is not null then
    update tollgate.api_keys k set counters = null
    where k.id = subject ->> 'key_id' and k.counters is not null
    returning k.org_id into reset;
  elsif counters then
    update tollgate.orgs o set counters = null
    where o.id = tollgate.org_of(subject) and o.counters is not null
    returning o.id into reset;
  end if;
  if reset is not null then
    perform tollgate.record(actor, 'limits.reset', reset, coalesce(subject ->> 'key_id', reset), '{"counters": true}');
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_told(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_reset_limits(jsonb, jsonb, boolean) is
  'Takes away the limits that were set for an org, the org of a user, or a key; with `counters`, its windows begin anew as well. For the console and admins. Refuses: as recognise(), not_found (org, user), and for a key as tollgate_change_key(). Locks as change_org() or tollgate_change_key().';


select tollgate.expose('public.tollgate_orgs(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_org(jsonb, text)');
select tollgate.expose('public.tollgate_create_org(jsonb, jsonb)');
select tollgate.expose('public.tollgate_update_org(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_delete_org(jsonb, text)');
select tollgate.expose('public.tollgate_users(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_user(jsonb, text)');
select tollgate.expose('public.tollgate_create_user(jsonb, jsonb)');
select tollgate.expose('public.tollgate_update_user(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_delete_user(jsonb, text)');
select tollgate.expose('public.tollgate_plans(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_plan(jsonb, text)');
select tollgate.expose('public.tollgate_create_plan(jsonb, jsonb)');
select tollgate.expose('public.tollgate_update_plan(jsonb, text, jsonb)');
select tollgate.expose('public.tollgate_delete_plan(jsonb, text)');
select tollgate.expose('public.tollgate_assign_plan(jsonb, jsonb, text)');
select tollgate.expose('public.tollgate_limits_of(jsonb, jsonb)');
select tollgate.expose('public.tollgate_set_limits(jsonb, jsonb, jsonb)');
select tollgate.expose('public.tollgate_reset_limits(jsonb, jsonb, boolean)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001300'
$$;

revoke execute on all functions in schema tollgate from public;
