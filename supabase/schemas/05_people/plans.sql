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
    'byok_fee_nanos', plan.byok_fee_nanos,
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
  if changes ? 'byok_fee_nanos' then
    changed.byok_fee_nanos := (changes ->> 'byok_fee_nanos')::bigint;
  end if;
  if changes ? 'max_concurrent_requests' then
    changed.max_concurrent_requests := (changes ->> 'max_concurrent_requests')::bigint;
  end if;
  return changed;
end
$$;

comment on function tollgate.plan_with(tollgate.plans, jsonb) is
  'The plan after a change. It changes only the limits that it names; null is no limit.';


create function public.tollgate_create_plan(caller jsonb, plan jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made tollgate.plans;
begin
  made.id := plan ->> 'id';
  made := tollgate.plan_with(made, plan);
  insert into tollgate.plans (
    id, name, description, markup_ppm, byok_fee_nanos, max_concurrent_requests,
    requests_per_minute, requests_per_hour, requests_per_day,
    tokens_per_minute, tokens_per_hour, tokens_per_day
  ) values (
    made.id, made.name, made.description, made.markup_ppm, made.byok_fee_nanos, made.max_concurrent_requests,
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
  'Creates a plan. `plan` holds id, name and perhaps description, markup_ppm, byok_fee_nanos, limits, max_concurrent_requests. For the console and admins. Refuses: as recognise(), conflict (the id is taken). Locks nothing that exists.';

select tollgate.expose('public.tollgate_create_plan(jsonb, jsonb)');


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
  perform tollgate.lock_people();
  select p.* into was from tollgate.plans p where p.id = tollgate_update_plan.plan_id;
  if not found then
    perform tollgate.refuse_missing('plan', plan_id);
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
      byok_fee_nanos = plan.byok_fee_nanos,
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
  'Changes a plan: name, description, markup_ppm (null is the setting MARKUP), byok_fee_nanos (null is the setting BYOK_FEE), limits (those it names; null is no limit), max_concurrent_requests (null is no bound). It applies from the next admission of each org on the plan. Repeating a change changes and records nothing. For the console and admins. Refuses: as recognise(), not_found. Locks the orgs on the plan that set limits of their own, in id order, then the plan.';

select tollgate.expose('public.tollgate_update_plan(jsonb, text, jsonb)');


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
  perform tollgate.lock_people();
  select p.* into plan from tollgate.plans p where p.id = tollgate_delete_plan.plan_id for update;
  if not found then
    perform tollgate.refuse_missing('plan', plan_id);
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
  'Deletes a plan that no org is on. For the console and admins. Refuses: as recognise(), not_found, conflict while orgs are on it, and for the built-in free, pro and enterprise. Locks the plan.';

select tollgate.expose('public.tollgate_delete_plan(jsonb, text)');


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
    perform tollgate.refuse_missing('plan', plan_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(plan);
end
$$;

comment on function public.tollgate_plan(jsonb, text) is
  'One plan. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_plan(jsonb, text)');


create function public.tollgate_plans(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.plans',
    'tollgate.plan_shown',
    $where$
      $1 ->> 'q' is null or position(lower($1 ->> 'q') in e.id) > 0
        or position(lower($1 ->> 'q') in lower(e.name)) > 0
    $where$,
    '{"id": "e.id", "name": "lower(e.name)", "created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'id:asc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_plans(jsonb, jsonb, integer) is
  'Plans by pages. `filters`: q (part of the id or name), sort (id, name, created_at), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_plans(jsonb, jsonb, integer)');
