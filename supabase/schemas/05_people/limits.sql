-- The limits of an org: its own, and its plan's.

create function tollgate.in_force(chosen tollgate.limits, plan tollgate.plans) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  -- `not … is null` is true when any of the six is set; `is not null` only when all are.
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
  'The limits of an org in force: its own, and the plan''s for those that it does not set. Null when it sets none.';


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
  'The limits after a change: it replaces those that it names, and a null removes one; null in place of the object removes all.';


create function tollgate.limits_shown(limits tollgate.limits) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select to_jsonb(coalesce(limits, row(null, null, null, null, null, null)::tollgate.limits))
$$;

comment on function tollgate.limits_shown(tollgate.limits) is 'The six limits by name, null where none is set.';


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

comment on function tollgate.limits_of(tollgate.orgs) is 'The limits that admission applies to an org: its own, or its plan''s.';


create function tollgate.bound_of(org tollgate.orgs) returns bigint
language sql
stable
set search_path = ''
as $$
  select coalesce(org.max_concurrent_requests, p.max_concurrent_requests)
  from tollgate.plans p where p.id = org.plan_id
$$;

comment on function tollgate.bound_of(tollgate.orgs) is
  'How many requests admission lets the org have open at once: its own bound, or its plan''s.';
