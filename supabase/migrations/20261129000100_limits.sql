-- Why:  an org or a key may have to be kept from running any number of requests at once, and an org whose usage makes no
--       sense again and again must not go on being served. What is said too late, or is too large to be true, must leave
--       the books right and the other requests of its batch alone.
-- What: max_concurrent_requests and open_requests on plans, orgs and keys; orgs.paid_suspended_at; new bodies of
--       tollgate_admit() and tollgate_settle(), with settle_late(), which corrects what was ended by an estimate.
-- Care: additive. A call that waits for this migration has read the old bodies and does not count its request; so
--       open_requests begins at 0 here, and the next migration counts it. Until then no bound can be set.
--       Lock order: org, key, request, tollgate.rolled.

set lock_timeout = '1s';

alter table tollgate.plans
  add column max_concurrent_requests bigint check (max_concurrent_requests between 0 and 100000000000);

alter table tollgate.orgs
  add column max_concurrent_requests bigint,
  add column open_requests bigint not null default 0,
  add column quarantined_at timestamptz,
  add column paid_suspended_at timestamptz,
  add column paid_suspended_reason text;

alter table tollgate.api_keys
  add column max_concurrent_requests bigint,
  add column open_requests bigint not null default 0;

comment on column tollgate.plans.max_concurrent_requests is 'How many requests an org on the plan may have open at once; null is no bound.';
comment on column tollgate.orgs.max_concurrent_requests is 'The org''s own bound of open requests; null follows the plan.';
comment on column tollgate.orgs.open_requests is 'Requests whose hold has not ended, held and unsettled ones: as many as the org has rows in tollgate.holds.';
comment on column tollgate.orgs.quarantined_at is 'When a request of the org was last settled as quarantined, unless an operator has set paid calls going since.';
comment on column tollgate.orgs.paid_suspended_at is 'Since when paid calls are refused; null while they are served. Everything else goes on.';
comment on column tollgate.orgs.paid_suspended_reason is 'quarantined_usage, or operator; null while paid calls are served.';
comment on column tollgate.api_keys.max_concurrent_requests is 'How many requests the key, and those it took the place of, may have open at once; null is no bound of its own.';
comment on column tollgate.api_keys.open_requests is 'Open requests of the key and of those it took the place of; 0 while the key has no bound.';

-- The counters' functions call roll() only where a window has turned, to pay for what the others do more.

create or replace function tollgate.room(counters bigint[], limits tollgate.limits, at_ms bigint) returns tollgate.room
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  most_requests bigint[] := array[limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day];
  most_tokens bigint[] := array[limits.tokens_per_minute, limits.tokens_per_hour, limits.tokens_per_day];
  rolled bigint[] := counters;
  room tollgate.room;
  span bigint;
  slid bigint; -- how far the bucket before has slid out of the window
  remaining bigint;
begin
  if limits is null then
    return room;
  end if;
  if (
    rolled[1] >= at_ms / 60000 and rolled[6] >= at_ms / 3600000 and rolled[11] >= at_ms / 86400000
  ) is not true then
    rolled := tollgate.roll(rolled, at_ms);
  end if;
  -- Used is the current bucket and, rounded up, the part of the one before that has not slid out. In bigint, since no
  -- limit is above 10^11.
  for place in 1..3 loop
    span := spans[place];
    slid := at_ms % span;
    remaining := most_requests[place] - rolled[place * 5 - 3]
      - (rolled[place * 5 - 1] * (span - slid) + span - 1) / span;
    if remaining < room.requests_left or (room.requests_left is null and remaining is not null) then
      room.requests_limit := most_requests[place];
      room.requests_left := remaining;
      room.requests_reset_ms := 2 * span - slid;
    end if;
    remaining := most_tokens[place] - rolled[place * 5 - 2]
      - (rolled[place * 5] * (span - slid) + span - 1) / span;
    if remaining < room.tokens_left or (room.tokens_left is null and remaining is not null) then
      room.tokens_limit := most_tokens[place];
      room.tokens_left := remaining;
      room.tokens_reset_ms := 2 * span - slid;
    end if;
  end loop;
  return room;
end
$$;

comment on function tollgate.room(bigint[], tollgate.limits, bigint) is
  'How many requests and how many tokens fit into every window at a time. A request fits when one request and its tokens are left; all windows shrink alike with what is taken at that time, so one look serves a batch.';


