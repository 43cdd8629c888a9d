-- Why:  operators set how many requests an org may have open at once, and end the suspension of its paid calls.
-- What: max_concurrent_requests in the functions of plans and orgs; paid_calls of orgs.
-- Care: replaces functions by wider ones. Code that is older does not look at the new fields.

set lock_timeout = '1s';


create or replace function tollgate.org_shown(org tollgate.orgs) returns jsonb
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
    'max_concurrent_requests', org.max_concurrent_requests,
    'open_requests', org.open_requests,
    'paid_calls', case when org.paid_suspended_at is null then 'active' else 'suspended' end,
    'paid_suspended_at', tollgate.utc(org.paid_suspended_at),
    'paid_suspended_reason', org.paid_suspended_reason,
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


create or replace function tollgate.change_org(actor tollgate.caller, org_id text, changes jsonb) returns tollgate.orgs
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
  if changes ? 'max_concurrent_requests' then
    org.max_concurrent_requests := (changes ->> 'max_concurrent_requests')::bigint;
  end if;
  if changes ->> 'paid_calls' = 'active' then
    org.paid_suspended_at := null;
    org.paid_suspended_reason := null;
    org.quarantined_at := null;
  elsif changes ->> 'paid_calls' = 'suspended' and was.paid_suspended_at is null then
    org.paid_suspended_at := now();
    org.paid_suspended_reason := 'operator';
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
    max_concurrent_requests = org.max_concurrent_requests,
    quarantined_at = org.quarantined_at,
    paid_suspended_at = org.paid_suspended_at,
    paid_suspended_reason = org.paid_suspended_reason,
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
  'Changes what `changes` names of an org: name, plan, status, markup_ppm (null follows the plan), limits (those it names; a null follows the plan), max_concurrent_requests (null follows the plan), paid_calls (active, suspended). They hold for the next admission. What is so already changes and records nothing. Refuses: not_found (org, plan), conflict (the last admin would be shut out). Locks as said above, the org among it.';


create or replace function tollgate.plan_shown(plan tollgate.plans) returns jsonb
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
    'max_concurrent_requests', plan.max_concurrent_requests,
    'orgs', (select count(*) from tollgate.orgs o where o.plan_id = plan.id),
    'created_at', tollgate.utc(plan.created_at),
    'updated_at', tollgate.utc(plan.updated_at)
  )
$$;

comment on function tollgate.plan_shown(tollgate.plans) is 'A plan as operators see it. `orgs` counts those that are on it.';


create or replace function tollgate.plan_with(plan tollgate.plans, changes jsonb) returns tollgate.plans
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
  if changes ? 'max_concurrent_requests' then
    changed.max_concurrent_requests := (changes ->> 'max_concurrent_requests')::bigint;
  end if;
  return changed;
end
$$;

comment on function tollgate.plan_with(tollgate.plans, jsonb) is
  'The plan as a change leaves it: of the limits those it names, a null being no limit.';


create or replace function public.tollgate_create_plan(caller jsonb, plan jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made tollgate.plans := tollgate.plan_with(null, plan);
begin
  insert into tollgate.plans (
    id, name, description, markup_ppm, max_concurrent_requests,
    requests_per_minute, requests_per_hour, requests_per_day,
    tokens_per_minute, tokens_per_hour, tokens_per_day
  ) values (
    plan ->> 'id', made.name, made.description, made.markup_ppm, made.max_concurrent_requests,
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
  'Makes a plan. `plan` holds id, name and perhaps description, markup_ppm, limits, max_concurrent_requests. For the console and admins. Refuses: as recognise(), conflict (the id is taken). Locks nothing that exists.';


create or replace function public.tollgate_update_plan(caller jsonb, plan_id text, changes jsonb) returns jsonb
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
      max_concurrent_requests = plan.max_concurrent_requests,
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
  'Changes a plan: name, description, markup_ppm (null is the setting MARKUP), limits (those it names; a null is none), max_concurrent_requests (null is none). It holds for the next admission of each org that follows it. What is so already changes and records nothing. For the console and admins. Refuses: as recognise(), not_found. Locks, in id order, the orgs that follow the plan in part, then the plan.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000120'
$$;

revoke execute on all functions in schema tollgate from public;
