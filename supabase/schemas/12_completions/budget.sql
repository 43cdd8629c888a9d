-- A key's own budget, quotas and limits: what they leave, take and give back.

create function tollgate.leeway_of_key(key_id text, moment timestamptz) returns tollgate.leeway
language plpgsql
set search_path = ''
as $$
declare
  key tollgate.api_keys;
begin
  select k.* into key from tollgate.api_keys k where k.id = leeway_of_key.key_id for no key update;
  key := tollgate.in_this_period(key, moment);
  return row(
    key.budget_nanos - key.budget_spent_nanos,
    least(
      key.tokens_per_month - key.tokens_used_in_month,
      key.tokens_in_all - key.tokens_used_in_all,
      (tollgate.room(key.counters, key.limits, tollgate.ms_of(moment))).tokens_left / 2
    )
  )::tollgate.leeway;
end
$$;

comment on function tollgate.leeway_of_key(text, timestamptz) is
  'What a key''s own budget, quotas and windows leave for an open bound: of the windows half, so that others may run beside it. Locks the key.';


create function tollgate.take_from_key(key_id text, offer tollgate.offer, moment timestamptz) returns tollgate.taking
language plpgsql
set search_path = ''
as $$
declare
  at_ms bigint := tollgate.ms_of(moment);
  key tollgate.api_keys;
  taking tollgate.taking;
begin
  select k.* into key from tollgate.api_keys k where k.id = take_from_key.key_id for no key update;
  key := tollgate.in_this_period(key, moment);
  if key.open_requests >= key.max_concurrent_requests then
    taking.refusal := tollgate.refused(429, 'too_many_in_flight', jsonb_build_object(
      'limit', key.max_concurrent_requests, 'in_flight', key.open_requests, 'of', 'key', 'key_id', key.id
    ));
    return taking;
  elsif offer.hold_nanos > key.budget_nanos - key.budget_spent_nanos then
    taking.refusal := tollgate.refused(402, 'key_budget_exhausted', jsonb_build_object(
      'key_id', key.id,
      'budget_nanos', key.budget_nanos,
      'spent_nanos', key.budget_spent_nanos,
      'required_nanos', offer.hold_nanos
    ));
    return taking;
  elsif offer.reserved_tokens > key.tokens_per_month - key.tokens_used_in_month
    or offer.reserved_tokens > key.tokens_in_all - key.tokens_used_in_all
  then
    taking.refusal := tollgate.refused(402, 'quota_exhausted', jsonb_build_object(
      'key_id', key.id,
      'tokens_needed', offer.reserved_tokens,
      'tokens_left_in_month', key.tokens_per_month - key.tokens_used_in_month,
      'tokens_left_in_all', key.tokens_in_all - key.tokens_used_in_all
    ));
    return taking;
  end if;

  taking.room := tollgate.room(key.counters, key.limits, at_ms);
  if (taking.room).requests_left < 1 or (taking.room).tokens_left < offer.reserved_tokens then
    taking.refusal := tollgate.refused(429, 'rate_limit_exceeded',
      tollgate.limit_exceeded(key.counters, key.limits, at_ms, offer.reserved_tokens)
      || jsonb_build_object('of', 'key', 'key_id', key.id));
    return taking;
  end if;

  update tollgate.api_keys k set
    counters = tollgate.take(key.counters, at_ms, 1, offer.reserved_tokens),
    budget_period = key.budget_period,
    budget_spent_nanos = key.budget_spent_nanos + offer.hold_nanos,
    month_of_tokens = key.month_of_tokens,
    tokens_used_in_month = key.tokens_used_in_month + offer.reserved_tokens,
    tokens_used_in_all = key.tokens_used_in_all + offer.reserved_tokens
  where k.id = key.id;
  perform tollgate.count_open(key.id, 1);
  taking.room.requests_left := (taking.room).requests_left - 1;
  taking.room.tokens_left := (taking.room).tokens_left - offer.reserved_tokens;
  return taking;
end
$$;

comment on function tollgate.take_from_key(text, tollgate.offer, timestamptz) is
  'Takes a request from a key''s bound of open requests, budget, quotas and windows, or refuses and takes nothing. The last to be asked: whatever else could refuse has agreed. Locks the key.';


create function tollgate.take_replay_from_key(key_id text, moment timestamptz) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  at_ms bigint := tollgate.ms_of(moment);
  key tollgate.api_keys;
begin
  select k.* into key from tollgate.api_keys k where k.id = take_replay_from_key.key_id for no key update;
  if (tollgate.room(key.counters, key.limits, at_ms)).requests_left < 1 then
    return tollgate.refused(429, 'rate_limit_exceeded',
      tollgate.limit_exceeded(key.counters, tollgate.of_requests(key.limits), at_ms, 0)
      || jsonb_build_object('of', 'key', 'key_id', key.id));
  end if;
  update tollgate.api_keys k set counters = tollgate.take(key.counters, at_ms, 1, 0) where k.id = key.id;
  return null;
end
$$;

comment on function tollgate.take_replay_from_key(text, timestamptz) is
  'Takes a replay from a key''s windows: one request, and neither tokens nor credits. Answers the refusal, or null. Locks the key.';


create function tollgate.count_open(key_id text, change bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.api_keys k set open_requests = k.open_requests + change
  from tollgate.api_keys used
  where used.id = count_open.key_id and used.max_concurrent_requests is not null
    and (k.id = used.id or k.line = used.line)
$$;

comment on function tollgate.count_open(text, bigint) is
  'Counts a request of a key that has a bound as open, or as ended, on every key of its line. The org is locked by the caller. Locks those keys.';


create function tollgate.settle_key(request tollgate.requests, charge bigint, surplus bigint, at_ms bigint) returns void
language plpgsql
set search_path = ''
as $$
begin
  update tollgate.api_keys k set
    counters = tollgate.correct(k.counters, tollgate.ms_of(request.created_at), at_ms, surplus),
    budget_spent_nanos = case
      when k.budget_period = tollgate.budget_period(k.budget_reset, request.created_at)
      then greatest(0, k.budget_spent_nanos + charge - request.hold_nanos)
      else k.budget_spent_nanos
    end,
    tokens_used_in_month = case
      when k.month_of_tokens = tollgate.budget_period('monthly', request.created_at)
      then greatest(0, k.tokens_used_in_month + surplus)
      else k.tokens_used_in_month
    end,
    tokens_used_in_all = greatest(0, k.tokens_used_in_all + surplus)
  where k.id = request.key_id;
end
$$;

comment on function tollgate.settle_key(tollgate.requests, bigint, bigint, bigint) is
  'Corrects a key''s own budget, quotas and windows by what the request cost and used. Locks the key.';