create or replace function tollgate.take(counters bigint[], at_ms bigint, requests bigint, tokens bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  r bigint[] := counters;
begin
  if (
    r[1] >= at_ms / 60000 and r[6] >= at_ms / 3600000 and r[11] >= at_ms / 86400000
  ) is not true then
    r := tollgate.roll(r, at_ms);
  end if;
  return array[
    r[1], r[2] + requests, r[3] + tokens, r[4], r[5],
    r[6], r[7] + requests, r[8] + tokens, r[9], r[10],
    r[11], r[12] + requests, r[13] + tokens, r[14], r[15]
  ];
end
$$;

comment on function tollgate.take(bigint[], bigint, bigint, bigint) is 'Counts in every window at once.';


create or replace function tollgate.correct(counters bigint[], taken_at_ms bigint, at_ms bigint, tokens bigint) returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  corrected bigint[] := counters;
  age bigint;
begin
  if (
    corrected[1] >= at_ms / 60000 and corrected[6] >= at_ms / 3600000 and corrected[11] >= at_ms / 86400000
  ) is not true then
    corrected := tollgate.roll(corrected, at_ms);
  end if;
  if corrected[1] = taken_at_ms / 60000 and corrected[6] = taken_at_ms / 3600000
    and corrected[11] = taken_at_ms / 86400000
  then -- the usual case: it was taken in the buckets that are current
    return array[
      corrected[1], corrected[2], greatest(0, corrected[3] + tokens), corrected[4], corrected[5],
      corrected[6], corrected[7], greatest(0, corrected[8] + tokens), corrected[9], corrected[10],
      corrected[11], corrected[12], greatest(0, corrected[13] + tokens), corrected[14], corrected[15]
    ];
  end if;
  for place in 1..3 loop
    age := corrected[place * 5 - 4] - taken_at_ms / spans[place];
    if age = 0 then
      corrected[place * 5 - 2] := greatest(0, corrected[place * 5 - 2] + tokens);
    elsif age = 1 then
      corrected[place * 5] := greatest(0, corrected[place * 5] + tokens);
    end if;
  end loop;
  return corrected;
end
$$;

comment on function tollgate.correct(bigint[], bigint, bigint, bigint) is
  'Adds the difference between tokens reserved at one time and tokens used, in the buckets that reserved them.';


create type tollgate.wallet as (
  org_id text,
  balance_nanos bigint,
  held_nanos bigint,
  open_requests bigint,
  counters bigint[]
);

comment on type tollgate.wallet is 'What requests change of an org: carried from item to item of a batch, and written once. Takes the place of tollgate.purse.';

create function tollgate.grant_of(
  opening tollgate.opening,
  environment text,
  wallet tollgate.wallet,
  room tollgate.room
) returns json
language plpgsql
immutable
set search_path = ''
as $$
begin
  return json_build_object('granted', json_build_object(
    'id', opening.id,
    'org_id', opening.org_id,
    'user_id', opening.user_id,
    'key_id', opening.key_id,
    'environment', environment,
    'hold_nanos', opening.hold_nanos,
    'output_bound', opening.output_bound,
    'markup_ppm', opening.markup_ppm,
    'balance_nanos', wallet.balance_nanos,
    'held_nanos', wallet.held_nanos,
    'limits', case when not room is null then json_build_object(
      'requests', case when room.requests_limit is not null then json_build_object(
        'limit', room.requests_limit,
        'remaining', greatest(0, room.requests_left),
        'reset_ms', room.requests_reset_ms
      ) end,
      'tokens', case when room.tokens_limit is not null then json_build_object(
        'limit', room.tokens_limit,
        'remaining', greatest(0, room.tokens_left),
        'reset_ms', room.tokens_reset_ms
      ) end
    ) end
  ));
end
$$;

comment on function tollgate.grant_of(tollgate.opening, text, tollgate.wallet, tollgate.room) is
  'The answer to an admitted request. `limits` is null where neither org nor key has any. In json, not jsonb: what is only sent costs half when it is never taken apart.';

create or replace function tollgate.offer(item jsonb, markup_ppm integer, nanos_left bigint, tokens_left bigint) returns tollgate.offer
language plpgsql
immutable
set search_path = ''
as $$
declare
  charged constant numeric := (1000000 + markup_ppm) * 0.000001; -- for each nano that we pay
  fixed constant numeric := (item ->> 'fixed_nanos')::numeric * charged;
  per_output constant numeric := (item ->> 'output_nanos')::numeric * charged;
  offer tollgate.offer;
begin
  offer.affordable_tokens := case when per_output > 0
    then least(greatest(floor((nanos_left - fixed) / per_output), 0), 1000000000)
    else 1000000000
  end;
  -- A bound that the client left open shrinks to what there is; one it chose is its own word.
  offer.output_bound := coalesce(
    (item ->> 'output_bound')::bigint,
    least((item ->> 'most_output')::bigint, greatest(
      (item ->> 'least_output')::bigint,
      least(offer.affordable_tokens, (tokens_left - (item ->> 'prompt_tokens')::bigint) / (item ->> 'choices')::bigint)
    ))
  );
  offer.hold_nanos := least(ceil(fixed + per_output * offer.output_bound), 9223372036854775807);
  offer.reserved_tokens := (item ->> 'prompt_tokens')::bigint + offer.output_bound * (item ->> 'choices')::bigint;
  return offer;
end
$$;

comment on function tollgate.offer(jsonb, integer, bigint, bigint) is
  'Prices the worst case of a request, its output bounded by what is left where the client did not bound it. Exact until the hold is rounded up; the balance may fall short of it. A hold beyond bigint is the largest bigint, which no balance covers.';

create function tollgate.answer_beforehand(
  item jsonb,
  key_id text,
  environment text,
  wallet tollgate.wallet,
  room tollgate.room
) returns json
language plpgsql
set search_path = ''
as $$
declare
  caller jsonb := item -> 'caller';
  refusal jsonb := (tollgate.identify(caller, item ->> 'scope')).refusal;
  key tollgate.api_keys;
  made tollgate.opening;
  model text;
  suspended_at timestamptz;
begin
  if refusal is not null then
    return jsonb_build_object('refusal', refusal);
  elsif wallet.org_id is null then -- born after we looked for the orgs to lock
    return tollgate.refused(401, 'invalid_api_key', '{}');
  end if;

  select k.* into key from tollgate.api_keys k where k.id = answer_beforehand.key_id;
  perform tollgate.touch(key, caller);

  select item, r.id, r.org_id, r.key_id, r.user_id, r.markup_ppm, r.hold_nanos, r.output_bound, r.reserved_tokens
  into made
  from tollgate.requests r
  where r.id = item ->> 'id' and r.org_id = wallet.org_id;
  if found then
    return tollgate.grant_of(made, environment, wallet, room);
  end if;

  select o.paid_suspended_at into suspended_at from tollgate.orgs o where o.id = wallet.org_id;
  if suspended_at is not null then
    return tollgate.refused(403, 'paid_calls_suspended',
      jsonb_build_object('org_id', wallet.org_id, 'suspended_at', tollgate.utc(suspended_at)));
  end if;

  if key.allowed_models is not null then
    for model in select jsonb_array_elements_text(item -> 'models') loop
      if not tollgate.model_allowed(key.allowed_models, model) then
        return tollgate.refused(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', model));
      end if;
    end loop;
  end if;
  if item ->> 'idempotency_key' is not null then
    return tollgate.kept_answer(item, wallet.org_id);
  end if;
  return null;
end
$$;

comment on function tollgate.answer_beforehand(jsonb, text, text, tollgate.wallet, tollgate.room) is
  'The answer to an item that needs no look at money or limits: what was granted before under its id, a refusal of its caller, org or model, what was answered before under its idempotency key; or null. Notes the use of the key.';


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

create or replace function tollgate.take_from_key(key_id text, offer tollgate.offer, moment timestamptz) returns tollgate.taking
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


create function tollgate.of_requests(limits tollgate.limits) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  select row(
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day, null, null, null
  )::tollgate.limits
$$;

comment on function tollgate.of_requests(tollgate.limits) is 'Those of the limits that count requests.';


create or replace function public.tollgate_admit(items jsonb) returns json
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


create function tollgate.note_quarantine(org_id text, request_id text, moment timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  org tollgate.orgs;
begin
  select o.* into org from tollgate.orgs o where o.id = note_quarantine.org_id;
  update tollgate.orgs o set quarantined_at = moment where o.id = org.id;
  if org.quarantined_at > moment - interval '1 hour' and org.paid_suspended_at is null then
    update tollgate.orgs o
    set paid_suspended_at = moment, paid_suspended_reason = 'quarantined_usage', updated_at = moment
    where o.id = org.id;
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, request_id)::tollgate.caller,
      'org.paid_suspended', org.id, org.id,
      jsonb_build_object(
        'reason', 'quarantined_usage', 'request_id', request_id, 'quarantined_before', tollgate.utc(org.quarantined_at)
      )
    );
  end if;
end
$$;

comment on function tollgate.note_quarantine(text, text, timestamptz) is
  'Remembers that a request of the org was quarantined, and suspends the org''s paid calls when it is the second within an hour. The org is locked by the caller.';


create function tollgate.at_the_hold(item jsonb, hold numeric) returns jsonb
language sql
set search_path = ''
as $$
  select item - array['prompt_tokens', 'completion_tokens'] || jsonb_build_object(
    'charge_nanos', hold, 'cost_nanos', trunc(hold * 1000000 / (1000000 + r.markup_ppm)), 'quarantined', true
  )
  from tollgate.requests r where r.id = item ->> 'id'
$$;

comment on function tollgate.at_the_hold(jsonb, numeric) is
  'The item of a settlement that tells of money or tokens below zero or beyond what a transfer may move: quarantined, and charged at its hold.';


create function tollgate.tally_correction(was tollgate.requests, now_is tollgate.requests) returns void
language plpgsql
set search_path = ''
as $$
declare
  until timestamptz;
begin
  select r.rolled_until into until from tollgate.rolled r for share; -- waits for a step of rolling up
  if was.created_at >= until
    or exists (select from tollgate.late_requests l where l.request_id = was.id)
  then
    return; -- not counted yet
  end if;
  update tollgate.tallies t set
    estimated = t.estimated - was.estimated::integer + now_is.estimated::integer,
    prompt_tokens = t.prompt_tokens - coalesce(was.prompt_tokens, 0) + coalesce(now_is.prompt_tokens, 0),
    completion_tokens =
      t.completion_tokens - coalesce(was.completion_tokens, 0) + coalesce(now_is.completion_tokens, 0),
    charge_nanos = t.charge_nanos - coalesce(was.charge_nanos, 0) + coalesce(now_is.charge_nanos, 0),
    cost_nanos = t.cost_nanos - coalesce(was.cost_nanos, 0) + coalesce(now_is.cost_nanos, 0)
  from (values
    ('hour', 'hour', true, true),
    ('hour_model', 'hour', false, true),
    ('day', 'day', true, true),
    ('day_model', 'day', false, true),
    ('day_key', 'day', true, false),
    ('month', 'month', true, true),
    ('month_model', 'month', false, true),
    ('month_key', 'month', true, false)
  ) c (cut, unit, people, models)
  where t.cut = c.cut and t.start = date_trunc(c.unit, was.created_at, 'UTC')
    and t.org_id = case when c.people then was.org_id else '' end
    and t.user_id = case when c.people then was.user_id else '' end
    and t.key_id = case when c.people then was.key_id else '' end
    and t.model = case when c.models then was.model else '' end
    and t.upstream = case when c.models then coalesce(was.upstream, '') else '' end;
end
$$;

comment on function tollgate.tally_correction(tollgate.requests, tollgate.requests) is
  'Corrects what was rolled up of a request, in all cuts; what is not rolled up yet will be counted as the request is then. Locks the row of tollgate.rolled against rolling up.';


create type tollgate.correction as (
  wallet tollgate.wallet,
  state text,
  charge_nanos bigint,
  transfer tollgate.transfers -- null in all where no money moves
);

comment on type tollgate.correction is 'What a settlement that came late made of its request, and of its org.';


create function tollgate.settle_late(item jsonb, wallet tollgate.wallet, counted boolean, moment timestamptz)
returns tollgate.correction
language plpgsql
set search_path = ''
as $$
declare
  said constant bigint := case item ->> 'outcome' when 'settled' then (item ->> 'charge_nanos')::bigint else 0 end;
  is_exact constant boolean := ((item ->> 'estimated')::boolean or (item ->> 'quarantined')::boolean) is not true;
  at_ms constant bigint := tollgate.ms_of(moment);
  was tollgate.requests;
  now_is tollgate.requests;
  refunded bigint;
  surplus bigint;
  change bigint := 0; -- of the charge
  transfer tollgate.transfers;
begin
  select r.* into was from tollgate.requests r where r.id = item ->> 'id';
  now_is := was;
  if is_exact and (was.state = 'released' or was.estimated) then
    select coalesce(sum(t.amount_nanos), 0) into refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = was.id;
    -- Never beyond the hold, and never back what an operator has given back already.
    change := greatest(least(said, was.hold_nanos) - was.charge_nanos, refunded - was.charge_nanos);

    update tollgate.requests r set
      state = 'settled',
      charge_nanos = was.charge_nanos + change,
      cost_nanos = coalesce((item ->> 'cost_nanos')::bigint, 0),
      prompt_tokens = coalesce((item ->> 'prompt_tokens')::bigint, 0),
      completion_tokens = coalesce((item ->> 'completion_tokens')::bigint, 0),
      usage = coalesce(item -> 'usage', r.usage),
      generation_id = coalesce(item ->> 'generation_id', r.generation_id),
      served_model = coalesce(item ->> 'served_model', r.served_model),
      estimated = false
    where r.id = was.id
    returning r.* into now_is;
    surplus := now_is.prompt_tokens + now_is.completion_tokens
      - coalesce(was.prompt_tokens, 0) - coalesce(was.completion_tokens, 0);
    wallet.balance_nanos := wallet.balance_nanos - change;
    wallet.counters := tollgate.correct(wallet.counters, tollgate.ms_of(was.created_at), at_ms, surplus);
    if change <> 0 then
      transfer := row(
        null, was.org_id,
        case when change > 0 then 'wallet' else 'revenue' end, case when change > 0 then 'revenue' else 'wallet' end,
        abs(change), case when change > 0 then 'charge' else 'refund' end,
        was.id || case when was.charge_nanos > 0 then ':late' else '' end, -- the first charge has the id itself
        '', wallet.balance_nanos, moment
      )::tollgate.transfers;
    end if;
    perform tollgate.tally_correction(was, now_is);
    if counted then
      was.hold_nanos := was.charge_nanos; -- which is what the key's budget has of it now
      perform tollgate.settle_key(was, now_is.charge_nanos, surplus, at_ms);
    end if;
  end if;

  if not exists (
    select from tollgate.audit_events a
    where a.target_id = was.id and a.action = 'settlement.late' and a.details ->> 'charge_nanos' = said::text
  ) then
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, was.id)::tollgate.caller,
      'settlement.late', was.org_id, was.id,
      jsonb_build_object(
        'state_before', was.state, 'charge_before_nanos', now_is.charge_nanos - change,
        'charge_nanos', said, 'corrected_by_nanos', change
      )
    );
  end if;
  return row(wallet, now_is.state, now_is.charge_nanos, transfer)::tollgate.correction;
