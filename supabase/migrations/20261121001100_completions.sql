-- Why:  a completion must be paid for exactly once, whatever dies in the middle.
-- What: requests (one row for the whole life of a paid call), the answers kept for idempotency keys, and the
--       functions that admit, settle and sweep; where pg_cron is installed, a job that ends what nobody swept.
-- Care: additive. Lock order: org, key, request. Both main functions take many items and answer many: an item's
--       refusal is its answer. Repeating an item with the same id changes nothing.
--
-- Both take four steps: lock the orgs, look everything up, decide item by item in memory, write. All but the third are
-- one statement for the whole batch, since starting a statement costs more than a row in it.

-- Domains, as for tollgate.orgs.
create domain tollgate.request_id as text check (length(value) between 5 and 140);
create domain tollgate.request_state as text check (value in ('held', 'unsettled', 'settled', 'released'));

create table tollgate.requests (
  id tollgate.request_id primary key,
  org_id text not null,
  key_id text not null,
  user_id text not null,
  state tollgate.request_state not null,
  endpoint text not null,
  model text not null,
  streamed boolean not null default false,
  upstream text,
  served_model text,
  generation_id text,
  hold_nanos tollgate.not_negative not null,
  charge_nanos tollgate.not_negative,
  cost_nanos tollgate.not_negative,
  markup_ppm integer not null,
  output_bound bigint not null,
  reserved_tokens tollgate.not_negative not null,
  prompt_tokens tollgate.not_negative,
  completion_tokens tollgate.not_negative,
  usage jsonb,
  price jsonb,
  estimated boolean not null default false,
  quarantined boolean not null default false,
  status integer,
  error_code text,
  first_token_ms integer,
  duration_ms integer,
  idempotency_key text,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  settled_at timestamptz,
  check ((settled_at is null) = (state in ('held', 'unsettled')))
) with (fillfactor = 50); -- room beside each row for its settled version, which is longer: then settling writes no index

create index requests_org on tollgate.requests (org_id, created_at desc);

comment on table tollgate.requests is 'Paid calls, one row for the whole life of each. No foreign keys: rows are written only under the orgs lock, and history outlives keys. Held and unsettled ones have their hold_nanos in orgs.held_nanos.';
comment on column tollgate.requests.reserved_tokens is 'Tokens counted in the windows at admission; corrected when settled.';
comment on column tollgate.requests.price is 'The prices the hold was made with, for whoever settles an estimate.';


create table tollgate.holds (
  request_id text primary key,
  next_sweep_at timestamptz not null,
  sweeps integer not null default 0
);

create index holds_due on tollgate.holds (next_sweep_at);

comment on table tollgate.holds is 'The open holds: one row for each request that is held or unsettled, gone when it ends.';
comment on column tollgate.holds.next_sweep_at is 'When a sweeper looks for the truth if nobody settled; moves on with each look.';


create table tollgate.answers (
  org_id text not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  body_hash text not null,
  request_id text not null,
  answer jsonb, -- null while the request runs; {"kept": false} when it ended without an answer to keep
  created_at timestamptz not null default clock_timestamp(),
  primary key (org_id, idempotency_key)
);

create index answers_request on tollgate.answers (request_id);
create index answers_age on tollgate.answers (created_at);

comment on table tollgate.answers is 'What was answered under an idempotency key, for 24 hours. No foreign key, as for requests.';

alter table tollgate.requests enable row level security;
alter table tollgate.answers enable row level security;
alter table tollgate.holds enable row level security;


create function tollgate.ms_of(moment timestamptz) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return extract(epoch from moment) * 1000;
end
$$;

comment on function tollgate.ms_of(timestamptz) is 'Milliseconds since the epoch.';


create function tollgate.budget_period(reset text, moment timestamptz) returns date
language sql
immutable
set search_path = ''
as $$
  select case reset
    when 'daily' then date_trunc('day', moment at time zone 'utc')
    when 'weekly' then date_trunc('week', moment at time zone 'utc')
    when 'monthly' then date_trunc('month', moment at time zone 'utc')
    else timestamp 'epoch'
  end::date
$$;

comment on function tollgate.budget_period(text, timestamptz) is 'The first day, in UTC, of the period a budget counts in.';


