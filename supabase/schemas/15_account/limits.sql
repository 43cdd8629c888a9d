-- The plan and the limits of the caller.

create function public.tollgate_own_plan(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'id', p.id,
      'name', p.name,
      'description', p.description,
      'org_id', o.id,
      'own_limits', o.limits is distinct from null,
      'limits', to_jsonb(tollgate.limits_of(o)),
      'max_concurrent_requests', tollgate.bound_of(o)
    )
    from tollgate.orgs o
    join tollgate.plans p on p.id = o.plan_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_own_plan(jsonb) is
  'The plan of the caller''s org, with the limits in force. It has no markup, which would tell what we paid. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_plan(jsonb)');


create function tollgate.limits_around(actor tollgate.caller, key tollgate.api_keys, moment timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'org', tollgate.windows(o.counters, tollgate.limits_of(o), tollgate.ms_of(moment))
      || jsonb_build_object('concurrent', tollgate.concurrent(tollgate.bound_of(o), o.open_requests)),
    'user', case when not u.limits is null then tollgate.windows(u.counters, u.limits, tollgate.ms_of(moment)) end,
    'key', case when key.counted or key.max_concurrent_requests is not null then
      tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment))
      || jsonb_build_object('concurrent', case when key.max_concurrent_requests is not null then
        tollgate.concurrent(key.max_concurrent_requests, key.open_requests)
      end)
    end
  )
  from tollgate.orgs o, tollgate.users u
  where o.id = actor.org_id and u.id = actor.user_id
$$;

comment on function tollgate.limits_around(tollgate.caller, tollgate.api_keys, timestamptz) is
  'The windows and open requests of the caller''s org, the windows of its user if that has limits, and those of the key if it has limits, a bound, a budget or a quota of its own; requests of other keys are counted for the org alone.';


create function public.tollgate_own_limits(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  moment constant timestamptz := clock_timestamp();
begin
  return (
    select tollgate.limits_around(actor, k, moment)
      || jsonb_build_object(
        'caller', tollgate.identity(actor),
        'at', tollgate.utc(moment),
        'models', jsonb_build_object(
          'default_model', o.default_model,
          'allowed_of_org', to_jsonb(o.allowed_models),
          'allowed_of_key', to_jsonb(k.allowed_models)
        )
      )
    from tollgate.orgs o
    left join tollgate.api_keys k on k.id = actor.key_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_own_limits(jsonb) is
  'What the limits of the caller''s org, user and key leave: see limits_around(); and its models: those that org and key may use (null is all), and the org''s default (null is the setting). Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_limits(jsonb)');