end
$$;

comment on function tollgate.settle_late(jsonb, tollgate.wallet, boolean, timestamptz) is
  'Hears a settlement of a request that was ended before, at another charge. Records it as settlement.late, once for each charge told. An exact one corrects what was estimated or released, within the hold: it answers the transfer of the difference, for the caller to post, with the org as that leaves it. Any other changes nothing. The org is locked by the caller. Locks the request, the row of tollgate.rolled, the key.';


create or replace function public.tollgate_settle(items jsonb) returns json
language plpgsql
security definer
set search_path = ''
-- As for tollgate_admit().
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  -- Lock, as in tollgate_admit().
  payers text[] := array(
    select o.id from tollgate.orgs o
    where o.id = any (array(
      select r.org_id from tollgate.requests r
      where r.id = any (array(select i.value ->> 'id' from jsonb_array_elements(items) i))
    ))
    order by o.id
    for no key update
  );
  moment timestamptz := clock_timestamp();
  at_ms bigint := extract(epoch from moment) * 1000;
  entry record;
  wallet tollgate.wallet;
  most constant numeric := 100000000000000000; -- as tollgate.amount_nanos
  correction record;
  charge bigint;
  surplus bigint;
  last_id text;
  place integer := 0; -- of the wallet among the wallets
  answer json;
  repeated jsonb := '[]';
  changed jsonb[] := '{}';
  ended text[] := '{}';
  charges tollgate.transfers[] := '{}';
  wallets tollgate.wallet[] := '{}';
  ids text[] := '{}';
  answers json[] := '{}';
