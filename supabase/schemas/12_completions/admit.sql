-- Admits requests: takes from limits and holds the worst case.
--
-- Admission and settlement take many items and answer each. A refusal is an answer, and an item that is repeated with
-- the same id changes nothing. Both have four steps: lock the orgs, look everything up, decide item by item in memory,
-- write. The first two and the last are one statement each for the whole batch, because starting a statement costs more
-- than a row in it.

create function public.tollgate_admit(items jsonb) returns json
language plpgsql
security definer
set search_path = ''
-- Plans are made once per connection, often while the tables are small. With these settings they use indexes, so that
-- they stay fast when the tables are large, and a batch of one is not planned again each time.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  key_ids text[]; -- of the items, in their order; null where the key is not known
  org_ids text[];
  moment timestamptz; -- of the whole batch, read when its locks are held
  at_ms bigint;
  request record;
  key tollgate.api_keys;
  person tollgate.users;
  wallet tollgate.wallet;
  remaining tollgate.remaining;
  key_remaining tollgate.remaining;
  user_remaining tollgate.remaining;
  least_left tollgate.remaining; -- of org, user and key
  worst_case tollgate.worst_case;
  admitted tollgate.admitted;
  available bigint;
  hit jsonb; -- what the cache has for the request
  hits jsonb := '[]'; -- the settlements of the requests that the cache answers
  refusal jsonb;
  answer json;
  last_id text;
  place integer := 0; -- of the wallet among the wallets
  place_of_keys integer := 0; -- of the org whose keys this batch has written to
  place_of_users integer := 0; -- of the org whose users this batch has written to
  used_keys text[] := '{}'; -- to be touched
  callers jsonb[] := '{}'; -- of the used keys, in their order
  all_admitted tollgate.admitted[] := '{}';
  wallets tollgate.wallet[] := '{}';
  ids text[] := '{}';
  answers json[] := '{}';
