-- What each key has used.

create function public.tollgate_keys_usage(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  own constant jsonb := jsonb_build_object('org_id', actor.org_id);
  page constant jsonb := tollgate.page(
    'tollgate.api_keys',
    'tollgate.key_named',
    'true',
    '{"created_at": "e.created_at"}',
    'created_at:desc',
    filters || own,
    page_size,
    within => $where$ e.org_id = $1 ->> 'org_id' $where$
  );
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || page || jsonb_build_object('data', (
    select coalesce(jsonb_agg(
      k.value || jsonb_build_object(
        'today', tollgate.used(today), 'last_30_days', tollgate.used(month), 'all_time', tollgate.used(always)
      )
      order by k.ordinality
    ), '[]')
    from jsonb_array_elements(page -> 'data') with ordinality k
    left join tollgate.usage_by('{key}', date_trunc('day', now(), 'UTC'), null, own) today on today.key_id = k.value ->> 'id'
    left join tollgate.usage_by('{key}', date_trunc('hour', now()) - interval '30 days', null, own) month
      on month.key_id = k.value ->> 'id'
    left join tollgate.usage_by('{key}', null, null, own) always on always.key_id = k.value ->> 'id'
  ));
end
$$;

comment on function public.tollgate_keys_usage(jsonb, jsonb, integer) is
  'The keys of the caller''s org, newest first, with what each used today (UTC), in 30 days and ever. `filters`: cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_keys_usage(jsonb, jsonb, integer)');


create function public.tollgate_keys_with_usage(
  caller jsonb,
  filters jsonb,
  page_size integer,
  scope text default 'keys'
) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  page constant jsonb := public.tollgate_keys(caller, filters - 'include', page_size, scope);
begin
  return page || jsonb_build_object('data', (
    select coalesce(jsonb_agg(
      k.value || jsonb_build_object('usage', jsonb_build_object(
        'requests', coalesce(u.requests, 0),
        'prompt_tokens', coalesce(u.prompt_tokens, 0),
        'completion_tokens', coalesce(u.completion_tokens, 0),
        'charge_nanos', coalesce(u.charge_nanos, 0),
        'last_request_at', tollgate.utc(u.last_at)
      ))
      order by k.ordinality
    ), '[]')
    from jsonb_array_elements(page -> 'data') with ordinality k
    left join (
      select used.*
      from (select distinct e.value ->> 'org_id' as org_id from jsonb_array_elements(page -> 'data') e) o,
      lateral tollgate.usage_by('{key}', null, null, jsonb_build_object('org_id', o.org_id)) used
    ) u on u.key_id = k.value ->> 'id'
  ));
end
$$;

comment on function public.tollgate_keys_with_usage(jsonb, jsonb, integer, text) is
  'As tollgate_keys(), with what each key has used since it was made. Refuses: as tollgate_keys(). Locks nothing.';

select tollgate.expose('public.tollgate_keys_with_usage(jsonb, jsonb, integer, text)');
