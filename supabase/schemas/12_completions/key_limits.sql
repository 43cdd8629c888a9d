-- A key's own budget, quotas and limits.

create function tollgate.of_key(key tollgate.api_keys) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('of', 'key', 'key_id', key.id)
$$;

comment on function tollgate.of_key(tollgate.api_keys) is 'The key as the subject of a refusal.';


create function tollgate.key_limit_refusal(
  key tollgate.api_keys,
  remaining tollgate.remaining,
  worst_case tollgate.worst_case,
  at_ms bigint
) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  if key.open_requests >= key.max_concurrent_requests then
    return tollgate.refusal(429, 'too_many_in_flight', jsonb_build_object(
      'limit', key.max_concurrent_requests, 'in_flight', key.open_requests, 'of', 'key', 'key_id', key.id
    ));
  elsif worst_case.hold_nanos > key.budget_nanos - key.budget_spent_nanos then
    return tollgate.refusal(402, 'key_budget_exhausted', jsonb_build_object(
      'key_id', key.id,
      'budget_nanos', key.budget_nanos,
      'spent_nanos', key.budget_spent_nanos,
      'left_nanos', greatest(0, key.budget_nanos - key.budget_spent_nanos),
      'required_nanos', worst_case.hold_nanos,
      'resets_at', tollgate.budget_resets_at(key)
    ));
  elsif worst_case.reserved_tokens > least(
    key.tokens_per_month - key.tokens_used_in_month, key.tokens_in_all - key.tokens_used_in_all
  ) then
    return tollgate.refusal(402, 'quota_exhausted', tollgate.tightest_quota(key) || jsonb_build_object(
      'key_id', key.id, 'needed', worst_case.reserved_tokens
    ));
  elsif remaining.requests_left < 1 or remaining.tokens_left < worst_case.reserved_tokens then
    return tollgate.rate_refusal(key.counters, key.limits, at_ms, worst_case.reserved_tokens, tollgate.of_key(key));
  end if;
  return null;
end
$$;

comment on function tollgate.key_limit_refusal(tollgate.api_keys, tollgate.remaining, tollgate.worst_case, bigint) is
  'The refusal of a request by a key''s bound of open requests, budget, quotas or windows; null when it fits. `key` comes from in_this_period(). Refuses, as a value: too_many_in_flight, key_budget_exhausted, quota_exhausted, rate_limit_exceeded.';


create function tollgate.tightest_quota(key tollgate.api_keys) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'period', q.period, 'limit', q.most, 'left', greatest(0, q.most - q.used), 'resets_at', q.resets_at
  )
  from (values
    ('month', key.tokens_per_month, key.tokens_used_in_month, tollgate.quota_resets_at(key)),
    ('lifetime', key.tokens_in_all, key.tokens_used_in_all, null)
  ) q (period, most, used, resets_at)
  where q.most is not null
  order by q.most - q.used
  limit 1
$$;

comment on function tollgate.tightest_quota(tollgate.api_keys) is
  'Which of a key''s quotas has the least left, and when it is reset. `key` comes from in_this_period() and has a quota.';


create function tollgate.take_from_key(key tollgate.api_keys, worst_case tollgate.worst_case, at_ms bigint) returns void
language plpgsql
set search_path = ''
as $$
begin
  update tollgate.api_keys k set
    counters = tollgate.take(key.counters, at_ms, 1, worst_case.reserved_tokens),
    budget_period = key.budget_period,
    budget_spent_nanos = key.budget_spent_nanos + worst_case.hold_nanos,
    month_of_tokens = key.month_of_tokens,
    tokens_used_in_month = key.tokens_used_in_month + worst_case.reserved_tokens,
    tokens_used_in_all = key.tokens_used_in_all + worst_case.reserved_tokens
  where k.id = key.id;
  if key.max_concurrent_requests is not null then
    perform tollgate.count_open(key.id, key.line, 1);
  end if;
end
$$;

comment on function tollgate.take_from_key(tollgate.api_keys, tollgate.worst_case, bigint) is
  'Takes a request from a key''s windows, budget and quotas, and counts it as open. `key` comes from in_this_period(). The org is locked by the caller, so no other transaction changes these columns. Locks the key.';


create function tollgate.take_replay_from_key(key tollgate.api_keys, at_ms bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.api_keys k set counters = tollgate.take(key.counters, at_ms, 1, 0) where k.id = key.id
$$;

comment on function tollgate.take_replay_from_key(tollgate.api_keys, bigint) is
  'Counts a replay in a key''s windows: one request, no tokens and no credits. The org is locked by the caller. Locks the key.';


create function tollgate.count_open(key_id text, line text, change bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.api_keys k set open_requests = k.open_requests + change
  where k.id = count_open.key_id or k.line = count_open.line
$$;

comment on function tollgate.count_open(text, text, bigint) is
  'Counts a request as open (1) or as ended (-1), on the key and every other key of its line. For keys with a bound of open requests. The org is locked by the caller. Locks those keys.';


create function tollgate.settle_key(
  key_id text,
  admitted_at timestamptz,
  charge_change bigint,
  token_change bigint,
  at_ms bigint
) returns void
language plpgsql
set search_path = ''
as $$
begin
  update tollgate.api_keys k set
    counters = tollgate.correct(k.counters, tollgate.ms_of(admitted_at), at_ms, token_change),
    budget_spent_nanos = case
      when k.budget_period = tollgate.budget_period(k.budget_reset, admitted_at)
      then greatest(0, k.budget_spent_nanos + charge_change)
      else k.budget_spent_nanos
    end,
    tokens_used_in_month = case
      when k.month_of_tokens = tollgate.quota_month(k.quota_reset_day, admitted_at)
      then greatest(0, k.tokens_used_in_month + token_change)
      else k.tokens_used_in_month
    end,
    tokens_used_in_all = greatest(0, k.tokens_used_in_all + token_change)
  where k.id = settle_key.key_id;
end
$$;

comment on function tollgate.settle_key(text, timestamptz, bigint, bigint, bigint) is
  'Corrects a key''s budget, quotas and windows by the difference between what a request took at its admission and what it cost and used. Locks the key.';
