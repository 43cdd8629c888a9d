-- Why:  a completion must be paid for exactly once, whatever dies in the middle.
-- What: requests (one row for the whole life of a paid call), the answers kept for idempotency keys, and the
--       functions that admit, settle and sweep.
-- Care: additive. Lock order: org, key, request. Both main functions take many items and answer many: an item's
--       refusal is its answer. Repeating an item with the same id changes nothing.

create table tollgate.requests (
  id text primary key check (length(id) between 5 and 140),
  org_id text not null,
  key_id text not null,
  user_id text not null,
  state text not null check (state in ('held', 'settled', 'released', 'unsettled')),
  endpoint text not null,
  model text not null,
  streamed boolean not null default false,
  upstream text,
  served_model text,
  generation_id text,
  hold_nanos bigint not null check (hold_nanos >= 0),
  charge_nanos bigint check (charge_nanos >= 0),
  cost_nanos bigint check (cost_nanos >= 0),
  markup_ppm integer not null,
  output_bound bigint not null,
  reserved_tokens bigint not null check (reserved_tokens >= 0),
  prompt_tokens bigint check (prompt_tokens >= 0),
  completion_tokens bigint check (completion_tokens >= 0),
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
  check ((state in ('settled', 'released')) = (settled_at is not null))
) with (fillfactor = 70); -- room beside each row for its settled version: then settling writes no index

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
  request_id text not null references tollgate.requests (id) on delete cascade,
  answer jsonb, -- null while the request runs
  created_at timestamptz not null default clock_timestamp(),
  primary key (org_id, idempotency_key)
);

create index answers_request on tollgate.answers (request_id);
create index answers_age on tollgate.answers (created_at);

comment on table tollgate.answers is 'What was answered under an idempotency key, for 24 hours.';

alter table tollgate.requests enable row level security;
alter table tollgate.answers enable row level security;
alter table tollgate.holds enable row level security;


create function tollgate.now_ms() returns bigint
language sql
volatile
set search_path = ''
as $$
  select (extract(epoch from clock_timestamp()) * 1000)::bigint
$$;

comment on function tollgate.now_ms() is 'The database''s clock, which alone decides about money and limits.';


create function tollgate.ms_of(moment timestamptz) returns bigint
language sql
immutable
set search_path = ''
as $$
  select (extract(epoch from moment) * 1000)::bigint
$$;

comment on function tollgate.ms_of(timestamptz) is 'Milliseconds since the epoch.';


create function tollgate.with_markup(nanos numeric, markup_ppm integer) returns numeric
language sql
immutable
set search_path = ''
as $$
  select nanos * (1000000 + markup_ppm) / 1000000
$$;

comment on function tollgate.with_markup(numeric, integer) is 'What the org pays for what we pay, not rounded yet.';


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


create function tollgate.is_counted(key tollgate.api_keys) returns boolean
language sql
immutable
set search_path = ''
as $$
  select coalesce(key.budget_nanos, key.tokens_per_month, key.tokens_in_all) is not null or key.limits is distinct from null
$$;

comment on function tollgate.is_counted(tollgate.api_keys) is 'Whether the key has limits, a budget or a quota of its own.';


create function tollgate.lock_if_counted(key tollgate.api_keys) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
begin
  if tollgate.is_counted(key) then
    select k.* into key from tollgate.api_keys k where k.id = key.id for no key update;
  end if;
  return key;
end
$$;

comment on function tollgate.lock_if_counted(tollgate.api_keys) is
  'The key as it stands, locked when its own counters matter. Most keys have none, and their row is left alone.';


create function tollgate.in_this_period(key tollgate.api_keys) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
declare
  period date := tollgate.budget_period(key.budget_reset, now());
  month date := tollgate.budget_period('monthly', now());
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

comment on function tollgate.in_this_period(tollgate.api_keys) is 'The key with its budget and its monthly quota begun anew where their time has come.';


create function tollgate.refused(status integer, code text, facts jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('refusal', tollgate.refusal(status, code, facts))
$$;

comment on function tollgate.refused(integer, text, jsonb) is 'A refusal as the answer to an item.';


create function tollgate.merged(objects jsonb[]) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(pair.key, pair.value), '{}')
  from unnest(objects) o, jsonb_each(o) pair
$$;

