-- Admits requests: takes from limits and holds the worst case.
--
-- Admission and settlement take many items and answer each, in the same order. A refusal is an answer, and repeating an
-- item with the same id changes nothing. Both take four steps: lock the orgs, look everything up, decide item by item
-- in memory, write. All but the third are one statement for the whole batch, because starting a statement costs more
-- than a row in it.

create function public.tollgate_admit(items jsonb) returns json
language plpgsql
security definer
set search_path = ''
-- Plans are made once per connection, often while the tables are small. These keep to the indexes, with which they
-- stay good when the tables are large, and keep a batch of one from being planned anew each time.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  -- Lock: in id order, so that two batches never wait for each other in a circle. Later statements read how things
  -- stand under the locks.
  payers text[] := array(
    select o.id from tollgate.orgs o
    where o.id = any (array(
      select k.org_id from tollgate.api_keys k
      where k.digest = any (array(
        select decode(d.hex, 'hex')
        from jsonb_array_elements(items) i, jsonb_array_elements_text(i.value -> 'caller' -> 'digests') d (hex)
      ))
    ))
    order by o.id
    for no key update
  );
  moment timestamptz := clock_timestamp(); -- one for the batch, read when its locks are held
  at_ms bigint := extract(epoch from moment) * 1000;
  asked record;
  wallet tollgate.wallet;
  room tollgate.room;
  leeway tollgate.leeway;
  offer tollgate.offer;
  taking tollgate.taking;
  opening tollgate.opening;
  available bigint;
  refusal jsonb;
  answer json;
  last_id text;
  place integer := 0; -- of the wallet among the wallets
  opened tollgate.opening[] := '{}';
  wallets tollgate.wallet[] := '{}';
  used text[] := '{}'; -- keys whose last use was not noted for a minute
  ids text[] := '{}';
  answers json[] := '{}';
