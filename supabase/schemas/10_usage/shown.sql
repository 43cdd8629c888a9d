-- Usage as JSON.

create function tollgate.credits_of(nanos bigint) returns numeric
language sql
immutable
set search_path = ''
as $$
  select trim_scale(nanos / 1000000000.0)
$$;

comment on function tollgate.credits_of(bigint) is 'Nanos as credits, for people to read.';


create function tollgate.group_id(start timestamptz, org_id text, user_id text, key_id text, model text, upstream text) returns text
language sql
immutable
set search_path = ''
as $$
  select md5(jsonb_build_array(start, org_id, user_id, key_id, model, upstream)::text)
$$;

comment on function tollgate.group_id(timestamptz, text, text, text, text, text) is 'By what a cursor finds its place among groups.';


create function tollgate.measures(used tollgate.usage, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', used.requests,
    'errors', used.errors,
    'streamed', used.streamed,
    'estimated', used.estimated,
    'prompt_tokens', used.prompt_tokens,
    'completion_tokens', used.completion_tokens,
    'charge_nanos', used.charge_nanos,
    'charge_credits', tollgate.credits_of(used.charge_nanos)
  ) || case when everyone then jsonb_build_object(
    'cost_nanos', used.cost_nanos,
    'cost_credits', tollgate.credits_of(used.cost_nanos),
    'margin_nanos', used.charge_nanos - used.cost_nanos,
    'margin_credits', tollgate.credits_of(used.charge_nanos - used.cost_nanos)
  ) else '{}' end
$$;

comment on function tollgate.measures(tollgate.usage, boolean) is
  'What was used, as answers tell it; cost and margin only where it is everyone''s.';


create function tollgate.used(used tollgate.usage) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'tokens', coalesce(used.prompt_tokens + used.completion_tokens, 0),
    'charge_nanos', coalesce(used.charge_nanos, 0),
    'charge_credits', tollgate.credits_of(coalesce(used.charge_nanos, 0))
  )
$$;

comment on function tollgate.used(tollgate.usage) is 'What was used, in short.';


create function tollgate.own_or_all(actor tollgate.caller, filters jsonb, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when everyone then filters else filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')) end
$$;

comment on function tollgate.own_or_all(tollgate.caller, jsonb, boolean) is
  'The filters, over the caller''s own org unless it asks for everyone''s.';


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
  'What was used from a moment on, null being the beginning; which model most requests were for, and when the last was made.';