comment on function tollgate.merged(jsonb[]) is 'One object of many.';


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


create function tollgate.grant_of(r tollgate.requests, actor tollgate.caller, org tollgate.orgs) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('granted', jsonb_build_object(
    'id', r.id,
    'org_id', r.org_id,
    'user_id', r.user_id,
    'key_id', r.key_id,
    'environment', actor.environment,
    'hold_nanos', r.hold_nanos,
    'output_bound', r.output_bound,
    'markup_ppm', r.markup_ppm,
    'balance_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos
  ))
$$;

comment on function tollgate.grant_of(tollgate.requests, tollgate.caller, tollgate.orgs) is 'The answer to an admitted request.';


create type tollgate.decision as (
  org tollgate.orgs, -- as it stands after the decision; written by whoever holds its lock
  answer jsonb
);

comment on type tollgate.decision is 'The outcome of one item: what it makes of the org, and what its asker is told.';


create function tollgate.save_org(org tollgate.orgs) returns void
language sql
set search_path = ''
as $$
  update tollgate.orgs o
  set balance_nanos = org.balance_nanos, held_nanos = org.held_nanos, counters = org.counters
  where o.id = org.id
$$;

comment on function tollgate.save_org(tollgate.orgs) is
  'Writes an org once for all items of a batch. Only for who has locked and read it in this transaction.';


create function tollgate.admit_one(item jsonb, visit tollgate.visit, org tollgate.orgs, plan tollgate.plans)
returns tollgate.decision
language plpgsql
set search_path = ''
as $$
declare
  decision tollgate.decision := row(org, null);
  key tollgate.api_keys := tollgate.lock_if_counted(visit.key);
  made tollgate.requests;
  markup integer := coalesce(org.markup_ppm, plan.markup_ppm, (item ->> 'markup_ppm')::integer);
  fixed numeric := tollgate.with_markup((item ->> 'fixed_nanos')::numeric, markup);
  per_output numeric := tollgate.with_markup((item ->> 'output_nanos')::numeric, markup);
  bound bigint := (item ->> 'output_bound')::bigint; -- the client's own, or null
  available bigint := org.balance_nanos - org.held_nanos;
  affordable bigint;
  hold bigint;
  reserved bigint;
  at_ms bigint := tollgate.now_ms();
  expires_at timestamptz;
  exceeded jsonb;
  model text;