begin
  -- Look up.
  for entry in
    select
      i.item ->> 'id' as id,
      i.item,
      i.item ->> 'outcome' as outcome,
      (i.item ->> 'charge_nanos')::numeric as said_nanos,
      (i.item ->> 'cost_nanos')::numeric as cost_nanos,
      (i.item ->> 'prompt_tokens')::numeric as prompt_tokens,
      (i.item ->> 'completion_tokens')::numeric as completion_tokens,
      r.org_id,
      r.key_id,
      r.state,
      r.hold_nanos,
      r.charge_nanos,
      r.reserved_tokens,
      r.idempotency_key,
      (extract(epoch from r.created_at) * 1000)::bigint as created_ms,
      k.counted or k.max_concurrent_requests is not null as counted,
      o.balance_nanos,
      o.held_nanos,
      o.open_requests,
      o.counters
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join tollgate.requests r on r.id = i.item ->> 'id' and r.org_id = any (payers)
    left join tollgate.orgs o on o.id = r.org_id
    left join tollgate.api_keys k on k.id = r.key_id
    order by o.id, i.item ->> 'id', i.place
  -- Decide.
  loop
    if entry.id = last_id then -- a later word on the same request: it is heard when this one is written
      repeated := repeated || entry.item;
      continue;
    end if;
    last_id := entry.id;
    ids := ids || entry.id;
    if entry.org_id is null then
      answers := answers
        || tollgate.refused(404, 'not_found', jsonb_build_object('kind', 'request', 'id', entry.id))::json;
      continue;
    end if;
    if wallet.org_id is distinct from entry.org_id then
      place := place + 1;
      wallet := row(entry.org_id, entry.balance_nanos, entry.held_nanos, entry.open_requests, entry.counters);
    end if;
    if greatest(entry.said_nanos, entry.cost_nanos, entry.prompt_tokens, entry.completion_tokens) > most
      or least(entry.said_nanos, entry.cost_nanos, entry.prompt_tokens, entry.completion_tokens) < 0
    then
      entry.item := tollgate.at_the_hold(entry.item, least(entry.hold_nanos, most));
      entry.said_nanos := entry.item -> 'charge_nanos';
      entry.prompt_tokens := null;
      entry.completion_tokens := null;
    end if;
    charge := case entry.outcome when 'settled' then entry.said_nanos else 0 end;
    if entry.state in ('settled', 'released') then
      if entry.outcome <> 'unsettled' and charge <> entry.charge_nanos then
        correction := tollgate.settle_late(entry.item, wallet, entry.counted, moment);
        wallet := correction.wallet;
        wallets[place] := wallet;
        entry.state := correction.state;
        entry.charge_nanos := correction.charge_nanos;
        if not correction.transfer is null then
          charges := charges || correction.transfer;
        end if;
      end if;
      answers := answers || json_build_object('settled', json_build_object(
        'state', entry.state, 'charge_nanos', entry.charge_nanos, 'balance_nanos', wallet.balance_nanos, 'again', true
      ));
      continue;
    end if;

    changed := changed || entry.item;
    if entry.idempotency_key is not null then
      perform tollgate.keep_answer(entry.id, entry.item);
    end if;
    if entry.outcome = 'unsettled' then
      update tollgate.holds h
      set next_sweep_at = moment
        + make_interval(secs => coalesce((entry.item ->> 'sweep_in_seconds')::double precision, 0))
      where h.request_id = entry.id;
      answers := answers || json_build_object('settled', json_build_object(
        'state', 'unsettled', 'balance_nanos', wallet.balance_nanos, 'again', false
      ));
      continue;
    end if;

    surplus := coalesce(entry.prompt_tokens, 0) + coalesce(entry.completion_tokens, 0) - entry.reserved_tokens;
    ended := ended || entry.id;
    wallet.balance_nanos := wallet.balance_nanos - charge;
    wallet.held_nanos := wallet.held_nanos - entry.hold_nanos;
    wallet.open_requests := wallet.open_requests - 1;
    wallet.counters := tollgate.correct(wallet.counters, entry.created_ms, at_ms, surplus);
    wallets[place] := wallet;

    if charge > 0 then
      charges := charges || row(
        null, entry.org_id, 'wallet', 'revenue', charge, 'charge', entry.id, '', wallet.balance_nanos, moment
      )::tollgate.transfers;
    end if;
    if entry.counted then
      perform tollgate.count_open(entry.key_id, -1);
      perform tollgate.settle_key(r, charge, surplus, at_ms) from tollgate.requests r where r.id = entry.id;
    end if;
    if charge >= entry.hold_nanos and (entry.item ->> 'quarantined')::boolean then -- it is charged its hold
      perform tollgate.note_quarantine(entry.org_id, entry.id, moment);
    end if;
    if charge > entry.hold_nanos then
      perform tollgate.record(
        row('system', null, null, null, null, null, null, 'settle', null, null, entry.id)::tollgate.caller,
        'credits.overdrawn', entry.org_id, entry.id,
        jsonb_build_object('hold_nanos', entry.hold_nanos, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos)
      );
    end if;
    answers := answers || json_build_object('settled', json_build_object(
      'state', entry.outcome, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos, 'again', false
    ));
  end loop;

  if items @? '$[*].content' then -- where LOG_CONTENT is on
    perform tollgate.keep_contents(changed);
  end if;

  -- Write.
  with requests as (
    update tollgate.requests r set
      state = c.item ->> 'outcome',
      upstream = coalesce(c.item ->> 'upstream', r.upstream),
      served_model = coalesce(c.item ->> 'served_model', r.served_model),
      generation_id = coalesce(c.item ->> 'generation_id', r.generation_id),
      charge_nanos = case c.item ->> 'outcome'
        when 'settled' then (c.item ->> 'charge_nanos')::bigint
        when 'released' then 0
        else r.charge_nanos
      end,
      cost_nanos = coalesce((c.item ->> 'cost_nanos')::bigint, r.cost_nanos),
      prompt_tokens = coalesce((c.item ->> 'prompt_tokens')::bigint, r.prompt_tokens),
      completion_tokens = coalesce((c.item ->> 'completion_tokens')::bigint, r.completion_tokens),
      usage = coalesce(c.item -> 'usage', r.usage),
      estimated = coalesce((c.item ->> 'estimated')::boolean, r.estimated),
      quarantined = coalesce((c.item ->> 'quarantined')::boolean, r.quarantined),
      status = coalesce((c.item ->> 'status')::integer, r.status),
      error_code = coalesce(c.item ->> 'error_code', r.error_code),
      first_token_ms = coalesce((c.item ->> 'first_token_ms')::integer, r.first_token_ms),
      duration_ms = coalesce((c.item ->> 'duration_ms')::integer, r.duration_ms),
      settled_at = case when c.item ->> 'outcome' <> 'unsettled' then moment end
    from unnest(changed) c (item)
    where r.id = c.item ->> 'id'
  ),
  holds as (
    delete from tollgate.holds h where h.request_id = any (ended)
  ),
  transfers as (
    -- In the order of the running balances, in which positions are then drawn.
    insert into tollgate.transfers (
      org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos, created_at
    )
    select t.org_id, t.debit, t.credit, t.amount_nanos, t.kind, t.reference, t.balance_after_nanos, t.created_at
    from unnest(charges) with ordinality t
    order by t.ordinality
  ),
  orgs as (
    update tollgate.orgs o
    set balance_nanos = w.balance_nanos, held_nanos = w.held_nanos, open_requests = w.open_requests,
      counters = w.counters
    from unnest(wallets) w
    where o.id = w.org_id
  )
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  if repeated <> '[]' then
    answer := answer::jsonb || public.tollgate_settle(repeated)::jsonb;
  end if;
  return coalesce(answer, '{}');
end
$$;

comment on function public.tollgate_settle(jsonb) is
  'Ends holds: `outcome` settled charges and returns the rest, released returns all, unsettled keeps the hold for the sweeper. A cost above the hold posts too, and is recorded as credits.overdrawn. A quarantined one, which is charged its hold, suspends the org''s paid calls when it is the second within an hour. The first outcome of a request stands, unless it was an estimate or a release and a later one is exact: see settle_late(). A repetition changes nothing and is told so. Refuses, per item: not_found. Locks orgs in id order, then keys, then requests.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000100'
$$;

revoke execute on all functions in schema tollgate from public;