create function tollgate.model_allowed(patterns text[], model text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (
    select from unnest(patterns) pattern
    where model like replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
  )
$$;

comment on function tollgate.model_allowed(text[], text) is 'Whether one of the patterns, in which * stands for anything, fits the model.';


create function tollgate.in_this_period(key tollgate.api_keys, moment timestamptz) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
declare
  period date := tollgate.budget_period(key.budget_reset, moment);
  month date := tollgate.budget_period('monthly', moment);
begin
  if key.budget_period is distinct from period then
    key.budget_period := period;
    key.budget_spent_nanos := 0;
  end if;
  if key.month_of_tokens is distinct from month then
    key.month_of_tokens := month;
    key.tokens_used_in_month := 0;
  end if;
  return key;
end
$$;

comment on function tollgate.in_this_period(tollgate.api_keys, timestamptz) is 'The key with its budget and its monthly quota begun anew where their time has come.';


create function tollgate.refused(status integer, code text, facts jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('refusal', tollgate.refusal(status, code, facts))
$$;

comment on function tollgate.refused(integer, text, jsonb) is 'A refusal as the answer to an item.';


create function tollgate.kept_answer(item jsonb, org_id text) returns jsonb
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
  return jsonb_build_object('replay', kept.answer || jsonb_build_object('request_id', kept.request_id));
end
$$;

comment on function tollgate.kept_answer(jsonb, text) is
  'What an idempotency key was answered with: a replay, a refusal, or null when it is new. The org is locked by the caller, so two requests cannot both find it new.';


create type tollgate.purse as (
  org_id text,
  balance_nanos bigint,
  held_nanos bigint,
  counters bigint[]
);

comment on type tollgate.purse is 'What requests change of an org: carried from item to item of a batch, and written once.';


create type tollgate.opening as (
  item jsonb,
  id text,
  org_id text,
  key_id text,
  user_id text,
  markup_ppm integer,
  hold_nanos bigint,
  output_bound bigint,
  reserved_tokens bigint
);

comment on type tollgate.opening is 'A request that was admitted, before it is a row: what was asked, and what was decided.';


create function tollgate.grant_of(
  opening tollgate.opening,
  environment text,
  purse tollgate.purse,
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
    'balance_nanos', purse.balance_nanos,
    'held_nanos', purse.held_nanos,
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

comment on function tollgate.grant_of(tollgate.opening, text, tollgate.purse, tollgate.room) is
  'The answer to an admitted request. `limits` is null where neither org nor key has any. In json, not jsonb: what is only sent costs half when it is never taken apart.';


create type tollgate.offer as (
  output_bound bigint,
  hold_nanos bigint,
  reserved_tokens bigint,
  affordable_tokens bigint -- of output, by the org's balance
);

comment on type tollgate.offer is 'What a request would be admitted with: the bound of its output, and what is set aside for it.';


create function tollgate.offer(item jsonb, markup_ppm integer, nanos_left bigint, tokens_left bigint) returns tollgate.offer
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
  offer.hold_nanos := ceil(fixed + per_output * offer.output_bound);
  offer.reserved_tokens := (item ->> 'prompt_tokens')::bigint + offer.output_bound * (item ->> 'choices')::bigint;
  return offer;
end
$$;

comment on function tollgate.offer(jsonb, integer, bigint, bigint) is
  'Prices the worst case of a request, its output bounded by what is left where the client did not bound it. Exact until the hold is rounded up; the balance may fall short of it.';


create type tollgate.leeway as (
  nanos bigint, -- null: no bound but the balance
  tokens bigint
);

comment on type tollgate.leeway is 'What an open bound may take at most.';


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


create function tollgate.answer_beforehand(
  item jsonb,
  key_id text,
  environment text,
  purse tollgate.purse,
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
  kept jsonb;
  model text;
begin
  if refusal is not null then
    return jsonb_build_object('refusal', refusal);
  elsif purse.org_id is null then -- born after we looked for the orgs to lock
    return tollgate.refused(401, 'invalid_api_key', '{}');
  end if;

  select k.* into key from tollgate.api_keys k where k.id = answer_beforehand.key_id;
  perform tollgate.touch(key, caller);

  select item, r.id, r.org_id, r.key_id, r.user_id, r.markup_ppm, r.hold_nanos, r.output_bound, r.reserved_tokens
  into made
  from tollgate.requests r
  where r.id = item ->> 'id' and r.org_id = purse.org_id;
  if found then
    return tollgate.grant_of(made, environment, purse, room);
  end if;

  if item ->> 'idempotency_key' is not null then
    kept := tollgate.kept_answer(item, purse.org_id);
    if kept is not null then
      return kept;
    end if;
  end if;

  if key.allowed_models is not null then
    for model in select jsonb_array_elements_text(item -> 'models') loop
      if not tollgate.model_allowed(key.allowed_models, model) then
        return tollgate.refused(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', model));
      end if;
    end loop;
  end if;
  return null;
end
$$;

comment on function tollgate.answer_beforehand(jsonb, text, text, tollgate.purse, tollgate.room) is
  'The answer to an item that needs no look at money or limits: a refusal of its caller or model, what was granted or answered before; or null. Notes the use of the key.';


create type tollgate.taking as (
  refusal jsonb, -- null when it was taken
  room tollgate.room
);

comment on type tollgate.taking is 'Whether a key''s own counters had room for a request, and the room they have now.';


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
  if offer.hold_nanos > key.budget_nanos - key.budget_spent_nanos then
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
  taking.room.requests_left := (taking.room).requests_left - 1;
  taking.room.tokens_left := (taking.room).tokens_left - offer.reserved_tokens;
  return taking;
end
$$;

comment on function tollgate.take_from_key(text, tollgate.offer, timestamptz) is
  'Takes a request from a key''s budget, quotas and windows, or refuses and takes nothing. The last to be asked: whatever else could refuse has agreed. Locks the key.';


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
  at_ms bigint := tollgate.ms_of(moment);
  asked record;
  purse tollgate.purse;
  room tollgate.room;
  leeway tollgate.leeway;
  offer tollgate.offer;
  taking tollgate.taking;
  opening tollgate.opening;
  available bigint;
  answer json;
  last_id text;
  place integer := 0; -- of the purse among the purses
  opened tollgate.opening[] := '{}';
  purses tollgate.purse[] := '{}';
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
      k.counted,
      o.id as org_id,
      o.balance_nanos,
      o.held_nanos,
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
        and u.status = 'active' and o.status = 'active'
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
    if purse.org_id is distinct from asked.org_id then
      place := place + 1;
      purse := row(asked.org_id, asked.balance_nanos, asked.held_nanos, asked.counters);
      room := tollgate.room(asked.counters, asked.limits, at_ms);
    end if;

    answer := null;
    if asked.plain is not true then
      answer := tollgate.answer_beforehand(asked.item, asked.key_id, asked.environment, purse, room);
    elsif (asked.last_used_at > moment - interval '1 minute') is not true then
      used := used || asked.key_id::text;
    end if;

    if answer is null then
      available := purse.balance_nanos - purse.held_nanos;
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
          tollgate.limit_exceeded(purse.counters, asked.limits, at_ms, offer.reserved_tokens) || '{"of": "org"}');
      elsif asked.counted then
        taking := tollgate.take_from_key(asked.key_id, offer, moment);
        answer := taking.refusal;
      end if;
    end if;

    if answer is null then -- nothing refuses: from here on everything is taken
      purse.held_nanos := purse.held_nanos + offer.hold_nanos;
      purse.counters := tollgate.take(purse.counters, at_ms, 1, offer.reserved_tokens);
      room.requests_left := room.requests_left - 1;
      room.tokens_left := room.tokens_left - offer.reserved_tokens;

      opening := row(
        asked.item, asked.id, asked.org_id, asked.key_id, asked.user_id, asked.markup_ppm,
        offer.hold_nanos, offer.output_bound, offer.reserved_tokens
      );
      opened := opened || opening;
      purses[place] := purse;
      if asked.idempotency_key is not null then
        insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id)
        values (asked.org_id, asked.idempotency_key, asked.item ->> 'body_hash', asked.id)
        on conflict on constraint answers_pkey do update set
          body_hash = excluded.body_hash, request_id = excluded.request_id,
          answer = null, created_at = excluded.created_at;
      end if;
      answer := tollgate.grant_of(opening, asked.environment, purse, case
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
    update tollgate.orgs o set held_nanos = p.held_nanos, counters = p.counters
    from unnest(purses) p
    where o.id = p.org_id
  )
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  return coalesce(answer, '{}');
end
$$;

comment on function public.tollgate_admit(jsonb) is
  'Admits paid requests: recognises the key, takes from every window or from none, holds the credits, opens the request. Answers by id: granted, replay or refusal. Refuses, per item: as identify(), model_not_allowed, insufficient_credits, key_budget_exhausted, quota_exhausted, rate_limit_exceeded, idempotency_key_reused, request_in_progress. The same id again answers the same. Locks orgs in id order, then keys.';


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
    -- Nothing happened: the key is free again.
    delete from tollgate.answers a where a.request_id = keep_answer.request_id;
  else
    update tollgate.answers a set answer = '{"kept": false}'
    where a.request_id = keep_answer.request_id and a.answer is null;
  end if;
end
$$;

comment on function tollgate.keep_answer(text, jsonb) is
  'Keeps what a request was answered under its idempotency key, or that there is nothing to keep: whoever asks again is told so instead of running it a second time.';


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


create function public.tollgate_settle(items jsonb) returns json
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
  at_ms bigint := tollgate.ms_of(moment);
  entry record;
  purse tollgate.purse;
  charge bigint;
  surplus bigint;
  last_id text;
  place integer := 0; -- of the purse among the purses
  answer json;
  repeated jsonb := '[]';
  changed jsonb[] := '{}';
  ended text[] := '{}';
  charges tollgate.transfers[] := '{}';
  purses tollgate.purse[] := '{}';
  ids text[] := '{}';
  answers json[] := '{}';
begin
  -- Look up.
  for entry in
    select
      i.item ->> 'id' as id,
      i.item,
      i.item ->> 'outcome' as outcome,
      r.org_id,
      r.key_id,
      r.state,
      r.hold_nanos,
      r.charge_nanos,
      r.reserved_tokens,
      r.idempotency_key,
      tollgate.ms_of(r.created_at) as created_ms,
      k.counted,
      o.balance_nanos,
      o.held_nanos,
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
    if purse.org_id is distinct from entry.org_id then
      place := place + 1;
      purse := row(entry.org_id, entry.balance_nanos, entry.held_nanos, entry.counters);
    end if;
    if entry.state in ('settled', 'released') then
      answers := answers || json_build_object('settled', json_build_object(
        'state', entry.state, 'charge_nanos', entry.charge_nanos, 'balance_nanos', purse.balance_nanos, 'again', true
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
        'state', 'unsettled', 'balance_nanos', purse.balance_nanos, 'again', false
      ));
      continue;
    end if;

    charge := case entry.outcome when 'settled' then (entry.item ->> 'charge_nanos')::bigint else 0 end;
    surplus := coalesce((entry.item ->> 'prompt_tokens')::bigint, 0)
      + coalesce((entry.item ->> 'completion_tokens')::bigint, 0) - entry.reserved_tokens;
    ended := ended || entry.id;
    purse.balance_nanos := purse.balance_nanos - charge;
    purse.held_nanos := purse.held_nanos - entry.hold_nanos;
    purse.counters := tollgate.correct(purse.counters, entry.created_ms, at_ms, surplus);
    purses[place] := purse;

    if charge > 0 then
      charges := charges || row(
        null, entry.org_id, 'wallet', 'revenue', charge, 'charge', entry.id, '', purse.balance_nanos, moment
      )::tollgate.transfers;
    end if;
    if entry.counted then
      perform tollgate.settle_key(r, charge, surplus, at_ms) from tollgate.requests r where r.id = entry.id;
    end if;
    if charge > entry.hold_nanos then
      perform tollgate.record(
        row('system', null, null, null, null, null, null, 'settle', null, null, entry.id)::tollgate.caller,
        'credits.overdrawn', entry.org_id, entry.id,
        jsonb_build_object('hold_nanos', entry.hold_nanos, 'charge_nanos', charge, 'balance_nanos', purse.balance_nanos)
      );
    end if;
    answers := answers || json_build_object('settled', json_build_object(
      'state', entry.outcome, 'charge_nanos', charge, 'balance_nanos', purse.balance_nanos, 'again', false
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
    set balance_nanos = p.balance_nanos, held_nanos = p.held_nanos, counters = p.counters
    from unnest(purses) p
    where o.id = p.org_id
  )
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  if repeated <> '[]' then
    answer := answer::jsonb || public.tollgate_settle(repeated)::jsonb;
  end if;
  return coalesce(answer, '{}');
end
$$;

comment on function public.tollgate_settle(jsonb) is
  'Ends holds: `outcome` settled charges and returns the rest, released returns all, unsettled keeps the hold for the sweeper. A cost above the hold posts too, and is recorded as credits.overdrawn. The first outcome of a request stands; a later one changes nothing and is told so. Refuses, per item: not_found. Locks orgs in id order, then keys, then requests.';


create function public.tollgate_note_generations(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off -- as for tollgate_admit()
as $$
declare
  answers jsonb;
begin
  with noted as (
    update tollgate.requests r set generation_id = i.generation_id, upstream = i.upstream
    from jsonb_to_recordset(items) i (id text, generation_id text, upstream text)
    where r.id = i.id and r.id = any (array(
      select o.id from tollgate.requests o
      where o.id = any (array(select a.value ->> 'id' from jsonb_array_elements(items) a))
        and o.state in ('held', 'unsettled')
      for no key update skip locked
    ))
    returning r.id
  )
  select jsonb_object_agg(i.value ->> 'id', jsonb_build_object('noted', n.id is not null)) into answers
  from jsonb_array_elements(items) i
  left join noted n on n.id = i.value ->> 'id';
  return answers;
end
$$;

comment on function public.tollgate_note_generations(jsonb) is
  'Remembers the upstreams'' ids of running generations, by which their costs can be found when we do not live to see them. Each item has id, generation_id, upstream. Refuses nothing. Locks the request rows, and waits for none: one that is locked is being settled.';


create function public.tollgate_due(page_size integer, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  due jsonb;
begin
  delete from tollgate.answers a
  where (a.org_id, a.idempotency_key) in (
    select o.org_id, o.idempotency_key from tollgate.answers o
    where o.created_at < clock_timestamp() - interval '24 hours'
    order by o.created_at
    limit 1000
    for update skip locked
  );

  with taken as (
    update tollgate.holds h set
      sweeps = h.sweeps + 1,
      next_sweep_at = clock_timestamp() + make_interval(secs => lease_seconds)
    where h.request_id in (
      select o.request_id from tollgate.holds o
      where o.next_sweep_at <= clock_timestamp()
      order by o.next_sweep_at
      limit page_size
      for update skip locked
    )
    returning *
  )
  select jsonb_agg(jsonb_build_object(
    'id', r.id,
    'org_id', r.org_id,
    'state', r.state,
    'endpoint', r.endpoint,
    'model', r.model,
    'streamed', r.streamed,
    'upstream', r.upstream,
    'generation_id', r.generation_id,
    'hold_nanos', r.hold_nanos,
    'markup_ppm', r.markup_ppm,
    'price', r.price,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'output_bound', r.output_bound,
    'reserved_tokens', r.reserved_tokens,
    'sweeps', t.sweeps,
    'created_at', tollgate.utc(r.created_at),
    'age_seconds', extract(epoch from clock_timestamp() - r.created_at)::bigint,
    'expires_in_seconds', extract(epoch from r.expires_at - clock_timestamp())::bigint,
    'expired', r.expires_at <= clock_timestamp()
  ) order by r.created_at, r.id) into due
  from taken t
  join tollgate.requests r on r.id = t.request_id;
  return jsonb_build_object('data', coalesce(due, '[]'::jsonb));
end
$$;

comment on function public.tollgate_due(integer, integer) is
  'Takes requests whose time has come for one sweeper, for the length of the lease, and forgets up to 1,000 answers older than a day. Refuses nothing. Skips holds and answers that another sweeper has locked.';


create function public.tollgate_expire(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  overdue jsonb;
  answers jsonb;
begin
  select jsonb_agg(jsonb_build_object(
    'id', o.id,
    'outcome', 'settled',
    'charge_nanos', least(o.hold_nanos, ceil(o.prompt_nanos * (1000000 + o.markup_ppm) / 1000000)),
    'cost_nanos', least(o.hold_nanos, ceil(o.prompt_nanos)),
    'estimated', true
  )) into overdue
  from (
    select r.id, r.hold_nanos, r.markup_ppm, coalesce((r.price ->> 'fixed_nanos')::numeric, 0) as prompt_nanos
    from tollgate.holds h
    join tollgate.requests r on r.id = h.request_id
    where h.next_sweep_at < clock_timestamp() - interval '1 hour'
      and r.expires_at < clock_timestamp() - interval '1 hour'
      and r.state = 'held' and r.upstream is null and r.generation_id is null
    order by h.next_sweep_at
    limit page_size
  ) o;
  answers := public.tollgate_settle(coalesce(overdue, '[]'));
  return jsonb_build_object('ended', (
    select count(*) from jsonb_each(answers) a where not (a.value -> 'settled' ->> 'again')::boolean
  ));
end
$$;

comment on function public.tollgate_expire(integer) is
  'Ends holds an hour after their time when no sweeper came and no upstream was noted, so that there is nobody to ask. Their prompt is charged, as the server''s own sweeper does, and marked estimated: the call may have run, and nobody can say what it said. Refuses nothing. Locks as tollgate_settle().';


select tollgate.expose('public.tollgate_admit(jsonb)');
select tollgate.expose('public.tollgate_settle(jsonb)');
select tollgate.expose('public.tollgate_note_generations(jsonb)');
select tollgate.expose('public.tollgate_due(integer, integer)');
select tollgate.expose('public.tollgate_expire(integer)');

-- The net under the sweepers that ask upstreams, which SQL cannot.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-expire', '* * * * *', 'select public.tollgate_expire(500)');
  end if;
end
$$;


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001100'
$$;

revoke execute on all functions in schema tollgate from public;