begin
  perform tollgate.touch(key, item -> 'caller');

  select r.* into made from tollgate.requests r where r.id = item ->> 'id';
  if found then
    decision.answer := tollgate.grant_of(made, visit.actor, org);
    return decision;
  end if;

  if item ->> 'idempotency_key' is not null then
    decision.answer := tollgate.kept_answer(item, org.id);
    if decision.answer is not null then
      return decision;
    end if;
  end if;

  if key.allowed_models is not null then
    for model in select jsonb_array_elements_text(item -> 'models') loop
      if not tollgate.model_allowed(key.allowed_models, model) then
        decision.answer := tollgate.refused(403, 'model_not_allowed',
          jsonb_build_object('key_id', key.id, 'model', model));
        return decision;
      end if;
    end loop;
  end if;

  affordable := case when per_output > 0
    then least(greatest(floor((available - fixed) / per_output), 0), 1000000000)
    else 1000000000
  end;
  -- A bound that the client left open shrinks to what the balance affords; one it chose is its own word.
  if bound is null then
    bound := least((item ->> 'most_output')::bigint, greatest(affordable, (item ->> 'least_output')::bigint));
  end if;
  hold := ceil(fixed + per_output * bound);
  if hold > available or available < 0 then
    decision.answer := tollgate.refused(402, 'insufficient_credits', jsonb_build_object(
      'available_nanos', available,
      'required_nanos', hold,
      'affordable_output_tokens', affordable
    ));
    return decision;
  end if;

  reserved := (item ->> 'prompt_tokens')::bigint + bound * (item ->> 'choices')::bigint;
  if tollgate.is_counted(key) then
    key := tollgate.in_this_period(key);
    if hold > key.budget_nanos - key.budget_spent_nanos then
      decision.answer := tollgate.refused(402, 'key_budget_exhausted', jsonb_build_object(
        'key_id', key.id,
        'budget_nanos', key.budget_nanos,
        'spent_nanos', key.budget_spent_nanos,
        'required_nanos', hold
      ));
      return decision;
    elsif reserved > key.tokens_per_month - key.tokens_used_in_month
      or reserved > key.tokens_in_all - key.tokens_used_in_all
    then
      decision.answer := tollgate.refused(402, 'quota_exhausted', jsonb_build_object(
        'key_id', key.id,
        'tokens_needed', reserved,
        'tokens_left_in_month', key.tokens_per_month - key.tokens_used_in_month,
        'tokens_left_in_all', key.tokens_in_all - key.tokens_used_in_all
      ));
      return decision;
    end if;
  end if;

  exceeded := tollgate.limit_exceeded(org.counters, coalesce(org.limits, row(
    plan.requests_per_minute, plan.requests_per_hour, plan.requests_per_day,
    plan.tokens_per_minute, plan.tokens_per_hour, plan.tokens_per_day
  )::tollgate.limits), at_ms, reserved);
  if exceeded is not null then
    decision.answer := tollgate.refused(429, 'rate_limit_exceeded', exceeded || '{"of": "org"}');
    return decision;
  end if;
  if key.limits is distinct from null then
    exceeded := tollgate.limit_exceeded(key.counters, key.limits, at_ms, reserved);
    if exceeded is not null then
      decision.answer := tollgate.refused(429, 'rate_limit_exceeded',
        exceeded || jsonb_build_object('of', 'key', 'key_id', key.id));
      return decision;
    end if;
  end if;

  -- Decided: from here on everything is taken.
  org.held_nanos := org.held_nanos + hold;
  org.counters := tollgate.take(org.counters, at_ms, 1, reserved);
  if tollgate.is_counted(key) then
    update tollgate.api_keys k set
      counters = tollgate.take(k.counters, at_ms, 1, reserved),
      budget_period = key.budget_period,
      budget_spent_nanos = key.budget_spent_nanos + hold,
      month_of_tokens = key.month_of_tokens,
      tokens_used_in_month = key.tokens_used_in_month + reserved,
      tokens_used_in_all = key.tokens_used_in_all + reserved
    where k.id = key.id;
  end if;

  expires_at := clock_timestamp() + make_interval(secs => (item ->> 'ttl_seconds')::double precision);
  insert into tollgate.requests (
    id, org_id, key_id, user_id, state, endpoint, model, streamed, hold_nanos, markup_ppm,
    output_bound, reserved_tokens, price, idempotency_key, expires_at
  ) values (
    item ->> 'id', org.id, key.id, key.user_id, 'held', item ->> 'endpoint', item ->> 'model',
    (item ->> 'streamed')::boolean, hold, markup, bound, reserved, item -> 'price', item ->> 'idempotency_key',
    expires_at
  ) returning * into made;
  insert into tollgate.holds (request_id, next_sweep_at) values (made.id, expires_at);

  if made.idempotency_key is not null then
    insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id)
    values (org.id, made.idempotency_key, item ->> 'body_hash', made.id)
    on conflict on constraint answers_pkey do update set
      body_hash = excluded.body_hash, request_id = excluded.request_id, answer = null, created_at = excluded.created_at;
  end if;
  return row(org, tollgate.grant_of(made, visit.actor, org))::tollgate.decision;
end
$$;

comment on function tollgate.admit_one(jsonb, tollgate.visit, tollgate.orgs, tollgate.plans) is
  'Decides one item of tollgate_admit() for a caller who was let in, under the org''s lock. Decides all before it takes anything: a refused request leaves every balance, window and quota as it was. Locks the key, if it has counters of its own.';