begin
  -- Lock: in id order, so that two batches cannot deadlock. Later statements read what holds under the locks.
  with keys as materialized (
    select k.id, k.org_id
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join lateral (
      select k.id, k.org_id from tollgate.api_keys k
      where k.digest = any (array(
        select decode(d.hex, 'hex') from jsonb_array_elements_text(i.item -> 'caller' -> 'digests') d (hex)
      ))
      limit 1
    ) k on true
  )
  select
    array(select k.id from keys k),
    array(
      select o.id from tollgate.orgs o
      where o.id = any (array(select k.org_id from keys k))
      order by o.id
      for no key update
    )
  into key_ids, org_ids;
  moment := clock_timestamp();
  at_ms := extract(epoch from moment) * 1000;

  -- Look up.
  for request in
    select
      i.item ->> 'id' as id,
      i.item,
      k.id as key_id,
      k.user_id,
      k.environment,
      k.counted or k.max_concurrent_requests is not null as is_counted,
      case when k.counted or k.max_concurrent_requests is not null then k end as counted_key,
      not u.limits is null as is_limited,
      case when not u.limits is null then u end as limited_user,
      (k.last_used_at > moment - interval '1 minute') is not true or (
        jsonb_array_length(i.item -> 'caller' -> 'digests') > 1
        and k.digest <> decode(i.item -> 'caller' -> 'digests' ->> 0, 'hex')
      ) as is_touched,
      o.id as org_id,
      o.balance_nanos,
      o.held_nanos,
      o.open_requests,
      coalesce(o.max_concurrent_requests, p.max_concurrent_requests) as most_open,
      o.counters,
      coalesce(o.limits, row(
        p.requests_per_minute, p.requests_per_hour, p.requests_per_day,
        p.tokens_per_minute, p.tokens_per_hour, p.tokens_per_day
      )::tollgate.limits) as limits,
      coalesce(o.markup_ppm, p.markup_ppm, (i.item ->> 'markup_ppm')::integer) as markup_ppm,
      (
        select jsonb_object_agg(s.name, tollgate.secret_sealed(s))
        from tollgate.secrets s
        where s.org_id = o.id and s.kind = 'upstream_key' and tollgate.may_ask(i.item -> 'upstreams', s.name)
      ) as org_keys,
      coalesce(o.byok_fee_nanos, p.byok_fee_nanos) as byok_fee_nanos,
      i.item ->> 'idempotency_key' as idempotency_key,
      coalesce(k.cache, o.cache) as caches,
      case when coalesce(k.cache, o.cache) or (i.item -> 'cache' ->> 'asked')::boolean then i.item -> 'cache' end as wish,
      r as earlier, -- the request, when it was admitted before
      tollgate.key_refusal(k, u.status, u.role, o.status, i.item -> 'caller', i.item ->> 'scope') as key_refusal,
      case when r.id is null then coalesce(
        case when o.paid_suspended_at is not null then tollgate.suspended_refusal(o.id, o.paid_suspended_at) end,
        case when k.allowed_models is not null or o.allowed_models is not null then
          tollgate.model_refusal(k, o.allowed_models, i.item -> 'models')
        end
      ) end as call_refusal
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join tollgate.api_keys k on k.id = key_ids[i.place]
    left join tollgate.users u on u.id = k.user_id
    left join tollgate.orgs o on o.id = k.org_id and o.id = any (org_ids)
    left join tollgate.plans p on p.id = o.plan_id
    left join tollgate.requests r on r.id = i.item ->> 'id' and r.org_id = o.id
    order by o.id, i.item ->> 'id', i.place
  -- Decide.
  loop
    continue when request.id = last_id; -- one id is one request, and has one answer
    last_id := request.id;
    if wallet.org_id is distinct from request.org_id then
      place := place + 1;
      wallet := row(
        request.org_id, request.balance_nanos, request.held_nanos, request.open_requests, request.counters, null
      );
      remaining := tollgate.remaining(request.counters, request.limits, at_ms);
    end if;
    if request.is_touched and request.key_refusal is null then
      used_keys := used_keys || request.key_id::text;
      callers := callers || (request.item -> 'caller');
    end if;

    answer := null;
    hit := null;
    refusal := coalesce(request.key_refusal, request.call_refusal);
    if request.is_counted then
      key := request.counted_key;
      if place_of_keys = place then -- an earlier item may have changed this key, or one of its line
        select k.* into key from tollgate.api_keys k where k.id = request.key_id;
      end if;
      key := tollgate.in_this_period(key, moment);
      key_remaining := tollgate.remaining(key.counters, key.limits, at_ms);
    elsif key.id is not null then
      key := null;
      key_remaining := null;
    end if;
    if request.is_limited then
      person := request.limited_user;
      if place_of_users = place then -- an earlier item may have changed this user
        select u.* into person from tollgate.users u where u.id = person.id;
      end if;
      user_remaining := tollgate.remaining(person.counters, person.limits, at_ms);
    elsif person.id is not null then
      person := null;
      user_remaining := null;
    end if;

    if refusal is not null then
      null;
    elsif (request.earlier).id is not null then
      answer := tollgate.admitted_again(
        request.earlier, request.environment, wallet, remaining, request.org_keys, request.caches, request.wish, moment
      );
    elsif request.idempotency_key is not null then
      answer := tollgate.kept_answer(request.item, request.org_id, request.key_id);
      if answer -> 'replay' is not null then -- it takes one request from every window, and nothing else
        refusal := tollgate.replay_refusal(
          wallet.counters, request.limits, remaining, person, user_remaining, key, key_remaining, at_ms
        );
        if refusal is null then
          wallet.counters := tollgate.take(wallet.counters, at_ms, 1, 0);
          remaining.requests_left := remaining.requests_left - 1;
          wallets[place] := wallet;
          if request.is_limited then
            perform tollgate.take_from_user(person.id, at_ms, 0);
            place_of_users := place;
          end if;
          if request.is_counted then
            perform tollgate.take_replay_from_key(key, at_ms);
            place_of_keys := place;
          end if;
        end if;
      end if;
    end if;

    if request.wish is not null and answer is null and refusal is null then
      hit := tollgate.look_up_answer(request.org_id, request.wish, moment);
      answer := case when hit ? 'wait' then hit end; -- it takes nothing, and the request comes again
      hit := hit -> 'hit';
    end if;

    if answer is null and refusal is null then
      if request.org_keys is not null and hit is null then
        request.item := tollgate.with_org_keys(request.item, request.org_keys, request.byok_fee_nanos);
        if (request.item ->> 'is_byok')::boolean then
          request.markup_ppm := 0;
        end if;
      end if;
      available := wallet.balance_nanos - wallet.held_nanos;
      worst_case := case when hit is null then tollgate.worst_case(
        request.item,
        request.markup_ppm,
        least(available, key.budget_nanos - key.budget_spent_nanos),
        least(
          -- Half, because other requests can run at the same time.
          remaining.tokens_left / 2, user_remaining.tokens_left / 2, key_remaining.tokens_left / 2,
          key.tokens_per_month - key.tokens_used_in_month, key.tokens_in_all - key.tokens_used_in_all
        )
      ) else row(0, (hit ->> 'charge_nanos')::bigint, 0, null)::tollgate.worst_case end; -- and no tokens
      if wallet.open_requests >= request.most_open then
        refusal := tollgate.in_flight_refusal(request.most_open, wallet.open_requests);
      elsif worst_case.hold_nanos > available or available < 0 then
        refusal := tollgate.credits_refusal(available, worst_case.hold_nanos, worst_case.affordable_tokens);
      elsif remaining.requests_left < 1 or remaining.tokens_left < worst_case.reserved_tokens then
        refusal := tollgate.rate_refusal(wallet.counters, request.limits, at_ms, worst_case.reserved_tokens);
      elsif user_remaining.requests_left < 1 or user_remaining.tokens_left < worst_case.reserved_tokens then
        refusal := tollgate.rate_refusal(
          person.counters, person.limits, at_ms, worst_case.reserved_tokens, tollgate.of_user(person)
        );
      elsif request.is_counted then
        refusal := tollgate.key_limit_refusal(key, key_remaining, worst_case, at_ms);
      end if;

      if refusal is null then -- from here on nothing refuses
        wallet.held_nanos := wallet.held_nanos + worst_case.hold_nanos;
        wallet.open_requests := wallet.open_requests + 1;
        wallet.counters := tollgate.take(wallet.counters, at_ms, 1, worst_case.reserved_tokens);
        wallets[place] := wallet;
        remaining.requests_left := remaining.requests_left - 1;
        remaining.tokens_left := remaining.tokens_left - worst_case.reserved_tokens;
        if request.is_limited then
          perform tollgate.take_from_user(person.id, at_ms, worst_case.reserved_tokens);
          place_of_users := place;
          user_remaining.requests_left := user_remaining.requests_left - 1;
          user_remaining.tokens_left := user_remaining.tokens_left - worst_case.reserved_tokens;
        end if;
        if request.is_counted then
          perform tollgate.take_from_key(key, worst_case, at_ms);
          place_of_keys := place;
          key_remaining.requests_left := key_remaining.requests_left - 1;
          key_remaining.tokens_left := key_remaining.tokens_left - worst_case.reserved_tokens;
        end if;
        if request.idempotency_key is not null then
          perform tollgate.begin_answer(request.org_id, request.item);
        end if;
        admitted := row(
          case when request.wish is null then request.item else tollgate.note_look_up(
            request.org_id, request.key_id, request.item, request.wish, hit, moment
          ) end,
          request.id, request.org_id, request.key_id, request.user_id, request.markup_ppm,
          worst_case.hold_nanos, worst_case.output_bound, worst_case.reserved_tokens
        );
        all_admitted := all_admitted || admitted;
        least_left := case when request.is_limited then tollgate.tighter(remaining, user_remaining) else remaining end;
        if request.is_counted then
          least_left := tollgate.tighter(least_left, key_remaining);
        end if;
        answer := tollgate.grant_of(admitted, request.environment, wallet, least_left, request.org_keys, request.caches);
        if hit is not null then
          answer := answer::jsonb || jsonb_build_object('hit', hit);
          hits := hits || tollgate.settlement_of_hit(request.id, hit);
        end if;
      end if;
    end if;

    ids := ids || request.id;
    answers := answers || case when refusal is null then answer else json_build_object('refusal', refusal) end;
  end loop;

  -- Write.
  if used_keys <> '{}' then
    perform tollgate.touch(k, u.caller)
    from unnest(used_keys, callers) u (key_id, caller)
    join tollgate.api_keys k on k.id = u.key_id;
  end if;
  perform tollgate.begin_requests(all_admitted, moment);
  update tollgate.orgs o set held_nanos = w.held_nanos, open_requests = w.open_requests, counters = w.counters
  from unnest(wallets) w
  where o.id = w.org_id;
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  return coalesce(case when hits = '[]' then answer else tollgate.with_settlements(answer, hits) end, '{}');
end
$$;

comment on function public.tollgate_admit(jsonb) is
  'Admits paid requests: recognises the key, takes from every window or from none, holds the credits, writes the request. Answers by id: granted, replay, wait or refusal. A replay takes one request from the windows, and nothing else. A request that the cache answers is granted with a hit: it takes one request and its charge, and is settled at once. One that waits for the answer to the same request takes nothing. Refuses, per item: as key_refusal(), paid_calls_suspended, model_not_allowed, too_many_in_flight, insufficient_credits, key_budget_exhausted, quota_exhausted, rate_limit_exceeded, idempotency_key_reused, request_in_progress, answer_not_kept (a repeated hit whose entry is gone). A repeated id gets the same answer. Where the org has keys of its own for upstreams that the call may ask, the grant has them, encrypted, and the hold is as with_org_keys() says. Locks orgs in id order, then for each request the user, if limited, and the key.';

select tollgate.expose('public.tollgate_admit(jsonb)');
