-- Changes of an org, and of its plan.
--
-- Changes of orgs, users and plans run one at a time: each takes an advisory lock, which requests do not take.
-- Lock order: the advisory lock, orgs in id order, plan, user, key.

create function tollgate.check_admin_remains() returns void
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

comment on function tollgate.check_admin_remains() is
  'Refuses a change that leaves no working admin: an active one, in an active org, with a working key of scope admin. Called after the change, which the refusal rolls back.';


create function tollgate.org_with(was tollgate.orgs, changes jsonb) returns tollgate.orgs
language plpgsql
stable
set search_path = ''
as $$
declare
  nullable constant text[] :=
    array['markup_ppm', 'byok_fee_nanos', 'max_concurrent_requests', 'allowed_models', 'default_model'];
  org tollgate.orgs;
begin
  org := tollgate.with_fields(
    was,
    coalesce((select jsonb_object_agg(c.key, c.value) from jsonb_each(changes) c where c.key = any (nullable)), '{}'),
    nullable
  );
  org.name := coalesce(changes ->> 'name', was.name);
  org.status := coalesce(changes ->> 'status', was.status);
  org.plan_id := coalesce(changes ->> 'plan', was.plan_id);
  org.cache := coalesce((changes ->> 'cache')::boolean, was.cache);
  if changes ? 'limits' then
    org.limits_set := tollgate.limits_with(was.limits_set, changes -> 'limits');
  end if;
  if changes ->> 'paid_calls' = 'active' then
    org.paid_suspended_at := null;
    org.paid_suspended_reason := null;
    org.quarantined_at := null;
  elsif changes ->> 'paid_calls' = 'suspended' and was.paid_suspended_at is null then
    org.paid_suspended_at := now();
    org.paid_suspended_reason := 'operator';
  end if;
  return org;
end
$$;

comment on function tollgate.org_with(tollgate.orgs, jsonb) is
  'The org with the changes. Refuses: as with_fields().';


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
  perform tollgate.lock_people();
  select o.* into was from tollgate.orgs o where o.id = change_org.org_id for no key update;
  if not found then
    perform tollgate.refuse_missing('org', org_id);
  end if;
  was.limits_set := coalesce(was.limits_set, was.limits);

  org := tollgate.org_with(was, changes);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(org));
  if details = '{}' then
    return was;
  end if;

  select p.* into plan from tollgate.plans p where p.id = org.plan_id for key share;
  if not found then
    perform tollgate.refuse_missing('plan', org.plan_id);
  end if;
  update tollgate.orgs o set
    name = org.name,
    status = org.status,
    plan_id = org.plan_id,
    markup_ppm = org.markup_ppm,
    byok_fee_nanos = org.byok_fee_nanos,
    limits_set = org.limits_set,
    limits = tollgate.in_force(org.limits_set, plan),
    max_concurrent_requests = org.max_concurrent_requests,
    cache = org.cache,
    quarantined_at = org.quarantined_at,
    paid_suspended_at = org.paid_suspended_at,
    paid_suspended_reason = org.paid_suspended_reason,
    allowed_models = org.allowed_models,
    default_model = org.default_model,
    updated_at = now()
  where o.id = was.id
  returning * into org;
  perform tollgate.record(actor, 'org.updated', was.id, was.id, details);
  if org.status <> 'active' and was.status = 'active' then
    perform tollgate.check_admin_remains();
  end if;
  return org;
end
$$;

comment on function tollgate.change_org(tollgate.caller, text, jsonb) is
  'Changes what `changes` names of an org: name, plan, status, markup_ppm and byok_fee_nanos (null follows the plan), limits (those it names; a null follows the plan), max_concurrent_requests (null follows the plan), cache, paid_calls (active, suspended), allowed_models (null is all), default_model (null is the setting). They apply from the next admission on. Repeating a change changes and records nothing. Refuses: as with_fields(), not_found (org, plan), conflict (no working admin would be left). Locks the advisory lock, the org, the plan.';


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
  'Changes an org. Suspending it stops its keys at once; open requests end as usual. For the console and admins. Refuses: as recognise() and change_org(). Locks as change_org().';

select tollgate.expose('public.tollgate_update_org(jsonb, text, jsonb)');


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

select tollgate.expose('public.tollgate_assign_plan(jsonb, jsonb, text)');