create function public.tollgate_admit(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off -- a plan made while the tables were small would stay when they are large
as $$
declare
  item jsonb;
  visit tollgate.visit;
  org tollgate.orgs;
  plan tollgate.plans;
  decision tollgate.decision;
  answers jsonb[] := '{}';
begin
  -- In the order of orgs, so that two batches never wait for each other in a circle.
  for item in
    select i.value
    from jsonb_array_elements(items) i
    order by (
      select row(k.org_id, k.id) from tollgate.api_keys k
      where k.digest = any (tollgate.digests_of(i.value -> 'caller'))
    )
  loop
    visit := tollgate.identify(item -> 'caller', item ->> 'scope');
    if visit.refusal is not null then
      answers := answers || jsonb_build_object(item ->> 'id', jsonb_build_object('refusal', visit.refusal));
      continue;
    end if;
    if org.id is distinct from (visit.actor).org_id then
      if org.id is not null then
        perform tollgate.save_org(org);
      end if;
      select o.* into org from tollgate.orgs o where o.id = (visit.actor).org_id for no key update;
      select p.* into plan from tollgate.plans p where p.id = org.plan_id;
    end if;
    decision := tollgate.admit_one(item, visit, org, plan);
    org := decision.org;
    answers := answers || jsonb_build_object(item ->> 'id', decision.answer);
  end loop;
  if org.id is not null then
    perform tollgate.save_org(org);
  end if;
  return tollgate.merged(answers);
end
$$;

comment on function public.tollgate_admit(jsonb) is
  'Admits paid requests: recognises the key, takes from every window or from none, holds the credits, opens the request. Answers by id: granted, replay or refusal. Refuses, per item: as identify(), model_not_allowed, insufficient_credits, key_budget_exhausted, quota_exhausted, rate_limit_exceeded, idempotency_key_reused, request_in_progress. The same id again answers the same. Locks orgs in id order, then keys.';


create function tollgate.settle_one(item jsonb, settled tollgate.requests, org tollgate.orgs) returns tollgate.decision
language plpgsql
set search_path = ''
as $$
declare
  decision tollgate.decision := row(org, null);
  key tollgate.api_keys;
  outcome text := item ->> 'outcome';
  charge bigint := case outcome when 'settled' then (item ->> 'charge_nanos')::bigint else 0 end;
  used bigint := coalesce((item ->> 'prompt_tokens')::bigint, 0) + coalesce((item ->> 'completion_tokens')::bigint, 0);
  surplus bigint := used - settled.reserved_tokens;
begin
  if settled.state in ('settled', 'released') then
    decision.answer := jsonb_build_object('settled', jsonb_build_object(
      'state', settled.state, 'charge_nanos', settled.charge_nanos, 'balance_nanos', org.balance_nanos, 'again', true
    ));
    return decision;
  end if;

  update tollgate.requests r set
    state = outcome,
    upstream = coalesce(item ->> 'upstream', r.upstream),
    served_model = coalesce(item ->> 'served_model', r.served_model),
    generation_id = coalesce(item ->> 'generation_id', r.generation_id),
    charge_nanos = case when outcome = 'unsettled' then r.charge_nanos else charge end,
    cost_nanos = coalesce((item ->> 'cost_nanos')::bigint, r.cost_nanos),
    prompt_tokens = coalesce((item ->> 'prompt_tokens')::bigint, r.prompt_tokens),
    completion_tokens = coalesce((item ->> 'completion_tokens')::bigint, r.completion_tokens),
    usage = coalesce(item -> 'usage', r.usage),
    estimated = coalesce((item ->> 'estimated')::boolean, r.estimated),
    quarantined = coalesce((item ->> 'quarantined')::boolean, r.quarantined),
    status = coalesce((item ->> 'status')::integer, r.status),
    error_code = coalesce(item ->> 'error_code', r.error_code),
    first_token_ms = coalesce((item ->> 'first_token_ms')::integer, r.first_token_ms),
    duration_ms = coalesce((item ->> 'duration_ms')::integer, r.duration_ms),
    settled_at = case when outcome <> 'unsettled' then clock_timestamp() end
  where r.id = settled.id;

  if settled.idempotency_key is not null then
    if item ? 'answer' then
      update tollgate.answers a set answer = item -> 'answer' where a.request_id = settled.id;
    elsif outcome = 'released' then
      delete from tollgate.answers a where a.request_id = settled.id; -- nothing happened: the key is free again
    end if;
  end if;
  if outcome = 'unsettled' then
    update tollgate.holds h
    set next_sweep_at = clock_timestamp()
      + make_interval(secs => coalesce((item ->> 'sweep_in_seconds')::double precision, 0))
    where h.request_id = settled.id;
    decision.answer := jsonb_build_object('settled', jsonb_build_object(
      'state', outcome, 'balance_nanos', org.balance_nanos, 'again', false
    ));
    return decision;
  end if;

  delete from tollgate.holds h where h.request_id = settled.id;
  org.balance_nanos := org.balance_nanos - charge;
  org.held_nanos := org.held_nanos - settled.hold_nanos;
  org.counters := tollgate.correct(org.counters, tollgate.ms_of(settled.created_at), tollgate.now_ms(), surplus);

  if charge > 0 then
    insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)
    values (org.id, 'wallet', 'revenue', charge, 'charge', settled.id, org.balance_nanos);
  end if;

  select k.* into key from tollgate.api_keys k where k.id = settled.key_id;
  if tollgate.is_counted(key) then
    update tollgate.api_keys k set
      counters = tollgate.correct(k.counters, tollgate.ms_of(settled.created_at), tollgate.now_ms(), surplus),
      budget_spent_nanos = case
        when k.budget_period = tollgate.budget_period(k.budget_reset, settled.created_at)
        then greatest(0, k.budget_spent_nanos + charge - settled.hold_nanos)
        else k.budget_spent_nanos
      end,
      tokens_used_in_month = case
        when k.month_of_tokens = tollgate.budget_period('monthly', settled.created_at)
        then greatest(0, k.tokens_used_in_month + surplus)
        else k.tokens_used_in_month
      end,
      tokens_used_in_all = greatest(0, k.tokens_used_in_all + surplus)
    where k.id = key.id;
  end if;

  if charge > settled.hold_nanos then
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, settled.id)::tollgate.caller,
      'credits.overdrawn', org.id, settled.id,
      jsonb_build_object('hold_nanos', settled.hold_nanos, 'charge_nanos', charge, 'balance_nanos', org.balance_nanos)
    );
  end if;
  return row(org, jsonb_build_object('settled', jsonb_build_object(
    'state', outcome, 'charge_nanos', charge, 'balance_nanos', org.balance_nanos, 'again', false
  )))::tollgate.decision;
