-- Usage as JSON.

create function tollgate.group_id(start timestamptz, org_id text, user_id text, key_id text, model text, upstream text) returns text
language sql
immutable
set search_path = ''
as $$
  select md5(jsonb_build_array(start, org_id, user_id, key_id, model, upstream)::text)
$$;

comment on function tollgate.group_id(timestamptz, text, text, text, text, text) is 'The cursor of a group of usage.';


create function tollgate.group_shown(u tollgate.usage, groups text[], everyone boolean) returns jsonb
language sql
stable
set search_path = ''
as $$
  select (
    select jsonb_object_agg(d.name, d.value)
    from (values
      ('day', 'start', tollgate.utc(u.start)),
      ('month', 'start', tollgate.utc(u.start)),
      ('org', 'org_id', u.org_id),
      ('org', 'org_name', (select o.name from tollgate.orgs o where o.id = u.org_id)),
      ('user', 'user_id', u.user_id),
      ('user', 'user_email', (select p.email from tollgate.users p where p.id = u.user_id)),
      ('key', 'key_id', u.key_id),
      ('key', 'key_name', (select k.name from tollgate.api_keys k where k.id = u.key_id)),
      ('model', 'model', u.model),
      ('upstream', 'upstream', u.upstream)
    ) d (of_group, name, value)
    where d.of_group = any (groups)
  ) || tollgate.measures(u, everyone) || jsonb_build_object('last_request_at', tollgate.utc(u.last_at))
$$;

comment on function tollgate.group_shown(tollgate.usage, text[], boolean) is
  'A group of usage, with the names of what it is grouped by.';


create function tollgate.measures(used tollgate.usage, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'errors', coalesce(used.errors, 0),
    'streamed', coalesce(used.streamed, 0),
    'estimated', coalesce(used.estimated, 0),
    'prompt_tokens', coalesce(used.prompt_tokens, 0),
    'completion_tokens', coalesce(used.completion_tokens, 0),
    'cached_tokens', coalesce(used.cached_tokens, 0),
    'reasoning_tokens', coalesce(used.reasoning_tokens, 0),
    'charge_nanos', m.charge
  ) || case when everyone then jsonb_build_object(
    'cost_nanos', m.cost,
    'margin_nanos', m.charge - m.cost
  ) else '{}' end
  from (select coalesce(used.charge_nanos, 0) as charge, coalesce(used.cost_nanos, 0) as cost) m
$$;

comment on function tollgate.measures(tollgate.usage, boolean) is
  'What was used, as answers show it, zeros for none; cost and margin only where it is everyone''s.';


create function tollgate.used(used tollgate.usage) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'tokens', coalesce(used.prompt_tokens + used.completion_tokens, 0),
    'charge_nanos', coalesce(used.charge_nanos, 0)
  )
$$;

comment on function tollgate.used(tollgate.usage) is 'What was used, as a summary.';


create function tollgate.own_or_all(actor tollgate.caller, filters jsonb, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when everyone then filters else filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')) end
$$;

comment on function tollgate.own_or_all(tollgate.caller, jsonb, boolean) is
  'The filters, limited to the caller''s own org unless everyone''s are asked for.';


create function tollgate.used_since(since timestamptz, filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(sum(u.requests), 0),
    'errors', coalesce(sum(u.errors), 0),
    'prompt_tokens', coalesce(sum(u.prompt_tokens), 0),
    'completion_tokens', coalesce(sum(u.completion_tokens), 0),
    'charge_nanos', coalesce(sum(u.charge_nanos), 0),
    'cost_nanos', coalesce(sum(u.cost_nanos), 0),
    'most_used_model', (array_agg(u.model order by u.requests desc, u.model))[1],
    'last_request_at', tollgate.utc(max(u.last_at))
  )
  from tollgate.usage_by('{model}', since, null, filters) u
$$;

comment on function tollgate.used_since(timestamptz, jsonb) is
  'What was used from a moment on (null is the beginning), the model with the most requests, and the time of the last request.';