begin
  -- Look up.
  for asked in
    select
      i.item ->> 'id' as id,
      i.item,
      k.id as key_id,
      k.last_used_at,
      k.user_id,
      k.environment,
      k.counted or k.max_concurrent_requests is not null as counted,
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
      i.item ->> 'idempotency_key' as idempotency_key,
      -- Whether nothing but money and limits stands between the request and its grant. Whatever might is looked at
      -- by answer_beforehand().
      k.revoked_at is null and k.disabled_at is null and k.expires_at is null and k.ip_allowlist is null
        and k.allowed_models is null
        and u.status = 'active' and o.status = 'active' and o.paid_suspended_at is null
        and i.item ->> 'scope' = any (k.scopes) and i.item ->> 'scope' <> 'admin'
        and k.digest = decode(i.item -> 'caller' -> 'digests' ->> 0, 'hex')
        and i.item ->> 'idempotency_key' is null
        and r.id is null as plain
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join lateral (
      select * from tollgate.api_keys k
      where k.digest = any (array(
        select decode(d.hex, 'hex') from jsonb_array_elements_text(i.item -> 'caller' -> 'digests') d (hex)
      ))
      limit 1
    ) k on true
    left join tollgate.users u on u.id = k.user_id
    left join tollgate.orgs o on o.id = k.org_id and o.id = any (payers)
    left join tollgate.plans p on p.id = o.plan_id
    left join tollgate.requests r on r.id = i.item ->> 'id'
    order by o.id, i.item ->> 'id', i.place
  -- Decide.
  loop
    continue when asked.id = last_id; -- one id is one request, and has one answer
    last_id := asked.id;
    if wallet.org_id is distinct from asked.org_id then
      place := place + 1;
      wallet := row(asked.org_id, asked.balance_nanos, asked.held_nanos, asked.open_requests, asked.counters);
      room := tollgate.room(asked.counters, asked.limits, at_ms);
    end if;

    answer := null;
    if asked.plain is not true then
      answer := tollgate.answer_beforehand(asked.item, asked.key_id, asked.environment, wallet, room);
      if answer -> 'replay' is not null then -- it takes a request of every window, and nothing else
        refusal := case
          when room.requests_left < 1 then tollgate.refused(429, 'rate_limit_exceeded',
            tollgate.limit_exceeded(wallet.counters, tollgate.of_requests(asked.limits), at_ms, 0) || '{"of": "org"}')
          when asked.counted then tollgate.take_replay_from_key(asked.key_id, moment)
        end;
        if refusal is null then
          wallet.counters := tollgate.take(wallet.counters, at_ms, 1, 0);
          room.requests_left := room.requests_left - 1;
          wallets[place] := wallet;
        else
          answer := refusal;
        end if;
      end if;
    elsif (asked.last_used_at > moment - interval '1 minute') is not true then
      used := used || asked.key_id::text;
    end if;

    if answer is null and wallet.open_requests >= asked.most_open then
      answer := tollgate.refused(429, 'too_many_in_flight', jsonb_build_object(
        'limit', asked.most_open, 'in_flight', wallet.open_requests, 'of', 'org'
      ));
    end if;

    if answer is null then
      available := wallet.balance_nanos - wallet.held_nanos;
      leeway := case when asked.counted then tollgate.leeway_of_key(asked.key_id, moment) end;
      offer := tollgate.offer(
        asked.item, asked.markup_ppm, least(available, leeway.nanos), least(room.tokens_left / 2, leeway.tokens)
      );
      if offer.hold_nanos > available or available < 0 then
        answer := tollgate.refused(402, 'insufficient_credits', jsonb_build_object(
          'available_nanos', available,
          'required_nanos', offer.hold_nanos,
          'affordable_output_tokens', offer.affordable_tokens
        ));
      elsif room.requests_left < 1 or room.tokens_left < offer.reserved_tokens then
        answer := tollgate.refused(429, 'rate_limit_exceeded',
          tollgate.limit_exceeded(wallet.counters, asked.limits, at_ms, offer.reserved_tokens) || '{"of": "org"}');
      elsif asked.counted then
        taking := tollgate.take_from_key(asked.key_id, offer, moment);
        answer := taking.refusal;
      end if;
    end if;

    if answer is null then -- nothing refuses: from here on everything is taken
      wallet.held_nanos := wallet.held_nanos + offer.hold_nanos;
      wallet.open_requests := wallet.open_requests + 1;
      wallet.counters := tollgate.take(wallet.counters, at_ms, 1, offer.reserved_tokens);
      room.requests_left := room.requests_left - 1;
      room.tokens_left := room.tokens_left - offer.reserved_tokens;

      opening := row(
        asked.item, asked.id, asked.org_id, asked.key_id, asked.user_id, asked.markup_ppm,
        offer.hold_nanos, offer.output_bound, offer.reserved_tokens
      );
      opened := opened || opening;
      wallets[place] := wallet;
      if asked.idempotency_key is not null then
        insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id)
        values (asked.org_id, asked.idempotency_key, asked.item ->> 'body_hash', asked.id)
        on conflict on constraint answers_pkey do update set
          body_hash = excluded.body_hash, request_id = excluded.request_id,
          answer = null, created_at = excluded.created_at;
      end if;
      answer := tollgate.grant_of(opening, asked.environment, wallet, case
        when asked.counted then tollgate.tighter(room, taking.room) else room
      end);
    end if;

    ids := ids || asked.id;
    answers := answers || answer;
  end loop;

  -- Write.
  if used <> '{}' then -- as touch() does, for all at once
    update tollgate.api_keys k set last_used_at = moment
    where k.id in (select o.id from tollgate.api_keys o where o.id = any (used) for no key update skip locked);
  end if;
  with requests as (
    insert into tollgate.requests (
      id, org_id, key_id, user_id, state, endpoint, model, streamed, hold_nanos, markup_ppm,
      output_bound, reserved_tokens, price, idempotency_key, created_at, expires_at
    )
    select
      r.id, r.org_id, r.key_id, r.user_id, 'held', r.item ->> 'endpoint', r.item ->> 'model',
      (r.item ->> 'streamed')::boolean, r.hold_nanos, r.markup_ppm, r.output_bound, r.reserved_tokens,
      r.item -> 'price', r.item ->> 'idempotency_key', moment,
      moment + make_interval(secs => (r.item ->> 'ttl_seconds')::double precision)
    from unnest(opened) r
    returning id, expires_at
  ),
  holds as (
    insert into tollgate.holds (request_id, next_sweep_at) select r.id, r.expires_at from requests r
  ),
  orgs as (
    update tollgate.orgs o set held_nanos = w.held_nanos, open_requests = w.open_requests, counters = w.counters
    from unnest(wallets) w
    where o.id = w.org_id
  )
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  return coalesce(answer, '{}');
end
$$;

comment on function public.tollgate_admit(jsonb) is
  'Admits paid requests: recognises the key, takes from every window or from none, holds the credits, opens the request. Answers by id: granted, replay or refusal. A replay takes a request of the windows, and nothing else. Refuses, per item: as identify(), paid_calls_suspended, model_not_allowed, too_many_in_flight, insufficient_credits, key_budget_exhausted, quota_exhausted, rate_limit_exceeded, idempotency_key_reused, request_in_progress. The same id again answers the same. Locks orgs in id order, then keys.';

select tollgate.expose('public.tollgate_admit(jsonb)');
