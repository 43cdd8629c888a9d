-- Answers kept under an idempotency key.

create function tollgate.kept_answer(item jsonb, org_id text, key_id text) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  kept tollgate.answers;
begin
  select a.* into kept from tollgate.answers a
  where a.org_id = kept_answer.org_id and a.idempotency_key = item ->> 'idempotency_key'
    and a.created_at > clock_timestamp() - interval '24 hours';
  if not found or kept.request_id = item ->> 'id' then
    return null;
  elsif kept.body_hash <> item ->> 'body_hash' then
    return tollgate.refused(422, 'idempotency_key_reused', jsonb_build_object('request_id', kept.request_id));
  elsif kept.answer is null then
    return tollgate.refused(409, 'request_in_progress', jsonb_build_object('request_id', kept.request_id));
  end if;
  update tollgate.answers a set replays = a.replays + 1, replayed_at = clock_timestamp()
  where a.org_id = kept_answer.org_id and a.idempotency_key = kept.idempotency_key;
  return jsonb_build_object('replay', kept.answer || jsonb_build_object(
    'request_id', kept.request_id, 'org_id', org_id, 'key_id', key_id
  ));
end
$$;

comment on function tollgate.kept_answer(jsonb, text, text) is
  'The answer to a request that repeats an idempotency key: a replay, which is counted, a refusal, or null when the key is new. The org is locked by the caller, so two requests cannot both find the key new.';


create function tollgate.begin_answer(org_id text, item jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id)
  values (org_id, item ->> 'idempotency_key', item ->> 'body_hash', item ->> 'id')
  on conflict on constraint answers_pkey do update set
    body_hash = excluded.body_hash, request_id = excluded.request_id, answer = null, replays = 0, replayed_at = null,
    created_at = excluded.created_at
$$;

comment on function tollgate.begin_answer(text, jsonb) is
  'Stores which request runs under an idempotency key, in place of an answer that has expired. The org is locked by the caller.';


create function tollgate.keep_answer(request_id text, item jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  given jsonb := nullif(item -> 'answer', 'null');
begin
  if given is not null then
    update tollgate.answers a set answer = given where a.request_id = keep_answer.request_id;
  elsif item ->> 'outcome' = 'released' then
    -- Nothing was done, so the key can be used again.
    delete from tollgate.answers a where a.request_id = keep_answer.request_id;
  else
    update tollgate.answers a set answer = '{"kept": false}'
    where a.request_id = keep_answer.request_id and a.answer is null;
  end if;
end
$$;

comment on function tollgate.keep_answer(text, jsonb) is
  'Stores the answer to a request under its idempotency key, or that there is none to store: a repetition is then refused instead of running a second time.';


create function tollgate.replay_refusal(
  counters tollgate.counters,
  limits tollgate.limits,
  remaining tollgate.remaining,
  person tollgate.users,
  user_remaining tollgate.remaining,
  key tollgate.api_keys,
  key_remaining tollgate.remaining,
  at_ms bigint
) returns jsonb
language sql
stable
set search_path = ''
as $$
  select case
    when remaining.requests_left < 1 then tollgate.rate_refusal(counters, tollgate.of_requests(limits), at_ms, 0)
    when user_remaining.requests_left < 1 then tollgate.rate_refusal(
      person.counters, tollgate.of_requests(person.limits), at_ms, 0, tollgate.of_user(person)
    )
    when key_remaining.requests_left < 1 then tollgate.rate_refusal(
      key.counters, tollgate.of_requests(key.limits), at_ms, 0, tollgate.of_key(key)
    )
  end
$$;

comment on function tollgate.replay_refusal(tollgate.counters, tollgate.limits, tollgate.remaining, tollgate.users, tollgate.remaining, tollgate.api_keys, tollgate.remaining, bigint) is
  'The refusal of a replay by the windows of org, user and key; null when each has a request left.';
