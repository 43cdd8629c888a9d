-- Settles requests: charges what each cost and returns the rest of its hold.

create function tollgate.at_the_hold(item jsonb, hold numeric) returns jsonb
language sql
set search_path = ''
as $$
  select item - array['prompt_tokens', 'completion_tokens'] || jsonb_build_object(
    'charge_nanos', hold, 'cost_nanos', trunc(hold * 1000000 / (1000000 + r.markup_ppm)), 'quarantined', true,
    'basis', 'out_of_range'
  )
  from tollgate.requests r where r.id = item ->> 'id'
$$;

comment on function tollgate.at_the_hold(jsonb, numeric) is
  'The item of a settlement whose money or tokens are below zero or beyond what a transfer may move, changed: quarantined, and charged at its hold.';


create function tollgate.note_quarantine(org_id text, request_id text, moment timestamptz) returns boolean
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
      row('system', null, null, null, null, null, null, 'settle', null, null, request_id, null, null)::tollgate.caller,
      'org.paid_suspended', org.id, org.id,
      jsonb_build_object(
        'reason', 'quarantined_usage', 'request_id', request_id, 'quarantined_before', tollgate.utc(org.quarantined_at)
      )
    );
    return true;
  end if;
  return false;
end
$$;

comment on function tollgate.note_quarantine(text, text, timestamptz) is
  'Stores when a request of the org was quarantined, and suspends the org''s paid calls when it is the second within an hour. Returns whether it did. The org is locked by the caller.';


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
  org_ids text[] := array(
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
  transfer tollgate.transfers;
  charge bigint;
  suspended boolean;
  token_change bigint;
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
      (i.item ->> 'charge_nanos')::numeric as new_charge_nanos,
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
      r.created_at,
      (extract(epoch from r.created_at) * 1000)::bigint as created_ms,
      k.counted or k.max_concurrent_requests is not null as is_counted,
      k.max_concurrent_requests is not null as is_bounded,
      r.user_id,
      not u.limits is null as is_limited,
      k.line,
      o.balance_nanos,
      o.held_nanos,
      o.open_requests,
      o.counters,
      o.chain_head
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join tollgate.requests r on r.id = i.item ->> 'id' and r.org_id = any (org_ids)
    left join tollgate.orgs o on o.id = r.org_id
    left join tollgate.api_keys k on k.id = r.key_id
    left join tollgate.users u on u.id = r.user_id
    order by o.id, i.item ->> 'id', i.place
  -- Decide.
  loop
    if entry.id = last_id then -- a second settlement of one request: it follows when the first is written
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
      wallet := row(
        entry.org_id, entry.balance_nanos, entry.held_nanos, entry.open_requests, entry.counters, entry.chain_head
      );
    end if;
    if greatest(entry.new_charge_nanos, entry.cost_nanos, entry.prompt_tokens, entry.completion_tokens) > most
      or least(entry.new_charge_nanos, entry.cost_nanos, entry.prompt_tokens, entry.completion_tokens) < 0
    then
      entry.item := tollgate.at_the_hold(entry.item, least(entry.hold_nanos, most));
      entry.new_charge_nanos := entry.item -> 'charge_nanos';
      entry.prompt_tokens := null;
      entry.completion_tokens := null;
    end if;
    charge := case entry.outcome when 'settled' then entry.new_charge_nanos else 0 end;
    if entry.state in ('settled', 'released') then
      if entry.outcome <> 'unsettled' and charge <> entry.charge_nanos then
        correction := tollgate.settle_late(entry.item, wallet, entry.is_counted, moment);
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

    token_change := coalesce(entry.prompt_tokens, 0) + coalesce(entry.completion_tokens, 0) - entry.reserved_tokens;
    ended := ended || entry.id;
    wallet.balance_nanos := wallet.balance_nanos - charge;
    wallet.held_nanos := wallet.held_nanos - entry.hold_nanos;
    wallet.open_requests := wallet.open_requests - 1;
    wallet.counters := tollgate.correct(wallet.counters, entry.created_ms, at_ms, token_change);

    if charge > 0 then
      transfer := row(
        nextval('tollgate.transfers_position_seq'), entry.org_id, 'wallet', 'revenue', charge, 'charge', entry.id, '',
        wallet.balance_nanos, moment, null
      );
      transfer.chain := tollgate.chain_after(wallet.chain_head, transfer);
      wallet.chain_head := transfer.chain;
      charges := charges || transfer;
    end if;
    wallets[place] := wallet;
    if entry.is_limited then
      perform tollgate.settle_user(entry.user_id, entry.created_at, token_change, at_ms);
    end if;
    if entry.is_counted then
      perform tollgate.settle_key(entry.key_id, entry.created_at, charge - entry.hold_nanos, token_change, at_ms);
    end if;
    if entry.is_bounded then
      perform tollgate.count_open(entry.key_id, entry.line, -1);
    end if;
    suspended := false;
    if charge >= entry.hold_nanos and (entry.item ->> 'quarantined')::boolean then -- it is charged its hold
      suspended := tollgate.note_quarantine(entry.org_id, entry.id, moment);
    end if;
    if charge > entry.hold_nanos then
      perform tollgate.record(
        row('system', null, null, null, null, null, null, 'settle', null, null, entry.id, null, null)::tollgate.caller,
        'credits.overdrawn', entry.org_id, entry.id,
        jsonb_build_object('hold_nanos', entry.hold_nanos, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos)
      );
    end if;
    answers := answers || json_build_object('settled', json_build_object(
      'state', entry.outcome, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos, 'again', false,
      'suspended_org_id', case when suspended then entry.org_id end
    ));
  end loop;

  if items @? '$[*].content' then -- where LOG_CONTENT is on
    perform tollgate.keep_contents(changed);
  end if;

  if items @? '$[*].cache' then
    perform tollgate.fill_cache(changed, moment);
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
      charged_price = coalesce(c.item -> 'charged_price', r.charged_price),
      basis = coalesce(c.item ->> 'basis', r.basis),
      attempts = coalesce(c.item -> 'attempts', r.attempts),
      estimated = coalesce((c.item ->> 'estimated')::boolean, r.estimated),
      quarantined = coalesce((c.item ->> 'quarantined')::boolean, r.quarantined),
      status = coalesce((c.item ->> 'status')::integer, r.status),
      error_code = coalesce(c.item ->> 'error_code', r.error_code),
      first_token_ms = coalesce((c.item ->> 'first_token_ms')::integer, r.first_token_ms),
      duration_ms = coalesce((c.item ->> 'duration_ms')::integer, r.duration_ms),
      is_byok = coalesce((c.item ->> 'is_byok')::boolean, r.is_byok),
      settled_at = case when c.item ->> 'outcome' <> 'unsettled' then moment end
    from unnest(changed) c (item)
    where r.id = c.item ->> 'id'
  ),
  holds as (
    delete from tollgate.holds h where h.request_id = any (ended)
  ),
  transfers as (
    insert into tollgate.transfers overriding system value select t.* from unnest(charges) t
  ),
  orgs as (
    update tollgate.orgs o
    set balance_nanos = w.balance_nanos, held_nanos = w.held_nanos, open_requests = w.open_requests,
      counters = w.counters, chain_head = w.chain_head
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
  'Ends holds: `outcome` settled charges and returns the rest, released returns all, unsettled keeps the hold for the sweeper. A cost above the hold is charged in full and recorded as credits.overdrawn. A quarantined request is charged its hold; it suspends the org''s paid calls when it is the second within an hour. The first outcome of a request stands, unless it was an estimate, a release or an answer from the cache, and a later one is exact: see settle_late(). A repetition changes nothing and is answered with "again": true. Refuses, per item: not_found. Stores answers in the cache, for items with `cache`. Locks orgs in id order, then users and keys, then requests.';

select tollgate.expose('public.tollgate_settle(jsonb)');
