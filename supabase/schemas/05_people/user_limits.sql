-- The limits of a user: its own, and its role's. They bound all keys of the user together.

create function tollgate.counted_so_far(key_ids text[]) returns tollgate.counters
language plpgsql
stable
set search_path = ''
as $$
declare
  counters tollgate.counters;
  running record;
begin
  for running in
    select tollgate.ms_of(r.created_at) as at_ms, r.reserved_tokens as tokens
    from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (key_ids)
    order by r.created_at
  loop
    counters := tollgate.take(counters, running.at_ms, 1, running.tokens);
  end loop;
  return counters;
end
$$;

comment on function tollgate.counted_so_far(text[]) is
  'Windows with the open requests of some keys, for when their counting begins. Expects the org to be locked.';


create function tollgate.user_limits_in_force() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  by_role tollgate.limits := (select r.limits from tollgate.role_limits r where r.role = new.role);
  limits tollgate.limits := row(
    coalesce((new.limits_set).requests_per_minute, by_role.requests_per_minute),
    coalesce((new.limits_set).requests_per_hour, by_role.requests_per_hour),
    coalesce((new.limits_set).requests_per_day, by_role.requests_per_day),
    coalesce((new.limits_set).tokens_per_minute, by_role.tokens_per_minute),
    coalesce((new.limits_set).tokens_per_hour, by_role.tokens_per_hour),
    coalesce((new.limits_set).tokens_per_day, by_role.tokens_per_day)
  );
begin
  if new.limits is null and not limits is null then
    new.counters := tollgate.counted_so_far(array(select k.id from tollgate.api_keys k where k.user_id = new.id));
  end if;
  new.limits := case when not limits is null then limits end;
  return new;
end
$$;

comment on function tollgate.user_limits_in_force() is
  'Trigger: the limits of a user in force follow limits_set and the role. When the first is set, the user''s open requests are counted, because settling will correct them. Expects the org to be locked.';

create trigger users_limits_in_force
before insert or update of role, limits_set on tollgate.users
for each row
execute function tollgate.user_limits_in_force();


create function tollgate.change_role_limits(actor tollgate.caller, role text, limits jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  was tollgate.limits := (select r.limits from tollgate.role_limits r where r.role = change_role_limits.role);
  now_is tollgate.limits := tollgate.limits_with(null, limits);
begin
  if was is not distinct from now_is then
    return;
  end if;
  perform from tollgate.orgs o
  where o.id in (select u.org_id from tollgate.users u where u.role = change_role_limits.role)
  order by o.id
  for no key update;
  if now_is is null then
    delete from tollgate.role_limits r where r.role = change_role_limits.role;
  else
    insert into tollgate.role_limits values (role, now_is)
    on conflict on constraint role_limits_pkey do update set limits = excluded.limits;
  end if;
  update tollgate.users u set limits_set = u.limits_set where u.role = change_role_limits.role;
  perform tollgate.record(actor, 'role.updated', null, role, tollgate.what_changed(
    jsonb_build_object('limits', to_jsonb(was)), jsonb_build_object('limits', to_jsonb(now_is))
  ));
end
$$;

comment on function tollgate.change_role_limits(tollgate.caller, text, jsonb) is
  'Sets the six limits of each user of a role; null removes them. They apply from the next admission on. Repeating a change changes and records nothing. Expects lock_people(). Locks the orgs that have such users, in id order, then the users.';


create function tollgate.change_user_limits(actor tollgate.caller, user_id text, limits jsonb, counters boolean)
returns void
language plpgsql
set search_path = ''
as $$
declare
  was tollgate.users;
  person tollgate.users;
begin
  perform from tollgate.orgs o
  where o.id = (select u.org_id from tollgate.users u where u.id = change_user_limits.user_id)
  for no key update;
  select u.* into was from tollgate.users u
  where u.id = change_user_limits.user_id and u.deleted_at is null
  for no key update;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;
  person := was;
  person.limits_set := tollgate.limits_with(was.limits_set, limits);
  if was.limits_set is distinct from person.limits_set then
    update tollgate.users u set limits_set = person.limits_set, updated_at = now() where u.id = was.id;
    perform tollgate.record(actor, 'user.updated', was.org_id, was.id,
      tollgate.what_changed(to_jsonb(was), to_jsonb(person)));
  end if;
  if change_user_limits.counters and not was.counters is null then
    update tollgate.users u set counters = null where u.id = was.id;
    perform tollgate.record(actor, 'limits.reset', was.org_id, was.id, '{"counters": true}');
  end if;
end
$$;

comment on function tollgate.change_user_limits(tollgate.caller, text, jsonb, boolean) is
  'Sets the limits of a user that `limits` names; null removes all. With `counters`, the user''s windows start from zero. They apply from the next admission on. Repeating a change changes and records nothing. Expects lock_people(). Refuses: not_found. Locks the org, then the user.';
