-- Orgs: create, show, list, delete.

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
    'byok_fee_nanos', org.byok_fee_nanos,
    'limits', tollgate.limits_shown(coalesce(org.limits_set, org.limits)),
    'max_concurrent_requests', org.max_concurrent_requests,
    'open_requests', org.open_requests,
    'allowed_models', to_jsonb(org.allowed_models),
    'default_model', org.default_model,
    'cache', coalesce(org.cache, false),
    'paid_calls', case when org.paid_suspended_at is null then 'active' else 'suspended' end,
    'paid_suspended_at', tollgate.utc(org.paid_suspended_at),
    'paid_suspended_reason', org.paid_suspended_reason,
    'credits_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos,
    'available_nanos', org.balance_nanos - org.held_nanos,
    'users', (select count(*) from tollgate.users u where u.org_id = org.id and u.deleted_at is null),
    'created_at', tollgate.utc(org.created_at),
    'updated_at', tollgate.utc(org.updated_at)
  )
$$;

comment on function tollgate.org_shown(tollgate.orgs) is 'An org as operators see it.';


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
      perform tollgate.refuse_missing('user', subject ->> 'user_id');
    end if;
  end if;
  return org_id;
end
$$;

comment on function tollgate.org_of(jsonb) is 'The org that `subject` names by org_id, or by the user_id of one of its users. Refuses: not_found (user).';


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
    perform tollgate.refuse_missing('plan', plan_id);
  end if;
  insert into tollgate.orgs (name, plan_id, markup_ppm)
  values (org ->> 'name', plan_id, (org ->> 'markup_ppm')::integer)
  returning * into made;
  perform tollgate.record(actor, 'org.created', made.id, made.id, org);
  return made;
end
$$;

comment on function tollgate.add_org(tollgate.caller, jsonb) is
  'Inserts an org and its audit event. `org` holds name, plan (free without it) and markup_ppm (that of the plan without it). Refuses: not_found (plan). Locks the plan against deletion.';


create function tollgate.others_named(org tollgate.orgs) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(o.id order by o.id), '[]')
  from (
    select n.id from tollgate.orgs n where lower(n.name) = lower(org.name) and n.id <> org.id order by n.id limit 10
  ) o
$$;

comment on function tollgate.others_named(tollgate.orgs) is
  'The ids of other orgs with the name of this one, case-insensitively, at most 10.';


create function public.tollgate_create_org(caller jsonb, org jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made constant tollgate.orgs := tollgate.add_org(actor, org);
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'same_name', tollgate.others_named(made))
    || tollgate.org_shown(made);
end
$$;

comment on function public.tollgate_create_org(jsonb, jsonb) is
  'Creates an org, and names the others of the same name. For the console and admins. Refuses: as recognise(), not_found (plan). Locks the plan against deletion.';

select tollgate.expose('public.tollgate_create_org(jsonb, jsonb)');


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
  perform tollgate.lock_people();
  select o.* into org from tollgate.orgs o where o.id = tollgate_delete_org.org_id for update;
  if not found then
    perform tollgate.refuse_missing('org', org_id);
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

  delete from tollgate.api_keys k where k.org_id = org.id; -- keys of deleted users, all revoked
  delete from tollgate.users u where u.org_id = org.id;
  delete from tollgate.orgs o where o.id = org.id;
  perform tollgate.record(actor, 'org.deleted', org.id, org.id,
    jsonb_build_object('name', org.name, 'plan', org.plan_id));
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', org.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_org(jsonb, text) is
  'Deletes an org. Its requests, transfers and audit events stay; its revoked keys are deleted. For the console and admins. Refuses: as recognise(), not_found, conflict while it has a balance (credits or debt), open holds or users. Locks the org for update, so a grant or an admission at the same moment either comes first and is seen, or finds no org.';

select tollgate.expose('public.tollgate_delete_org(jsonb, text)');


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
    perform tollgate.refuse_missing('org', org_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.org_shown(org);
end
$$;

comment on function public.tollgate_org(jsonb, text) is
  'One org. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_org(jsonb, text)');


create function public.tollgate_orgs(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.orgs',
    'tollgate.org_shown',
    $where$
      ($1 ->> 'q' is null or position(lower($1 ->> 'q') in lower(e.name)) > 0 or e.id = $1 ->> 'q')
      and ($1 ->> 'plan' is null or e.plan_id = $1 ->> 'plan')
      and ($1 ->> 'status' is null or e.status = $1 ->> 'status')
    $where$,
    '{"created_at": "e.created_at", "name": "lower(e.name)", "credits": "e.balance_nanos"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_orgs(jsonb, jsonb, integer) is
  'Orgs by pages. `filters`: q (part of the name, or the id), plan, status, sort (created_at, name, credits), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_orgs(jsonb, jsonb, integer)');
