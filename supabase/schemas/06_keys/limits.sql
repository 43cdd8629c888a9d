-- Limits of an org, a user, a key or a role, as an operator sees and sets them.

create function tollgate.limits_in_effect(subject jsonb) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  none constant tollgate.limits := null;
  key tollgate.api_keys;
  person tollgate.users;
  org tollgate.orgs;
  plan jsonb;
  by_role jsonb;
begin
  if subject ->> 'key_id' is not null then
    select k.* into key from tollgate.api_keys k where k.id = subject ->> 'key_id';
    if not found then
      perform tollgate.refuse_missing('key', subject ->> 'key_id');
    end if;
  end if;
  select u.* into person from tollgate.users u
  where u.id = coalesce(key.user_id, subject ->> 'user_id') and (u.deleted_at is null or key.id is not null);
  if not found and subject ->> 'user_id' is not null then
    perform tollgate.refuse_missing('user', subject ->> 'user_id');
  end if;
  select o.* into org from tollgate.orgs o where o.id = coalesce(person.org_id, subject ->> 'org_id');
  if not found and subject ->> 'role' is null then
    perform tollgate.refuse_missing('org', subject ->> 'org_id');
  end if;
  plan := (select to_jsonb(p) from tollgate.plans p where p.id = org.plan_id);
  by_role := (
    select to_jsonb(r.limits) from tollgate.role_limits r where r.role = coalesce(person.role, subject ->> 'role')
  );

  return jsonb_build_object(
    'org_id', org.id,
    'user_id', person.id,
    'key_id', key.id,
    'role', subject ->> 'role',
    'plan', org.plan_id,
    'limits', tollgate.limits_shown(case
      when key.id is not null then key.limits
      when person.id is not null then person.limits_set
      when org.id is not null then coalesce(org.limits_set, org.limits)
      else (select r.limits from tollgate.role_limits r where r.role = subject ->> 'role')
    end),
    'in_effect', (
      select jsonb_object_agg(name, coalesce((
        select jsonb_build_object('limit', l.most, 'set_by', l.set_by)
        from (values
          (1, 'key', (to_jsonb(key.limits) ->> name)::bigint),
          (2, 'user', (to_jsonb(person.limits_set) ->> name)::bigint),
          (3, 'role', case when to_jsonb(person.limits_set) ->> name is null then (by_role ->> name)::bigint end),
          (4, 'org', (to_jsonb(coalesce(org.limits_set, org.limits)) ->> name)::bigint),
          (5, 'plan', case when to_jsonb(org.limits_set) ->> name is null then (plan ->> name)::bigint end)
        ) l (place, set_by, most)
        where l.most is not null
        order by l.most, l.place
        limit 1
      ), '{"limit": null, "set_by": null}'))
      from jsonb_object_keys(tollgate.limits_shown(none)) name
    )
  );
end
$$;

comment on function tollgate.limits_in_effect(jsonb) is
  'The limits set for an org, a user, a key or a role; and for each of the six the lowest that applies to it, and what set it: the key, its user, the user''s role, the org or its plan. Refuses: not_found.';


create function tollgate.change_limits(
  actor tollgate.caller,
  caller jsonb,
  subject jsonb,
  limits jsonb,
  counters boolean default false
) returns void
language plpgsql
set search_path = ''
as $$
declare
  changes constant jsonb := jsonb_build_object('limits', limits);
  reset text;
begin
  if subject ->> 'key_id' is not null then
    perform public.tollgate_change_key(caller, subject ->> 'key_id', changes, 'admin');
    update tollgate.api_keys k set counters = null
    where change_limits.counters and k.id = subject ->> 'key_id' and k.counters is not null
    returning k.org_id into reset;
  elsif subject ->> 'org_id' is not null then
    perform tollgate.change_org(actor, subject ->> 'org_id', changes);
    update tollgate.orgs o set counters = null
    where change_limits.counters and o.id = subject ->> 'org_id' and o.counters is not null
    returning o.id into reset;
  else
    perform tollgate.lock_people();
    if subject ->> 'user_id' is not null then
      perform tollgate.change_user_limits(actor, subject ->> 'user_id', limits, counters);
    else
      perform tollgate.change_role_limits(actor, subject ->> 'role', limits);
    end if;
  end if;
  if reset is not null then
    perform tollgate.record(actor, 'limits.reset', reset, coalesce(subject ->> 'key_id', reset), '{"counters": true}');
  end if;
end
$$;

comment on function tollgate.change_limits(tollgate.caller, jsonb, jsonb, jsonb, boolean) is
  'Changes the limits of an org, a user, a key or a role; with `counters`, the windows of an org, a user or a key start from zero. Refuses and locks as change_org(), change_user_limits(), tollgate_change_key() or change_role_limits().';


create function public.tollgate_limits_of(caller jsonb, subject jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(subject);
end
$$;

comment on function public.tollgate_limits_of(jsonb, jsonb) is
  'The limits of the subject: an org_id, a user_id, a key_id or a role. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_limits_of(jsonb, jsonb)');


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
    || tollgate.limits_in_effect(subject);
end
$$;

comment on function public.tollgate_set_limits(jsonb, jsonb, jsonb) is
  'Sets limits of an org (null follows the plan), a user (null follows the role), a key or a role (null is no limit). They apply from the next admission on; those of an org also to what was counted before. For the console and admins. Refuses and locks as recognise() and change_limits().';

select tollgate.expose('public.tollgate_set_limits(jsonb, jsonb, jsonb)');


create function public.tollgate_reset_limits(caller jsonb, subject jsonb, counters boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  perform tollgate.change_limits(actor, caller, subject, null, counters);
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(subject);
end
$$;

comment on function public.tollgate_reset_limits(jsonb, jsonb, boolean) is
  'Removes the limits that were set for an org, a user, a key or a role; with `counters`, its windows start from zero as well. For the console and admins. Refuses and locks as recognise() and change_limits().';

select tollgate.expose('public.tollgate_reset_limits(jsonb, jsonb, boolean)');
