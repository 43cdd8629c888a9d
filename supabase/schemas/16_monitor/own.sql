-- The overview of the caller's own key and org.

create function tollgate.allowances_of(key tollgate.api_keys) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'budget', case when key.budget_nanos is not null then jsonb_build_object(
      'limit_nanos', key.budget_nanos,
      'spent_nanos', key.budget_spent_nanos,
      'remaining_nanos', greatest(0, key.budget_nanos - key.budget_spent_nanos),
      'resets_at', tollgate.budget_resets_at(key)
    ) end,
    'tokens_in_month', case when key.tokens_per_month is not null then jsonb_build_object(
      'limit', key.tokens_per_month,
      'used', key.tokens_used_in_month,
      'remaining', greatest(0, key.tokens_per_month - key.tokens_used_in_month),
      'resets_at', tollgate.quota_resets_at(key)
    ) end,
    'tokens_in_all', case when key.tokens_in_all is not null then jsonb_build_object(
      'limit', key.tokens_in_all,
      'used', key.tokens_used_in_all,
      'remaining', greatest(0, key.tokens_in_all - key.tokens_used_in_all),
      'resets_at', null
    ) end
  );
end
$$;

comment on function tollgate.allowances_of(tollgate.api_keys) is
  'What remains of a key''s own budget and quotas, and when they are reset; null where it has none. Expects a key from in_this_period().';


create function tollgate.first_request_of(key tollgate.api_keys) returns timestamptz
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select r.created_at from tollgate.requests r
    where r.org_id = key.org_id and r.created_at >= d.day and r.created_at < d.day + interval '1 day' and r.key_id = key.id
    order by r.created_at
    limit 1
  ), d.day)
  from (
    select min(u.start) as day
    from tollgate.usage_by('{day}', null, null, jsonb_build_object('org_id', key.org_id, 'key_id', key.id)) u
  ) d
$$;

comment on function tollgate.first_request_of(tollgate.api_keys) is
  'When a key made its first request; only the day if the request was dropped.';


create function public.tollgate_own_monitor(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  own jsonb := jsonb_build_object('org_id', actor.org_id);
  org tollgate.orgs;
  key tollgate.api_keys;
begin
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(moment),
    'org_id', org.id,
    'user_id', actor.user_id,
    'prefix', key.prefix,
    'last_four', key.last_four,
    'plan', org.plan_id,
    'balance_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos,
    'usage', jsonb_build_object(
      'today', tollgate.used_since(date_trunc('day', moment, 'UTC'), own),
      'this_month', tollgate.used_since(date_trunc('month', moment, 'UTC'), own),
      'all_time', tollgate.used_since(null, own)
    ),
    'limits', tollgate.limits_around(actor, key, moment),
    'allowances', tollgate.allowances_of(key)
  );
end
$$;

comment on function public.tollgate_own_monitor(jsonb) is
  'The overview of a key''s owner: the org''s balance; its usage today, this month (UTC) and of all time; what remains of the limits of org and key, and of the key''s budget and quotas. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_monitor(jsonb)');


create function public.tollgate_own_overview(caller jsonb, bucket text, filters jsonb) returns jsonb
language sql
security definer
set search_path = ''
set jit = off
as $$
  select public.tollgate_own_monitor(caller) || jsonb_build_object(
    'series', public.tollgate_usage_series(caller, bucket, filters, false) - 'caller',
    'models', public.tollgate_usage_aggregate(
      caller, '["model"]', filters || jsonb_build_object('sort', 'charge:desc'), 10, false
    ) - 'caller'
  )
$$;

comment on function public.tollgate_own_overview(jsonb, text, jsonb) is
  'tollgate_own_monitor(), with the usage of the caller''s org in a period as `series` and the ten models that cost most as `models`. `filters` has from and to. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_overview(jsonb, text, jsonb)');


create function public.tollgate_key_usage(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  own jsonb := jsonb_build_object('org_id', actor.org_id, 'key_id', actor.key_id);
  month timestamptz; -- of the quota
  in_month jsonb;
  org tollgate.orgs;
  person tollgate.users;
  key tollgate.api_keys;
  minute jsonb;
begin
  if actor.key_id is null then
    perform tollgate.refuse_missing('key', null);
  end if;
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  select u.* into person from tollgate.users u where u.id = actor.user_id;
  month := tollgate.quota_month(key.quota_reset_day, moment)::timestamp at time zone 'utc';
  in_month := tollgate.used_since(month, own);
  select w.minute into minute
  from (values
    (tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment)) -> 'requests' -> 'minute'),
    (tollgate.windows(person.counters, person.limits, tollgate.ms_of(moment)) -> 'requests' -> 'minute'),
    (tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment)) -> 'requests' -> 'minute')
  ) w (minute)
  where w.minute ->> 'limit' is not null
  order by (w.minute -> 'remaining')::bigint, (w.minute -> 'limit')::bigint
  limit 1;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'org_id', org.id,
    'user_id', key.user_id,
    'name', key.name,
    'quota_used', case when key.tokens_per_month is not null then key.tokens_used_in_month
      else (in_month ->> 'prompt_tokens')::bigint + (in_month ->> 'completion_tokens')::bigint
    end,
    'quota_monthly', key.tokens_per_month,
    'quota_reset_at', tollgate.utc((month at time zone 'utc' + interval '1 month') at time zone 'utc'),
    'rpm_limit', minute -> 'limit',
    'rpm_remaining', minute -> 'remaining',
    'total', tollgate.used_since(null, own),
    'first_request_at', tollgate.utc(tollgate.first_request_of(key))
  );
end
$$;

comment on function public.tollgate_key_usage(jsonb) is
  'What the calling key has used: its monthly quota, its requests per minute (by the limit of the key, its user or its org, whichever has less left), and its usage of all time. Refuses: as recognise(), not_found for a session without a key. Locks nothing.';

select tollgate.expose('public.tollgate_key_usage(jsonb)');