end
$$;

comment on function tollgate.settle_one(jsonb, tollgate.requests, tollgate.orgs) is
  'Decides one item of tollgate_settle(), under the locks of its org and of the request. The first outcome of a request stands; a later one changes nothing and is told so. Locks the key, if it has counters of its own.';


create function public.tollgate_settle(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off -- a plan made while the tables were small would stay when they are large
as $$
declare
  entry record;
  request tollgate.requests;
  org tollgate.orgs;
  decision tollgate.decision;
  answers jsonb[] := '{}';
begin
  for entry in
    select
      i.value as item,
      i.value ->> 'id' as id,
      (select r.org_id from tollgate.requests r where r.id = i.value ->> 'id') as org_id
    from jsonb_array_elements(items) i
    order by 3, 2
  loop
    if entry.org_id is null then
      answers := answers || jsonb_build_object(entry.id,
        tollgate.refused(404, 'not_found', jsonb_build_object('kind', 'request', 'id', entry.id)));
      continue;
    end if;
    if org.id is distinct from entry.org_id then
      if org.id is not null then
        perform tollgate.save_org(org);
      end if;
      select o.* into org from tollgate.orgs o where o.id = entry.org_id for no key update;
    end if;
    select r.* into request from tollgate.requests r where r.id = entry.id for no key update;
    decision := tollgate.settle_one(entry.item, request, org);
    org := decision.org;
    answers := answers || jsonb_build_object(entry.id, decision.answer);
  end loop;
  if org.id is not null then
    perform tollgate.save_org(org);
  end if;
  return tollgate.merged(answers);
end
$$;

comment on function public.tollgate_settle(jsonb) is
  'Ends holds: `outcome` settled charges and returns the rest, released returns all, unsettled keeps the hold for the sweeper. A cost above the hold posts too, and is recorded as credits.overdrawn. Refuses, per item: not_found. Locks orgs in id order, then requests, then keys.';


create function public.tollgate_note_generation(id text, generation_id text, upstream text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  update tollgate.requests r set
    generation_id = tollgate_note_generation.generation_id,
    upstream = tollgate_note_generation.upstream
  where r.id = tollgate_note_generation.id and r.state in ('held', 'unsettled');
  return jsonb_build_object('noted', found);
end
$$;

comment on function public.tollgate_note_generation(text, text, text) is
  'Remembers the upstream''s id of a running generation, by which its cost can be found when we do not live to see it. Refuses nothing. Locks the request row.';


create function public.tollgate_due(page_size integer, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  due jsonb;
begin
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
    'state', r.state,
    'upstream', r.upstream,
    'generation_id', r.generation_id,
    'hold_nanos', r.hold_nanos,
    'markup_ppm', r.markup_ppm,
    'price', r.price,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'output_bound', r.output_bound,
    'sweeps', t.sweeps,
    'age_seconds', extract(epoch from clock_timestamp() - r.created_at)::bigint,
    'expired', r.expires_at <= clock_timestamp()
  ) order by r.created_at, r.id) into due
  from taken t
  join tollgate.requests r on r.id = t.request_id;
  return jsonb_build_object('data', coalesce(due, '[]'::jsonb));
end
$$;

comment on function public.tollgate_due(integer, integer) is
  'Takes requests whose time has come for one sweeper, for the length of the lease. Refuses nothing. Skips holds that another sweeper has locked.';


create function public.tollgate_audit_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with wallets as (
    select o.id, o.balance_nanos, o.held_nanos,
      coalesce((
        select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end)
        from tollgate.transfers t where t.org_id = o.id
      ), 0) as transferred,
      coalesce((
        select sum(r.hold_nanos) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ), 0) as held
    from tollgate.orgs o
  ),
  faults as (
    select 'balance' as fault, w.id, jsonb_build_object('balance_nanos', w.balance_nanos, 'transfers', w.transferred) as facts
    from wallets w where w.balance_nanos <> w.transferred
    union all
    select 'held', w.id, jsonb_build_object('held_nanos', w.held_nanos, 'open_holds', w.held)
    from wallets w where w.held_nanos <> w.held
    union all
    select 'hold', coalesce(r.id, h.request_id), jsonb_build_object('state', r.state, 'open', h.request_id is not null)
    from tollgate.requests r
    full join tollgate.holds h on h.request_id = r.id
    where coalesce(r.state in ('held', 'unsettled'), false) <> (h.request_id is not null)
    union all
    select 'charge', r.id, jsonb_build_object('charge_nanos', r.charge_nanos, 'transfers', count(t.position), 'amount_nanos', sum(t.amount_nanos))
    from tollgate.requests r
    left join tollgate.transfers t on t.kind = 'charge' and t.reference = r.id
    where r.state = 'settled'
    group by r.id
    having count(t.position) <> (case when r.charge_nanos > 0 then 1 else 0 end)
      or coalesce(sum(t.amount_nanos), 0) <> r.charge_nanos
    union all
    select 'stray_charge', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'state', r.state)
    from tollgate.transfers t
    left join tollgate.requests r on r.id = t.reference
    where t.kind = 'charge' and r.state is distinct from 'settled'
    union all
    select 'running_balance', 'trf_' || s.position, jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
    from (
      select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
        case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
      from tollgate.transfers t
    ) s
    where s.before + s.change <> s.balance_after_nanos
  )
  select jsonb_build_object(
    'orgs', (select count(*) from tollgate.orgs),
    'transfers', (select count(*) from tollgate.transfers),
    'requests', (select count(*) from tollgate.requests),
    'open_holds', (select count(*) from tollgate.holds),
    'accounts_nanos', coalesce((
      select jsonb_object_agg(a.account, a.nanos) from (
        select e.account, sum(e.nanos) as nanos from (
          select t.debit as account, -t.amount_nanos as nanos from tollgate.transfers t
          union all
          select t.credit, t.amount_nanos from tollgate.transfers t
        ) e group by e.account
      ) a
    ), '{}'::jsonb),
    'faults', coalesce((
      select jsonb_agg(jsonb_build_object('fault', f.fault, 'id', f.id, 'facts', f.facts)) from faults f
    ), '[]'::jsonb)
  )
$$;

comment on function public.tollgate_audit_books() is
  'Proves the books from the tables alone: every balance is its transfers, every held sum its open holds, every open request one hold, every settled charge one transfer, every running balance the one before and its change. Names each row that does not fit. Refuses nothing, locks nothing.';


select tollgate.expose('public.tollgate_admit(jsonb)');
select tollgate.expose('public.tollgate_settle(jsonb)');
select tollgate.expose('public.tollgate_note_generation(text, text, text)');
select tollgate.expose('public.tollgate_due(integer, integer)');
select tollgate.expose('public.tollgate_audit_books()');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001100'
$$;

revoke execute on all functions in schema tollgate from public;
